"""The options of a fit where nothing bounds the scene: coarse levels first, rates, and total variation."""

from dataclasses import replace

import pytest

from model.fitting.fitter import FitOptions
from model.fitting.open_scene import of_open_scene
from model.fitting.options import FitGrid, FitOpen, FitOptimization, FitRegularization
from model.fitting.start import opacity_to_density
from utils.errors import UserError


def options(resolutions=(128, 256), steps=(1000, 4000), rays=(16384,), **of_open) -> FitOptions:
    return FitOptions(
        FitGrid(resolutions=resolutions), FitOptimization(steps=steps, rays_per_step=rays),
        open=FitOpen(**{"nested": 4, "coarse": 2, **of_open}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "resolutions", "steps"),
    [
        ({}, (32, 64, 128, 256), (333, 333, 334, 4000)),
        ({"coarse": 1}, (64, 128, 256), (500, 500, 4000)),
        ({"coarse": 0}, (128, 256), (1000, 4000)),
        ({"resolutions": (48,), "steps": (90,)}, (24, 48), (45, 45)),  # 12 would be below 16
        ({"resolutions": (40, 80)}, (20, 40, 80), (500, 500, 4000)),
        ({"resolutions": (36, 72)}, (36, 72), (1000, 4000)),  # 4 does not divide 18
        ({"resolutions": (36, 72), "nested": 1}, (18, 36, 72), (500, 500, 4000)),
        ({"steps": (2, 4000)}, (64, 128, 256), (1, 1, 4000)),
        ({"steps": (1, 4000)}, (128, 256), (1, 4000)),
    ],
)
def test_coarse_levels_share_the_steps_of_the_first(given, resolutions, steps):
    fitted = of_open_scene(options(**given))
    assert (fitted.grid.resolutions, fitted.optimization.steps) == (resolutions, steps)
    assert fitted.optimization.rays_per_step == (16384,)
    assert fitted.total_steps == options(**given).total_steps


def test_fog_has_the_same_density_in_coarser_voxels():
    given = options(coarse=2)
    fitted = of_open_scene(given).grid
    coarse, usual = (opacity_to_density(grid.unknown_opacity, grid.resolutions[0]) for grid in (fitted, given.grid))
    assert fitted.resolutions[0] == 32 and coarse == pytest.approx(usual, rel=1e-6)


def test_coarse_levels_have_the_rays_of_the_first():
    assert of_open_scene(options(rays=(1000, 2000))).optimization.rays_per_step == (1000, 1000, 1000, 2000)


def test_rates_are_those_of_open_scenes_unless_asked_for():
    own = FitOptimization(density_rate=(3.0, 1.0), epsilon=1e-5)
    assert of_open_scene(replace(options(), optimization=replace(own, steps=(8, 8)))).optimization.epsilon == 1e-5
    fitted = of_open_scene(options(density_rate=(8.0, 2.0), epsilon=1e-9))
    assert fitted.optimization.epsilon == 1e-9
    assert fitted.density_rate(256) == (8.0, 2.0) and fitted.density_rate(32) == (1.0, 0.25)
    assert replace(fitted, optimization=replace(own, steps=(8,) * 4)).density_rate(32) == (3.0, 1.0)
    fog = replace(options(density_rate=None), grid=FitGrid(start="dense"))
    assert of_open_scene(fog).density_rate(32) == (1.5, 0.3)


@pytest.mark.parametrize(("nested", "factors"), [(4, (10.0, 2.0)), (1, (1.0, 1.0))])
def test_variation_counts_more_in_nested_grids(nested, factors):
    given = replace(
        options(nested=nested, variation=(10.0, 2.0), near_weight=0.07),
        regularization=FitRegularization(tv_density=(1.0, 2.0), tv_sh=(3.0, 5.0), depth=9.0, free_space_margin=4.0),
    )
    fitted = of_open_scene(given).regularization
    assert fitted.tv_density == (factors[0], 2 * factors[1]) and fitted.tv_sh == (3 * factors[0], 5 * factors[1])
    assert (fitted.depth, fitted.free_space, fitted.free_space_margin) == (0.0, 0.07, 0.0)
    assert of_open_scene(replace(given, open=replace(given.open, near=0.0))).regularization.free_space == 0.0


@pytest.mark.parametrize(
    ("name", "value"), [("coarse", -1), ("epsilon", -1e-9), ("variation", (1.0,)), ("density_rate", (1.0, -1.0))]
)
def test_values_without_a_meaning_are_refused(name, value):
    with pytest.raises(UserError, match=rf"FitOpen.{name} = .*: expected"):
        FitOpen(**{name: value})

"""That torch knows the ops: schemas, fake functions, autograd, gradients, and what a wrong call says."""

from dataclasses import fields

import pytest
import torch
from torch.library import opcheck

from lib.library import load_library
from lib.plenoxel import ops, reference
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions, option_numbers
from tests.lib.plenoxel_scenes import Scene, links_from_rows, random_rays, random_scene, run

namespace = torch.ops.plenoxel
GEOMETRY = ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], option_numbers(RenderOptions()))


def smooth_scene(rays=6) -> Scene:
    """A scene away from the kinks of thresholds and clamping, so that finite differences see a smooth function."""
    generator = torch.Generator().manual_seed(0)
    links = links_from_rows((3, 2, 4), torch.randperm(24, generator=generator)[:14])
    density = torch.rand(14, generator=generator, dtype=torch.float64) * 3 + 0.1
    sh = torch.randn(14, 27, generator=generator, dtype=torch.float64) * 0.1
    return Scene(links, density, sh, *random_rays(rays, generator, torch.float64))


@pytest.mark.parametrize("op", [ops.render_rays, reference._render_rays])
@pytest.mark.parametrize("options", [{}, {"sh_background": True, "background_brightness": 0.5, "step_size": 0.3}])
def test_gradcheck(op, options):
    scene = smooth_scene()

    def outputs(density, sh):
        return tuple(run(op, scene._replace(density=density, sh=sh), **options))

    inputs = (scene.density.requires_grad_(), scene.sh.requires_grad_())
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=op is reference._render_rays)


@pytest.mark.parametrize("outputs", [("rgb",), ("sh",), ("depth", "alpha")])
def test_gradients_of_some_outputs(outputs):
    scene = smooth_scene()
    density, sh = scene.density.requires_grad_(), scene.sh.requires_grad_()
    gradients = []
    for op in (ops.render_rays, reference._render_rays):
        out = run(op, scene._replace(density=density, sh=sh), outputs=outputs)
        loss = sum(getattr(out, name).square().sum() for name in outputs)
        gradients.append(torch.autograd.grad(loss, (density, sh), materialize_grads=True))
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


def ray_arguments(scene: Scene, with_sh=True):
    grid = (scene.links, scene.grid().index.distance, scene.density, *([scene.sh] if with_sh else []))
    return (*grid, scene.origins, scene.directions, None, *GEOMETRY)


def zeros(scene: Scene):
    return torch.zeros_like(scene.density), torch.zeros_like(scene.sh)


CASES = {
    "cell_distance": lambda scene: (scene.links,),
    "render_rays": lambda scene: (*ray_arguments(scene), 15),
    "render_rays_backward": lambda scene: (
        *ray_arguments(scene), torch.ones_like(scene.origins), None, None, torch.ones(len(scene.origins)).double()
    ),
    "max_weight": lambda scene: (*ray_arguments(scene, with_sh=False), zeros(scene)[0]),
    "fit_gradients": lambda scene: (
        *ray_arguments(scene), torch.zeros_like(scene.origins), None, None, torch.ones_like(scene.origins),
        [0.1, 0.1, 0.0, 0.0, 0.0], *zeros(scene), torch.zeros(len(scene.density), dtype=torch.bool),
        torch.empty(len(scene.origins), dtype=scene.origins.dtype),
    ),
    "rmsprop_step": lambda scene: (scene.sh, torch.ones_like(scene.sh), zeros(scene)[1], 0.1, 0.9, 1e-8, None),
    "update_grid": lambda scene: (
        scene.links, scene.density, scene.sh, *zeros(scene), *zeros(scene),
        torch.ones(len(scene.density), dtype=torch.bool), 5, 12, 0.3, 0.2, 0.1, 0.1, 0.9, 1e-8,
    ),
    "sample_grid": lambda scene: (scene.links, scene.density, scene.sh, scene.origins),
}


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name):
    scene = smooth_scene()
    if name == "render_rays":  # the one with an autograd formula
        scene.density.requires_grad_(), scene.sh.requires_grad_()
    opcheck(getattr(namespace, name).default, CASES[name](scene))


def test_cell_distance_is_the_chebyshev_distance():
    links = torch.full((9, 12, 300), -1, dtype=torch.int32)
    links[4, 5, 7] = 0
    links[8, 11, 20] = 1  # the last corner of the last cells but those along z
    cells = torch.cartesian_prod(*(torch.arange(size - 1) for size in links.shape))
    occupied = torch.cartesian_prod(torch.tensor([3, 4]), torch.tensor([4, 5]), torch.tensor([6, 7]))
    occupied = torch.cat([occupied, torch.tensor([[7, 10, 19], [7, 10, 20]])])
    expected = (cells[:, None] - occupied).abs().amax(-1).amin(-1).clamp_max(255)
    actual = VoxelIndex(links, 2).distance[tuple(cells.T)]
    assert torch.equal(actual.long(), expected)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.03])
def test_grids_of_a_stack_have_distances_of_their_own(share):
    links = torch.where(torch.rand(4, 11, 70, 9) < share, 0, -1).int()
    links[2] = -1
    x, y, z = (torch.arange(size) for size in links.shape[1:])
    cells = torch.cartesian_prod(x, y, z)
    for grid, actual in zip(links, namespace.cell_distance(links), strict=True):
        occupied = torch.zeros(11, 70, 9, dtype=torch.bool)
        padded = grid >= 0
        for i, j, k in torch.cartesian_prod(*[torch.arange(2)] * 3).tolist():
            occupied[:-1, :-1, :-1] |= padded[i : 10 + i, j : 69 + j, k : 8 + k]
        places = occupied.nonzero()
        expected = torch.full((len(cells),), 255)
        for place in places:
            expected = torch.minimum(expected, (cells - place).abs().amax(1))
        assert torch.equal(actual.flatten().long(), expected)
        assert torch.equal(namespace.cell_distance(grid.contiguous()), actual)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("place", [0, 17, 600])
def test_distances_end_at_255(axis, place):
    shape = [3, 3, 3]
    shape[axis] = 700
    links = torch.full(shape, -1, dtype=torch.int32)
    links.select(axis, place)[1, 1] = 0
    cells = torch.arange(700)
    expected = torch.maximum(cells - place, place - 1 - cells).clamp(0, 255)
    expected[699] = min(699 - min(place, 698), 255)  # begins no cell
    actual = namespace.cell_distance(links)
    assert torch.equal(actual.movedim(axis, 0)[:, 0, 0].long(), expected)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sh": torch.zeros(3, 27).double()}, "sh must have size"),
        ({"sh": torch.zeros(126, 27)}, "sh must be Double, got Float"),
        ({"links": torch.zeros(7, 5, 9).long()}, "links must be"),
        ({"links": torch.zeros(1, 5, 9).int()}, "at least 2 voxels"),
        ({"directions": torch.zeros(5, 3).double()}, "directions must have size"),
        ({"origins": torch.zeros(3, 64).double().T}, "origins must be contiguous"),
        ({"density": torch.zeros(126)}, "sh must be Float, got Double"),
    ],
)
def test_wrong_input_is_named(change, message):
    scene = random_scene()
    assert len(scene.density) == 126
    scene = scene._replace(**change)
    with pytest.raises(RuntimeError, match=message):
        namespace.render_rays(
            scene.links, torch.zeros(scene.links.shape, dtype=torch.uint8), *scene[1:], None, *GEOMETRY, 15
        )


@pytest.mark.parametrize("name, value", [("step_size", 0.0), ("sigma_thresh", -1.0), ("near_clip", -0.1)])
def test_wrong_options_are_named(name, value):
    with pytest.raises(RuntimeError, match=name):
        options = torch.tensor(option_numbers(RenderOptions()))
        options[[field.name for field in fields(RenderOptions)].index(name)] = value
        scene = random_scene()
        namespace.render_rays(*ray_arguments(scene)[:-1], options.tolist(), 15)


def test_missing_or_unfit_library_says_how_to_build_it(tmp_path):
    with pytest.raises(ImportError, match="not built; run: python setup.py build_ext --inplace"):
        load_library(tmp_path)
    (tmp_path / "_C.so").write_bytes(b"no library")
    with pytest.raises(ImportError, match="does not load with torch .* build_ext --inplace --force"):
        load_library(tmp_path)

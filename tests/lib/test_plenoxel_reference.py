"""Every op against its plain PyTorch reference, values and gradients, in both precisions."""

import inspect

import pytest
import torch

from lib.plenoxel import ops, reference
from tests.lib.plenoxel_scenes import Scene, awkward_rays, links_from_rows, random_grid, random_scene, render, run

TOLERANCE = {torch.float32: {"atol": 2e-5, "rtol": 2e-5}, torch.float64: {"atol": 1e-11, "rtol": 1e-9}}
OPTIONS = [
    {},
    {"step_size": 0.05, "background_brightness": 0.3},
    {"step_size": 0.37, "near_clip": 0.2, "sigma_thresh": 0.5, "stop_thresh": 1e-2, "sh_background": True},
    {"center": (0.1, -0.2, 0.3), "radius": (0.9, 1.3, 0.7), "step_size": 1.7},
]
NESTED = {"resolution": (1, 3, 6, 5, 8), "share": 0.3}
GRIDS = [{}, {"resolution": (2, 2, 2), "share": 1.0}, {"resolution": (33, 2, 12), "share": 0.05}, NESTED]


def assert_same(actual, expected, dtype):
    torch.testing.assert_close(actual, expected, **TOLERANCE[dtype])


def agrees_with_reference(scene: Scene, dtype, **options):
    """Checks all outputs and, for random cotangents, the gradients."""
    leaves = [[values.clone().requires_grad_() for values in (scene.density, scene.sh)] for _ in range(2)]
    actual, expected = (
        run(op, scene._replace(density=density, sh=sh), **options)
        for op, (density, sh) in zip((ops.render_rays, reference._render_rays), leaves, strict=True)
    )
    generator = torch.Generator().manual_seed(1)
    loss = [0.0, 0.0]
    for a, b in zip(actual, expected, strict=True):
        assert_same(a, b, dtype)
        cotangent = torch.randn(b.shape, generator=generator, dtype=dtype)
        loss = [loss[0] + (a * cotangent).sum(), loss[1] + (b * cotangent).sum()]
    for a, b in zip(torch.autograd.grad(loss[0], leaves[0]), torch.autograd.grad(loss[1], leaves[1]), strict=True):
        scale = max(1.0, b.abs().max().item())
        assert a.isfinite().all()
        assert_same(a / scale, b / scale, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("grid", GRIDS)
def test_render_rays(grid, options, dtype):
    # float32 values are those of float64 rounded, so that a sample at a threshold is the same sample
    scene = random_scene(**grid, dtype=torch.float64)
    scene = Scene(*(v.to(dtype) if v.is_floating_point() else v for v in scene))
    agrees_with_reference(scene, dtype, **options)


def test_awkward_rays():
    """Axis-parallel rays have zero direction components: inside, outside, beside the box, along its faces and edges."""
    generator = torch.Generator().manual_seed(3)
    for resolution in ((6, 8, 10), (1, 3, 6, 8, 10)):
        grid = random_grid(resolution, 0.5, generator, torch.float64)
        scene = Scene(*grid, *awkward_rays(torch.float64))
        agrees_with_reference(scene, torch.float64, step_size=0.3)


def test_ray_parallel_to_the_box_and_outside_sees_only_background():
    grid = random_grid((4, 4, 4), 1.0, torch.Generator().manual_seed(0), torch.float32)
    rays = torch.tensor([[-3.0, 1.01, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    out = render(Scene(*grid, *rays), sh_background=True)
    assert out.rgb.tolist() == [[1.0, 1.0, 1.0]]
    assert out.alpha.item() == 0 and out.depth.item() == 0 and not out.sh.any()


def test_far_away_camera_ends():
    """From 10^9 voxels away float32 cannot advance t by half a voxel: the ray must end rather than stand still."""
    grid = random_grid((4, 4, 4), 1.0, torch.Generator().manual_seed(0), torch.float32)
    rays = torch.tensor([[-1e9, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    for op in (ops.render_rays, reference._render_rays):
        out = run(op, Scene(*grid, *rays))
        assert all(value.isfinite().all() for value in out)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65])
def test_ray_counts(count):
    scene = random_scene(rays=count)
    out = render(scene)
    assert out.rgb.shape == (count, 3) and out.sh.shape == (count, 27)
    assert out.depth.shape == (count,) and out.alpha.shape == (count,)
    if count:
        agrees_with_reference(scene, torch.float64)


def test_empty_grid_shows_the_background():
    links = links_from_rows((3, 3, 3), torch.empty(0, dtype=torch.long))
    scene = random_scene(rays=5)
    density, sh = torch.empty(0, dtype=torch.float64), torch.empty(0, 27, dtype=torch.float64)
    out = render(Scene(links, density, sh, *scene.rays), background_brightness=0.25)
    assert (out.rgb == 0.25).all() and not out.alpha.any()


def test_outputs_not_asked_for_are_none():
    scene = random_scene()
    out = render(scene, outputs=("depth",))
    assert out.rgb is None and out.sh is None and out.alpha is None
    assert torch.equal(out.depth, render(scene).depth)
    with pytest.raises(ValueError, match="normals"):
        render(scene, outputs=("normals",))


def test_stacked_scenes_are_rendered_as_alone():
    scenes = [random_scene(seed=seed) for seed in range(3)]
    rows = [0, *torch.tensor([len(s.density) for s in scenes]).cumsum(0).tolist()]
    shifted = [torch.where(s.links >= 0, s.links + first, -1) for s, first in zip(scenes, rows[:-1], strict=True)]
    links = torch.stack(shifted)
    density, sh = torch.cat([s.density for s in scenes]), torch.cat([s.sh for s in scenes])
    index = torch.arange(64, dtype=torch.int32) % 3
    out = render(Scene(links, density, sh, *scenes[0].rays), scene_index=index)
    for number, scene in enumerate(scenes):
        alone = render(Scene(*scene[:3], *scenes[0].rays))
        for together, single in zip(out, alone, strict=True):
            assert torch.equal(together[index == number], single[index == number])


@pytest.mark.parametrize("resolution", [(9, 8, 7), NESTED["resolution"]])
def test_max_weight(resolution):
    scene = random_scene(resolution, share=0.3)
    actual, expected = torch.full_like(scene.density, 0.01), torch.full_like(scene.density, 0.01)
    run(ops.max_weight, scene, actual)
    run(reference._max_weight, scene, expected)
    assert_same(actual, expected, torch.float64)
    assert (actual > 0.01).any() and (actual == 0.01).any()


FIT_TERMS = [
    {},
    {"beta_lambda": 0.3, "stop_thresh": 0.05},
    {"sparsity_lambda": 0.02},
    {"depth_lambda": 0.5},
    {"free_space_lambda": 0.5, "free_space_margin": 0.1},
    {"background_brightness": 0.0, "step_size": 0.2, "beta_lambda": 0.1, "sparsity_lambda": 0.01, "depth_lambda": 0.1},
]


@pytest.mark.parametrize("options", FIT_TERMS)
@pytest.mark.parametrize("weights", [None, (64,), (64, 3)])
@pytest.mark.parametrize("background", ["options'", "grey", "colours"])
@pytest.mark.parametrize("grid", [{}, NESTED])
def test_fit_gradients(grid, options, weights, background):
    scene = random_scene(**grid, seed=4)
    generator = torch.Generator().manual_seed(5)
    target = torch.rand(64, 3, generator=generator, dtype=torch.float64)
    depth = (torch.rand(64, generator=generator, dtype=torch.float64) * 3 - 0.5).clamp_min(0)  # 0: unknown
    extra = {
        "depth_target": depth,
        "ray_weights": None if weights is None else torch.rand(weights, generator=generator, dtype=torch.float64),
    }
    if background != "options'":
        colors = torch.rand(64, 3, generator=generator, dtype=torch.float64)
        extra["background"] = colors if background == "colours" else 0.625
    left = [torch.full_like(depth, torch.nan) for _ in range(2)]
    sums = [[torch.full_like(values, 0.125) for values in (scene.density, scene.sh)] for _ in range(2)]
    rgb = run(ops.fit_gradients, scene, target, *sums[0], transmittance=left[0], **extra, **options)
    expected = run(reference._fit_gradients, scene, target, *sums[1], transmittance=left[1], **extra, **options)
    assert_same(rgb, expected, torch.float64)
    assert_same(*left, torch.float64)
    for actual, wanted in zip(*sums, strict=True):
        assert_same(actual, wanted, torch.float64)


def test_fit_gradients_mark_the_rows_that_rays_read():
    scene = random_scene(rays=3)
    gradients = torch.zeros_like(scene.density), torch.zeros_like(scene.sh)
    touched, weights = torch.zeros(len(scene.density), dtype=torch.bool), torch.zeros_like(scene.density)
    run(ops.fit_gradients, scene, torch.zeros_like(scene.origins), *gradients, touched=touched)
    run(ops.max_weight, scene, weights)
    assert torch.equal(touched, weights > 0)
    assert touched[gradients[0] != 0].all() and not touched.all()


def test_rmsprop_steps():
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(50, 27, generator=generator, dtype=torch.float64)  # noqa: E731
    touched = torch.rand(50, generator=generator) < 0.5
    param, mean = draw(), torch.zeros(50, 27, dtype=torch.float64)
    expected_param, expected_mean = param.clone(), mean.clone()
    for mask in (None, touched, None):
        grad = draw()
        expected_grad = grad.clone()
        ops.rmsprop_step(param, grad, mean, 0.1, touched=mask)
        reference._rmsprop_step(expected_param, expected_grad, expected_mean, 0.1, touched=mask)
        for actual, expected in ((param, expected_param), (grad, expected_grad), (mean, expected_mean)):
            assert_same(actual, expected, torch.float64)


@pytest.mark.parametrize("tv_density, tv_sh", [(0.3, 0.2), (0.0, 0.2), (0.3, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("cells", [(0, None), (60, 100), (314, 1)])
@pytest.mark.parametrize("resolution", [(7, 5, 9), (1, 3, 5, 4, 6)])
def test_update_grid(resolution, cells, tv_density, tv_sh):
    scene = random_scene(resolution, share=0.6)
    generator = torch.Generator().manual_seed(0)
    touched = torch.rand(len(scene.density), generator=generator) < 0.3

    def draw(like):
        values = torch.randn(like.shape, generator=generator, dtype=like.dtype)
        values[~touched] = 0
        return values

    state = [draw(scene.density), draw(scene.sh), draw(scene.density).square(), draw(scene.sh).square(), touched]
    options = {"lr_density": 0.1, "lr_sh": 0.01, "beta": 0.9, "tv_density": tv_density, "tv_sh": tv_sh}
    results = []
    for update in (ops.update_grid, reference._update_grid):
        grid = scene._replace(density=scene.density.clone(), sh=scene.sh.clone()).grid()
        own = [tensor.clone() for tensor in state]
        update(grid, *own, first_cell=cells[0], num_cells=cells[1], **options)
        results.append([grid.density, grid.sh, *own])
    for actual, expected in zip(*results, strict=True):
        assert_same(actual, expected, torch.float64)
    assert not results[0][-1].any() and not torch.equal(results[0][0], scene.density)


def test_sample_grid_clamps_to_the_grid():
    scene = random_scene()
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(200, 3, generator=generator, dtype=torch.float64) * 14 - 2
    results = ops.sample_grid(scene.grid(), points), reference._sample_grid(scene.grid(), points)
    for actual, expected in zip(*results, strict=True):
        assert_same(actual, expected, torch.float64)
    voxels = (scene.links >= 0).nonzero().double().contiguous()
    rows = scene.links[scene.links >= 0].long()
    at_voxels = ops.sample_grid(scene.grid(), voxels)
    assert torch.equal(at_voxels[0], scene.density[rows]) and torch.equal(at_voxels[1], scene.sh[rows])


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("render_rays", {"scene_index", "image_width"}),
        ("max_weight", {"scene_index"}),
        ("fit_gradients", {"scene_index", "touched"}),
        ("rmsprop_step", set()),
        ("update_grid", set()),
        ("sample_grid", set()),
    ],
)
def test_reference_takes_the_ops_arguments(name, missing):
    """All but those that its module's docstring says are missing, in the same order, with the same defaults."""
    op = inspect.signature(getattr(ops, name)).parameters
    plain = inspect.signature(getattr(reference, f"_{name}")).parameters
    assert [argument for argument in op if argument not in missing] == list(plain)
    assert all(plain[argument].default == op[argument].default for argument in plain)

"""Features on voxels: the ops against the PyTorch reference, each other's transpose and gradient, and the SH image."""

import pytest
import torch
from torch.library import opcheck

from lib.plenoxel import ops
from lib.plenoxel.features import render_features, spread_features
from lib.plenoxel.reference_features import _render_features, _spread_features
from tests.lib.plenoxel_scenes import Scene, awkward_rays, random_grid, random_rays, random_scene, run
from tests.lib.test_plenoxel_reference import GRIDS, OPTIONS, TOLERANCE
from tests.lib.test_plenoxel_registration import ray_arguments, smooth_scene

namespace = torch.ops.plenoxel


def random_numbers(count, channels, dtype=torch.float64, seed=5):
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def rendered(scene: Scene, features, op=render_features, **options):
    return run(lambda grid, *rest, **stack: op(grid, features, *rest, **stack), scene, **options)


def spread(scene: Scene, values, op=spread_features, **options):
    return run(lambda grid, *rest, **stack: op(grid, values, *rest, **stack), scene, **options)


@pytest.fixture
def restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("grid", GRIDS)
def test_agree_with_the_reference(grid, options, dtype):
    scene = Scene(*(v.to(dtype) if v.is_floating_point() else v for v in random_scene(**grid)))
    features, values = random_numbers(len(scene.density), 5, dtype), random_numbers(len(scene.origins), 5, dtype)
    outputs = []
    for render, spread_back in ((render_features, spread_features), (_render_features, _spread_features)):
        outputs.append((rendered(scene, features, render, **options), *spread(scene, values, spread_back, **options)))
    for a, b in zip(*outputs, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, **TOLERANCE[dtype])


def test_awkward_rays():
    grid = random_grid((6, 8, 10), 0.5, torch.Generator().manual_seed(3), torch.float64)
    scene = Scene(*grid, *awkward_rays(torch.float64))
    features, values = random_numbers(len(scene.density), 3), random_numbers(len(scene.origins), 3)
    torch.testing.assert_close(rendered(scene, features), rendered(scene, features, _render_features))
    for a, b in zip(spread(scene, values), spread(scene, values, _spread_features), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("options", OPTIONS)
def test_quadrature_is_that_of_the_sh_image(options):
    scene = random_scene(share=0.6)
    image = run(ops.render_rays, scene, **{**options, "sh_background": False}).sh
    torch.testing.assert_close(rendered(scene, scene.sh, **options), image, atol=1e-12, rtol=1e-12)


def test_ones_render_to_the_opacity_where_all_voxels_are_occupied():
    scene = random_scene(share=1.0)
    alpha = run(ops.render_rays, scene, stop_thresh=0.0).alpha
    ones = torch.ones(len(scene.density), 1, dtype=torch.float64)
    torch.testing.assert_close(rendered(scene, ones, stop_thresh=0.0)[:, 0], alpha)


def test_spreading_is_the_transpose():
    scene = random_scene(rays=200)
    features, values = random_numbers(len(scene.density), 4), random_numbers(200, 4, seed=6)
    sums, weights = spread(scene, values)
    torch.testing.assert_close((rendered(scene, features) * values).sum(), (features * sums).sum())
    torch.testing.assert_close(weights, spread(scene, torch.ones(200, 1).double())[0][:, 0])


@pytest.mark.parametrize("channels", [1, 21, 33, 70])
def test_any_number_of_channels_and_half_precision(channels):
    scene = random_scene(dtype=torch.float32)
    features = random_numbers(len(scene.density), channels, torch.float16)
    values = random_numbers(len(scene.origins), channels, torch.float16)
    out, (sums, _) = rendered(scene, features), spread(scene, values)
    assert out.dtype == sums.dtype == torch.float32
    assert out.shape == values.shape and sums.shape == features.shape
    assert torch.equal(out, rendered(scene, features.float()))
    assert torch.equal(sums, spread(scene, values.float())[0])


def test_stack_of_grids():
    generator = torch.Generator().manual_seed(8)
    first, second = (random_grid((6, 5, 7), share, generator, torch.float64) for share in (0.3, 0.6))
    rays = random_rays(40, generator, torch.float64)
    count = len(first[1])
    links = torch.stack((first[0], torch.where(second[0] >= 0, second[0] + count, -1).int()))
    stacked = Scene(links, torch.cat((first[1], second[1])), torch.cat((first[2], second[2])), *rays)
    features, values = random_numbers(len(stacked.density), 3), random_numbers(40, 3)
    index = (torch.arange(40) % 2).int()
    out = rendered(stacked, features, scene_index=index)
    sums, weights = spread(stacked, values, scene_index=index)
    for number, (grid, part) in enumerate(((first, slice(0, count)), (second, slice(count, None)))):
        scene = Scene(*grid, *(v[number::2].contiguous() for v in rays))
        torch.testing.assert_close(out[number::2], rendered(scene, features[part]))
        for a, b in zip((sums, weights), spread(scene, values[number::2].contiguous()), strict=True):
            torch.testing.assert_close(a[part], b)


def test_bits_do_not_depend_on_the_number_of_threads(restore_threads):
    """More rays than one pass of spreading takes, and voxels that many of them meet."""
    scene = random_scene((5, 4, 6), rays=17000, dtype=torch.float32)
    features = random_numbers(len(scene.density), 3, torch.float32)
    values = random_numbers(len(scene.origins), 3, torch.float32)
    results = []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        results.append((rendered(scene, features), *spread(scene, values)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("rays, rows", [(0, 3), (4, 0)])
def test_nothing_gives_zeros(rays, rows):
    grid = random_grid((4, 4, 4), 0.1, torch.Generator().manual_seed(0), torch.float64)
    if not rows:
        grid = torch.full_like(grid[0], -1), grid[1][:0], grid[2][:0]
    scene = Scene(*grid, *random_rays(rays, torch.Generator().manual_seed(1), torch.float64))
    out = rendered(scene, torch.ones(len(scene.density), 2).double())
    sums, weights = spread(scene, torch.ones(rays, 2).double())
    assert out.shape == (rays, 2) and sums.shape == (len(scene.density), 2) and weights.shape == scene.density.shape
    assert not out.any() and not sums.any() and not weights.any()


@pytest.mark.parametrize("op", [render_features, _render_features])
def test_gradcheck(op):
    scene = smooth_scene()
    features = random_numbers(len(scene.density), 2).requires_grad_()
    check = lambda values: rendered(scene, values, op)  # noqa: E731
    assert torch.autograd.gradcheck(check, features) and torch.autograd.gradgradcheck(check, features)


def test_gradcheck_of_spreading():
    scene = smooth_scene()
    values = random_numbers(len(scene.origins), 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: spread(scene, values)[0], values)


def test_gradient_of_rendering_is_spreading():
    scene = random_scene()
    features = random_numbers(len(scene.density), 3).requires_grad_()
    cotangent = random_numbers(len(scene.origins), 3, seed=7)
    (gradient,) = torch.autograd.grad(rendered(scene, features), features, cotangent)
    assert torch.equal(gradient, spread(scene, cotangent)[0])


def test_a_gradient_by_density_is_refused():
    scene = random_scene()
    scene.density.requires_grad_()
    features = random_numbers(len(scene.density), 3)
    for call in (lambda: rendered(scene, features), lambda: spread(scene, random_numbers(len(scene.origins), 3))):
        with pytest.raises(ValueError, match="no gradient by density"):
            call()
        with torch.no_grad():
            call()
    with pytest.raises(RuntimeError, match="no gradient by density"):
        namespace.render_features(*feature_arguments(scene, features))


def feature_arguments(scene: Scene, features):
    links, distance, density, *rest = ray_arguments(scene, with_sh=False)
    return links, distance, density, features, *rest


@pytest.mark.parametrize("name, count", [("render_features", 14), ("spread_features", 6)])
def test_opcheck(name, count):
    scene = smooth_scene()
    features = random_numbers(count, 3).requires_grad_()
    opcheck(getattr(namespace, name).default, feature_arguments(scene, features))


@pytest.mark.parametrize(
    "features, message",
    [
        (torch.zeros(3, 2).double(), "features must have size 126 in dimension 0"),
        (torch.zeros(126).double(), "features must have 2 dimensions"),
        (torch.zeros(126, 0).double(), "at least one channel"),
        (torch.zeros(126, 2).long(), "must be float16, float32 or float64"),
        (torch.zeros(2, 126).double().T, "features must be contiguous"),
    ],
)
def test_wrong_features_are_named(features, message):
    with pytest.raises(RuntimeError, match=message):
        rendered(random_scene(), features)

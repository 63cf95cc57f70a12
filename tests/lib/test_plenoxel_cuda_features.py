"""Features on voxels: the CUDA ops against the C++ ones, which test_plenoxel_features checks against the reference."""

import pytest
import torch
from torch.library import opcheck

from lib.plenoxel import ops
from tests.lib.cuda_parity import (
    OPTIONS,
    RESOLUTIONS,
    assert_agrees,
    assert_close_to_largest,
    needs_gpu,
    on_gpu,
    scene_of,
)
from tests.lib.plenoxel_scenes import Scene, random_grid, random_rays, random_scene, run
from tests.lib.test_plenoxel_features import random_numbers, rendered, spread
from tests.lib.test_plenoxel_registration import GEOMETRY

pytestmark = needs_gpu


def numbers_for(scene: Scene, channels: int, dtype=torch.float32):
    """Features of voxels and values of rays."""
    features = random_numbers(len(scene.density), channels, dtype)
    return features, random_numbers(len(scene.origins), channels, dtype, seed=6)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_as_the_cpu(resolution, options):
    scene = scene_of(resolution)
    features, values = numbers_for(scene, 5)
    assert_agrees(rendered(on_gpu(scene), features.cuda(), **options), rendered(scene, features, **options), flips=1)
    if options.get("sigma_thresh", 0) == 0:  # a sample more or less at a threshold would show in many voxels
        for actual, expected in zip(spread(on_gpu(scene), values.cuda(), **options), spread(scene, values, **options),
                                    strict=True):  # fmt: skip
            assert_close_to_largest(actual, expected, 2e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("channels", [1, 8, 21, 31, 32, 33, 64, 70])
def test_any_number_of_channels(channels, dtype):
    scene = scene_of((7, 5, 9))
    features, values = numbers_for(scene, channels, dtype)
    out = rendered(on_gpu(scene), features.cuda())
    assert out.dtype == torch.float32
    assert_agrees(out, rendered(scene, features), flips=1)
    sums, weights = spread(on_gpu(scene), values.cuda())
    for actual, expected in zip((sums, weights), spread(scene, values), strict=True):
        assert_close_to_largest(actual, expected, 2e-5)


def test_weights_of_the_sh_image():
    scene = on_gpu(scene_of((33, 64, 20)))
    image = run(ops.render_rays, scene, outputs=("sh",)).sh
    torch.testing.assert_close(rendered(scene, scene.sh), image, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 129])
def test_any_number_of_rays(count):
    scene = random_scene((7, 5, 9), rays=max(count, 1), dtype=torch.float32)
    scene = scene._replace(origins=scene.origins[:count], directions=scene.directions[:count])
    features, values = numbers_for(scene, 3)
    out = rendered(on_gpu(scene), features.cuda())
    assert out.shape == (count, 3)
    for actual, expected in zip(spread(on_gpu(scene), values.cuda()), spread(scene, values), strict=True):
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width, height", [(8, 4), (13, 7), (1, 40), (124, 3)])
def test_tiles(width, height):
    """Pixels taken in tiles give the same bits, and none is left out or counted twice."""
    generator = torch.Generator().manual_seed(2)
    grid = random_grid((7, 5, 9), 0.4, generator, torch.float32)
    scene = on_gpu(Scene(*grid, *random_rays(2 * width * height, generator, torch.float32)))
    features, values = (numbers.cuda() for numbers in numbers_for(scene, 21))
    assert torch.equal(rendered(scene, features, image_width=width), rendered(scene, features))
    for tiled, plain in zip(spread(scene, values, image_width=width), spread(scene, values), strict=True):
        assert_close_to_largest(tiled, plain.cpu())


def test_stack_of_grids():
    generator = torch.Generator().manual_seed(8)
    first, second = (random_grid((6, 5, 7), share, generator, torch.float32) for share in (0.3, 0.6))
    links = torch.stack((first[0], torch.where(second[0] >= 0, second[0] + len(first[1]), -1).int()))
    rays = random_rays(200, generator, torch.float32)
    scene = Scene(links, torch.cat((first[1], second[1])), torch.cat((first[2], second[2])), *rays)
    features, values = numbers_for(scene, 3)
    index = (torch.arange(200) % 2).int()
    out = rendered(on_gpu(scene), features.cuda(), scene_index=index.cuda())
    assert_agrees(out, rendered(scene, features, scene_index=index), flips=1)
    sums, weights = spread(on_gpu(scene), values.cuda(), scene_index=index.cuda())
    for actual, expected in zip((sums, weights), spread(scene, values, scene_index=index), strict=True):
        assert_close_to_largest(actual, expected, 2e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_gradients(dtype):
    scene = scene_of((7, 5, 9))
    features, values = numbers_for(scene, 21, dtype)
    gradients = []
    for place, move in ((scene, lambda tensor: tensor), (on_gpu(scene), torch.Tensor.cuda)):
        inputs = move(features).requires_grad_(), move(values).requires_grad_()
        by_features = torch.autograd.grad(rendered(place, inputs[0]), inputs[0], inputs[1].detach().float())
        by_values = torch.autograd.grad(spread(place, inputs[1])[0], inputs[1], inputs[0].detach().float())
        gradients.append((*by_features, *by_values))
    for expected, actual in zip(*gradients, strict=True):
        assert actual.dtype == dtype
        assert_close_to_largest(actual.float(), expected.float(), 2e-5 if dtype == torch.float32 else 1e-3)


def test_wrong_features_are_named():
    scene = on_gpu(scene_of((7, 5, 9)))
    with pytest.raises(RuntimeError, match="in dimension 0"):
        rendered(scene, torch.zeros(3, 2).cuda())
    with pytest.raises(RuntimeError, match="float64 runs on the CPU only"):
        rendered(scene, torch.zeros(len(scene.density), 2).double().cuda())
    with pytest.raises(RuntimeError, match="one device"):
        rendered(scene, torch.zeros(len(scene.density), 2))


def test_opcheck():
    scene = on_gpu(random_scene(rays=6, dtype=torch.float32))
    grid = scene.grid()
    features, values = (numbers.cuda().requires_grad_() for numbers in numbers_for(scene, 3))
    cells = (*grid.index.cell_table, grid.packed.cells)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    rest = (*scene.rays, None, *GEOMETRY, 0)
    opcheck(torch.ops.plenoxel.render_features_packed.default, (*cells, features, *rest), test_utils=checks)
    spreading = (*cells, values, len(scene.density), *rest)
    opcheck(torch.ops.plenoxel.spread_features_packed.default, spreading, test_utils=checks[1:])

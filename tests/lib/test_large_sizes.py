"""Grids, images and meshes of more than 2^31 elements, where a number of 32 bits would name another place.

On the CPU what is large is memory that was never written: it takes none. A block of voxels far out in a large grid is
rendered, fitted and sampled, and must be as in a grid that is just this block.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.plenoxel import ops
from lib.plenoxel.features import render_features, spread_features
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions, option_numbers
from lib.raster import rasterize
from tests.lib.cuda_parity import needs_gpu

plenoxel = torch.ops.plenoxel
BLOCK, LARGE = 8, 1300  # voxels a side; 1300^3 is beyond 2^31
ROWS = 80_000_000  # 27 numbers each are beyond 2^31
OPTIONS = option_numbers(RenderOptions())
BOX = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
BLOCK_BOX = [1 - BLOCK / LARGE] * 3, [BLOCK / LARGE] * 3  # the last voxels of the large grid along each axis


def never_written(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros that take memory only where they are changed."""
    try:
        return torch.from_numpy(np.zeros(shape, str(dtype).removeprefix("torch.")))
    except MemoryError:
        pytest.skip(f"this machine does not promise {shape} numbers")


def outward_rays(count: int, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """From within the block out of the large grid, so that they meet nothing but the block."""
    generator = torch.Generator().manual_seed(2)
    inside, ahead = torch.rand(2, count, 3, generator=generator, dtype=torch.float64)
    center, radius = torch.tensor(BLOCK_BOX, dtype=torch.float64)
    origins = center + (inside * 0.6 - 0.85) * radius
    return origins.to(device, dtype), torch.nn.functional.normalize(ahead + 0.1, dim=1).to(device, dtype)


def small_grid(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """All its voxels have rows, since row 0 is not the same as none to a total variation."""
    generator, count = torch.Generator().manual_seed(0), BLOCK**3
    density = torch.rand(count, generator=generator, dtype=dtype) * 300
    sh = torch.randn(count, 27, generator=generator, dtype=dtype)
    return torch.arange(count, dtype=torch.int32).view(BLOCK, BLOCK, BLOCK), density, sh


class RowsMoved:
    """A grid and the same one within something large, whose row r + first is the small one's row r."""

    def __init__(self, links, distance, large_links, large_distance, density, large_rows, first):
        self.first, self.count, self.dtype = first, len(density), density.dtype
        self.small, self.large = (links, distance), (large_links, large_distance)
        self.large_rows = large_rows

    def within(self, values: Tensor) -> Tensor:
        large = never_written(self.large_rows, *values.shape[1:], dtype=self.dtype)
        large[self.first : self.first + self.count] = values
        return large

    def part(self, values: Tensor) -> Tensor:
        return values[self.first : self.first + self.count]


def far_voxels(dtype=torch.float64):
    """Voxels beyond number 2^31; in what was never written of the large grid all are row 0, which is transparent."""
    links, density, sh = small_grid(dtype)
    large = never_written(LARGE, LARGE, LARGE, dtype=torch.int32)
    large[-BLOCK:, -BLOCK:, -BLOCK:] = links + 1
    moved = RowsMoved(links, plenoxel.cell_distance(links), large, never_written(*large.shape, dtype=torch.uint8),
                      density, len(density) + 1, 1)  # fmt: skip
    return moved, density, sh, (BLOCK_BOX, BOX), 1e-9


def far_rows(dtype=torch.float32):
    """Rows whose numbers are beyond 2^31."""
    links, density, sh = small_grid(dtype)
    first = ROWS - len(density)
    distance = plenoxel.cell_distance(links)
    moved = RowsMoved(links, distance, torch.where(links >= 0, links + first, -1).int(), distance, density, ROWS, first)
    return moved, density, sh, (BLOCK_BOX, BLOCK_BOX), 1e-6


@pytest.mark.parametrize("kind", [far_voxels, far_rows])
def test_rays_in_more_than_two_to_the_31_elements(kind):
    moved, density, sh, (small_box, large_box), tolerance = kind()
    rays = outward_rays(100, density.dtype)
    small = (*moved.small, density), (*rays, None, *small_box, OPTIONS)
    large = (*moved.large, moved.within(density)), (*rays, None, *large_box, OPTIONS)
    sh_large = moved.within(sh)
    close = {"rtol": tolerance, "atol": tolerance}

    images = plenoxel.render_rays(*small[0], sh, *small[1], 15)
    assert images[3].max() > 0.3
    for actual, expected in zip(plenoxel.render_rays(*large[0], sh_large, *large[1], 15), images, strict=True):
        torch.testing.assert_close(actual, expected, **close)

    target, losses = torch.rand(100, 3, dtype=density.dtype), [1e-3, 1e-3, 0.0, 0.0, 0.0]
    gradients = []
    for grid, coefficients in ((small, sh), (large, sh_large)):
        to = [torch.zeros_like(density), torch.zeros_like(sh)] if grid is small else [
            moved.within(torch.zeros_like(density)), moved.within(torch.zeros_like(sh))]  # fmt: skip
        touched = never_written(len(to[0]), dtype=torch.bool)
        plenoxel.fit_gradients(*grid[0], coefficients, *grid[1], target, None, None, None, losses, *to, touched, None)
        gradients.append([*to, touched])
    for actual, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(moved.part(actual), expected, **close)
    assert gradients[0][0].any()

    weights, weights_large = torch.zeros_like(density), moved.within(torch.zeros_like(density))
    plenoxel.max_weight(*small[0], *small[1], weights)
    plenoxel.max_weight(*large[0], *large[1], weights_large)
    torch.testing.assert_close(moved.part(weights_large), weights, **close)

    features = torch.rand(len(density), 28, dtype=density.dtype)
    expected = plenoxel.render_features(*small[0], features, *small[1])
    actual = plenoxel.render_features(*large[0], moved.within(features), *large[1])
    torch.testing.assert_close(actual, expected, **close)
    if kind is far_rows:  # what follows writes all rows
        return
    expected = plenoxel.spread_features(*small[0], features[:100], *small[1])
    actual = plenoxel.spread_features(*large[0], features[:100], *large[1])
    cotangents = torch.ones(100, 3, dtype=density.dtype), torch.ones(100, 27, dtype=density.dtype), None, None
    expected += plenoxel.render_rays_backward(*small[0], sh, *small[1], *cotangents)
    actual += plenoxel.render_rays_backward(*large[0], sh_large, *large[1], *cotangents)
    for value, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(moved.part(value), wanted, **close)


@pytest.mark.parametrize("kind", [far_voxels, far_rows])
def test_voxels_of_more_than_two_to_the_31_elements(kind):
    moved, density, sh, _, tolerance = kind()
    side = moved.large[0].shape[0]
    offset = side - BLOCK
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(3), dtype=density.dtype) * 6 + 0.5
    expected = plenoxel.sample_grid(moved.small[0], density, sh, points)
    actual = plenoxel.sample_grid(moved.large[0], moved.within(density), moved.within(sh), points + offset)
    for value, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=tolerance, atol=100 * tolerance)

    results = []
    for large, links in ((False, moved.small[0]), (True, moved.large[0])):
        place, shift, resolution = (moved.within, offset, side) if large else (torch.clone, 0, BLOCK)
        values = place(density), place(sh)
        gradients = place(torch.zeros_like(density)), place(torch.zeros_like(sh))
        squares = place(torch.ones_like(density)), place(torch.ones_like(sh))
        touched = never_written(len(values[0]), dtype=torch.bool)
        cell = ((4 + shift) * resolution + 4 + shift) * resolution + 1 + shift
        variation = BLOCK / resolution  # which the op multiplies by the resolution
        rates = variation, variation, 0.1, 0.1, 0.9, 1e-8
        plenoxel.update_grid(links, *values, *gradients, *squares, touched, cell, 5, *rates)
        results.append([*values, *squares])
    for actual, expected, before in zip(results[1], results[0], (density, sh, None, None), strict=True):
        torch.testing.assert_close(moved.part(actual), expected, rtol=tolerance, atol=tolerance)
        assert before is None or not torch.equal(expected, before)


def test_rmsprop_of_more_than_two_to_the_31_elements():
    param, grad, square = (never_written(ROWS, 27) for _ in range(3))
    touched = never_written(ROWS, dtype=torch.bool)
    last = torch.rand(27)
    param[-1], grad[-1], touched[-1] = 1.0, last, True
    plenoxel.rmsprop_step(param, grad, square, 0.1, 0.9, 0.0, touched)
    torch.testing.assert_close(param[-1], torch.full((27,), 0.9))
    torch.testing.assert_close(square[-1], last.square())
    assert not grad[-1].any() and not param[-2].any()


def needs_memory(gigabytes: int) -> None:
    if torch.cuda.mem_get_info()[0] < gigabytes * 2**30:
        pytest.skip(f"needs {gigabytes} GiB of free GPU memory")


@needs_gpu
def test_cuda_grid_of_more_than_two_to_the_31_elements():
    needs_memory(60)
    links, density, sh = small_grid(torch.float32)
    small = GridHandle(VoxelIndex(links, len(density), *BLOCK_BOX), density, sh)
    row = torch.arange(BLOCK**3)
    x, y, z = (place + LARGE - BLOCK for place in (row // BLOCK**2, row // BLOCK % BLOCK, row % BLOCK))
    number = ((x * LARGE + y) * LARGE + z)[small.index.voxels]
    assert number.min() > 2**31
    large = GridHandle(VoxelIndex.from_voxels((LARGE,) * 3, number.cuda()), density.cuda(), sh.cuda())
    rays = outward_rays(100, torch.float32)
    on_gpu = [tensor.cuda() for tensor in rays]
    close = {"rtol": 1e-3, "atol": 5e-3}  # positions in the large grid have an error of 1e-4 voxels
    expected = ops.render_rays(small, *rays, RenderOptions())
    trained = large.with_values(large.density.clone().requires_grad_())
    for grid in (large, trained):
        out = ops.render_rays(grid, *on_gpu, RenderOptions())
        for name, value in out._asdict().items():
            torch.testing.assert_close(value.detach().cpu(), getattr(expected, name), **close)
    features = torch.rand(len(density), 5)
    torch.testing.assert_close(render_features(large, features.cuda(), *on_gpu, RenderOptions()).cpu(),
                               render_features(small, features, *rays, RenderOptions()), **close)  # fmt: skip
    for actual, wanted in zip(spread_features(large, features[:100].cuda(), *on_gpu, RenderOptions()),
                              spread_features(small, features[:100], *rays, RenderOptions()), strict=True):  # fmt: skip
        torch.testing.assert_close(actual.cpu(), wanted, **close)
    gradients = []
    for grid, batch in ((small, rays), (large, on_gpu)):
        to = torch.zeros_like(grid.density), torch.zeros_like(grid.sh)
        ops.fit_gradients(grid, *batch, torch.zeros_like(batch[0]), *to, RenderOptions())
        gradients.append(to)
    for wanted, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual.cpu(), wanted, rtol=1e-2, atol=1e-2 * float(wanted.abs().max()))
    points = torch.rand(50, 3) * 6 + 0.5
    for actual, wanted in zip(ops.sample_grid(large, points.cuda() + LARGE - BLOCK), ops.sample_grid(small, points),
                              strict=True):  # fmt: skip
        torch.testing.assert_close(actual.cpu(), wanted, **close)


@needs_gpu
def test_cuda_images_of_more_than_two_to_the_31_elements():
    needs_memory(30)
    links, density, sh = small_grid(torch.float32)
    grid = GridHandle(VoxelIndex(links, len(density), *BLOCK_BOX), density, sh).to("cuda")
    rays = outward_rays(64_000, torch.float32, "cuda")
    many = [tensor.repeat(1250, 1) for tensor in rays]
    assert len(many[0]) * 27 > 2**31
    expected = ops.render_rays(grid, *rays, RenderOptions(), outputs=("sh",)).sh
    for block in ops.render_rays(grid, *many, RenderOptions(), outputs=("sh",)).sh.split(len(expected)):
        assert torch.equal(block, expected)


@needs_gpu
def test_cuda_fragments_of_more_than_two_to_the_31_elements():
    needs_memory(30)
    vertices = torch.tensor([[-1.0, -1.0, 2.0], [1.0, -1.0, 2.0], [0.3, 1.0, 3.0]], device="cuda")
    faces = torch.tensor([[0, 1, 2]], device="cuda")
    size, views = 16384, 9
    camera = torch.eye(4, device="cuda").repeat(views, 1, 1)
    intrinsics = torch.tensor([[size, 0.0, size / 2], [0.0, size, size / 2], [0.0, 0.0, 1.0]], device="cuda")
    face = rasterize(vertices, faces, camera, intrinsics.repeat(views, 1, 1), size, size, outputs=("face",)).face
    assert face.numel() > 2**31 and 0.1 < float((face[0] == 0).float().mean()) < 0.9
    for view in face[1:]:
        assert torch.equal(view, face[0])

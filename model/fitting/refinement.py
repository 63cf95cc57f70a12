"""From one level to the next: prune invisible voxels, dilate the remaining ones, resample."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.plenoxel import ops
from lib.plenoxel.options import RenderOptions
from model.fitting.options import FitGrid
from model.fitting.ray_sampler import RaySampler
from model.grid import PlenoxelGrid
from model.nested_grids import dilate_levels, map_levels
from model.resampling import resample_grid
from model.voxel_masks import resize_mask

_RAYS_AT_ONCE = 1 << 18
_MOST_RAYS = 1 << 24


def refine(
    grid: PlenoxelGrid, resolution: int, options: FitGrid, sampler: RaySampler, rendering: RenderOptions
) -> PlenoxelGrid:
    """The next level's grid."""
    shape = (resolution,) * 3
    masks = _dilated(grid, visible_voxels(grid, options, sampler, rendering), options.dilate)
    return map_levels(grid, lambda level, part: resample_grid(part, shape, resize_mask(masks[level], shape)))


def prune(grid: PlenoxelGrid, options: FitGrid, sampler: RaySampler, rendering: RenderOptions) -> PlenoxelGrid:
    """The grid without voxels that are neither visible nor trilinear neighbours of a visible one."""
    keep = torch.stack(_dilated(grid, visible_voxels(grid, options, sampler, rendering), 1))
    return grid.select(keep.reshape(-1)[grid.links_idx])


def _dilated(grid: PlenoxelGrid, rows: Tensor, voxels: int) -> list[Tensor]:
    """The mask ``[R, R, R]`` of these rows in each of the nested grids, dilated."""
    mask = grid.mask_of(rows)
    return dilate_levels(list(mask[0]) if grid.levels > 1 else [mask], voxels)


def visible_voxels(
    grid: PlenoxelGrid, options: FitGrid, sampler: RaySampler, rendering: RenderOptions
) -> Tensor:
    """Which rows ``[V]`` pass the rule that ``options`` names."""
    if options.prune_by == "density":
        return grid.density >= options.density_threshold
    return largest_weights(grid, sampler, rendering) >= options.weight_threshold


def largest_weights(grid: PlenoxelGrid, sampler: RaySampler, rendering: RenderOptions) -> Tensor:
    """The largest rendering weight ``[V]`` that rays of all training photographs give each voxel.

    Every pixel is used as long as there are fewer than 17 million, else every second, third, ...
    """
    weights = torch.zeros_like(grid.density)
    stride = -(-sampler.num_pixels // _MOST_RAYS)
    for first in range(0, sampler.num_pixels, _RAYS_AT_ONCE * stride):
        last = min(first + _RAYS_AT_ONCE * stride, sampler.num_pixels)
        rays = sampler.rays_of(sampler.pixels(torch.arange(first, last, stride, device=grid.device)))
        ops.max_weight(grid.handle, rays.origins, rays.directions, weights, rendering)
    return weights

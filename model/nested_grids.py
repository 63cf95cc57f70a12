"""Nested grids as single ones, each in its own frame: taking them apart, putting them together, and their masks.

Grid l of L, the innermost being 0, reaches ``radius / 2^(L - 1 - l)``. In its own frame it is a grid alone of the whole
radius: voxels have the same numbers, and the same opacity at the same density.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.grid import PlenoxelGrid
from model.voxel_masks import dilate


def split_grids(grid: PlenoxelGrid) -> list[PlenoxelGrid]:
    """The grids of all levels, innermost first; the grid itself where it is alone."""
    if grid.levels == 1:
        return [grid]
    links = grid.links[0]
    parts = []
    for level in links:
        mask = level >= 0
        rows = level[mask].long()
        parts.append(PlenoxelGrid.from_mask(mask, grid.density[rows], grid.sh[rows], grid.center, grid.radius))
    return parts


def nest_grids(grids: Sequence[PlenoxelGrid]) -> PlenoxelGrid:
    """The inverse of :func:`split_grids`; the background is that of the outermost."""
    if len(grids) == 1:
        return grids[0]
    outermost = grids[-1]
    mask = torch.stack([grid.occupied for grid in grids])[None]
    parts = [(grid.density, grid.sh) if _in_order(grid) else _ordered(grid) for grid in grids]
    density, sh = (torch.cat(values) for values in zip(*parts, strict=True))
    return PlenoxelGrid.from_mask(mask, density, sh, outermost.center, outermost.radius, outermost.background)


def shell_mask(resolution: int, device: torch.device | str = "cpu") -> Tensor:
    """Which voxels ``[R, R, R]`` of a grid around another can be seen: those outside its box, and one layer within.

    Samples just outside the inner box lie between these and that layer.
    """
    inner = torch.zeros((resolution,) * 3, dtype=torch.bool, device=device)
    begin, end = _inner_box(resolution)
    inner[(slice(begin + 1, end - 1),) * 3] = True
    return ~inner


def dilate_levels(masks: Sequence[Tensor], voxels: int) -> list[Tensor]:
    """Masks ``[R, R, R]`` of all levels, dilated by so many voxels of each level, also from level to level."""
    if len(masks) == 1:
        return [dilate(masks[0], voxels)]
    if not voxels:
        return list(masks)
    resolution = masks[0].shape[0]
    begin, end = _inner_box(resolution)
    inner_box = (slice(begin, end),) * 3
    whole = [masks[0]]  # of each level, with what lies in its inner box as coarse as the level
    for mask in masks[1:]:
        merged = mask.clone()
        merged[inner_box] |= _halve(whole[-1])
        whole.append(merged)
    results = []
    for level, mask in enumerate(whole):
        if level + 1 < len(whole):  # with a margin from the next level
            reach = -(-voxels // 2)
            around = whole[level + 1][(slice(begin - reach, end + reach),) * 3]
            for axis in range(3):
                around = around.repeat_interleave(2, axis)
            around = around.clone()
            own = (slice(2 * reach, 2 * reach + resolution),) * 3
            around[own] = mask
            mask = dilate(around, voxels)[own]
        else:
            mask = dilate(mask, voxels)
        results.append(mask if level == 0 else mask & shell_mask(resolution, mask.device))
    return results


def map_levels(grid: PlenoxelGrid, change: Callable[[int, PlenoxelGrid], PlenoxelGrid]) -> PlenoxelGrid:
    """The grid with each level changed by ``change(level, grid of the level)``; the background stays."""
    changed = nest_grids([change(level, part) for level, part in enumerate(split_grids(grid))])
    changed.background = grid.background
    return changed


def _inner_box(resolution: int) -> tuple[int, int]:
    if resolution % 4:
        raise ValueError(f"nested grids need a resolution that 4 divides, found {resolution}")
    return resolution // 4, 3 * resolution // 4


def _halve(mask: Tensor) -> Tensor:
    """Whether any of 2x2x2 voxels is set."""
    half = [size // 2 for size in mask.shape]
    return mask.view(half[0], 2, half[1], 2, half[2], 2).amax(dim=(1, 3, 5))


def _in_order(grid: PlenoxelGrid) -> bool:
    voxels = grid.links_idx
    return bool((voxels[1:] > voxels[:-1]).all())


def _ordered(grid: PlenoxelGrid) -> tuple[Tensor, Tensor]:
    order = grid.links_idx.argsort()
    return grid.density[order], grid.sh[order]

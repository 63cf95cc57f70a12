"""A grid at another resolution."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.plenoxel import ops
from lib.plenoxel.grid import GridHandle
from model.grid import PlenoxelGrid
from model.voxel_masks import resize_mask

_POINTS_AT_ONCE = 1 << 20
_LEAST_SUPPORT = 1e-4


def resample_grid(grid: PlenoxelGrid, resolution: tuple[int, int, int], mask: Tensor | None = None) -> PlenoxelGrid:
    """The grid resampled trilinearly to ``resolution``.

    Density falls off to 0 next to empty voxels. Coefficients do not: they are averaged over occupied voxels only, so
    that a voxel at a surface's border gets the surface's colour and not a mixture with grey.

    Args:
        mask: bool at the new resolution; the voxels to create. Default: those whose centre lies in an occupied voxel.
    """
    resolution = tuple(int(size) for size in resolution)
    if mask is None:
        mask = resize_mask(grid.occupied, resolution)
    cells = mask.reshape(-1).nonzero()[:, 0]
    density = torch.empty(len(cells), device=grid.device)
    sh = torch.empty(len(cells), grid.sh.shape[1], device=grid.device)
    for first in range(0, len(cells), _POINTS_AT_ONCE):
        rows = slice(first, first + _POINTS_AT_ONCE)
        points = _centers(cells[rows], resolution, grid.resolution)
        density[rows], sh[rows] = _sample(grid.handle, points)
    return PlenoxelGrid.from_mask(mask, density, sh, grid.center, grid.radius, grid.background)


def _centers(cells: Tensor, resolution: tuple[int, int, int], old: tuple[int, int, int]) -> Tensor:
    """Centres ``[N, 3]`` of flat voxel indices, in the old grid's coordinates."""
    _, ry, rz = resolution
    index = torch.stack((cells // (ry * rz), cells // rz % ry, cells % rz), dim=-1)
    ratio = torch.tensor([o / n for o, n in zip(old, resolution, strict=True)], device=cells.device)
    return (index + 0.5) * ratio - 0.5


def _sample(grid: GridHandle, points: Tensor) -> tuple[Tensor, Tensor]:
    density, sh = ops.sample_grid(grid, points)
    support, _ = ops.sample_grid(grid.with_values(density=torch.ones_like(grid.density)), points)
    support = support[:, None]
    return density, torch.where(support > _LEAST_SUPPORT, sh / support.clamp(min=_LEAST_SUPPORT), 0)

"""Occupancy masks: dilation, resampling, and masking a grid."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from model.grid import EMPTY, PlenoxelGrid


def dilate(mask: Tensor, voxels: int = 1) -> Tensor:
    """The boolean mask ``[Rx, Ry, Rz]`` dilated by ``voxels`` in all 26 directions."""
    for axis in range(3):
        for _ in range(voxels):
            dilated = mask.clone()
            size = mask.shape[axis]
            dilated.narrow(axis, 1, size - 1).logical_or_(mask.narrow(axis, 0, size - 1))
            dilated.narrow(axis, 0, size - 1).logical_or_(mask.narrow(axis, 1, size - 1))
            mask = dilated
    return mask


def resize_mask(mask: Tensor, resolution: tuple[int, int, int]) -> Tensor:
    """The boolean mask at another resolution: each new voxel takes the value of the old one its centre lies in."""
    for axis, size in enumerate(resolution):
        old = mask.shape[axis]
        source = ((torch.arange(size, device=mask.device) * 2 + 1) * old) // (2 * size)
        mask = mask.index_select(axis, source)
    return mask


def select_voxels(grid: PlenoxelGrid, keep: Tensor) -> PlenoxelGrid:
    """The grid with only the rows for which the boolean ``keep [V]`` is true."""
    new_row = torch.where(keep, torch.cumsum(keep, 0) - 1, EMPTY).to(torch.int32)
    flat = grid.links.reshape(-1)
    links = torch.where(flat >= 0, new_row[flat.clamp(min=0).long()], EMPTY) if len(keep) else flat
    return replace(grid, links=links.reshape(grid.resolution), density=grid.density[keep], sh=grid.sh[keep])


def row_mask_to_cells(grid: PlenoxelGrid, rows: Tensor) -> Tensor:
    """The boolean ``rows [V]`` as a mask ``[Rx, Ry, Rz]``, false in empty voxels."""
    if not grid.num_voxels:
        return grid.occupied
    return rows[grid.links.clamp(min=0).long()] & grid.occupied

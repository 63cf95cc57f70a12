"""Small grids that tests fill, and ways to look at a grid without its index."""

import torch
from torch import Tensor

from model import PlenoxelGrid


def filled(occupied: Tensor, density: float = 0.0) -> PlenoxelGrid:
    """A grid of the voxels set in the mask ``[Rx, Ry, Rz]``: constant density, grey."""
    count = int(occupied.sum())
    return PlenoxelGrid.from_mask(occupied, torch.full((count,), density), torch.zeros(count, 27))


def dense(grid: PlenoxelGrid) -> tuple[Tensor, Tensor]:
    """Density ``[Rx, Ry, Rz]`` and SH ``[Rx, Ry, Rz, 27]``, 0 in empty voxels."""
    density, sh = torch.zeros(grid.resolution), torch.zeros(*grid.resolution, 27)
    density.view(-1)[grid.links_idx], sh.view(-1, 27)[grid.links_idx] = grid.density, grid.sh
    return density, sh


def voxel_centers(voxels: Tensor, resolution: int) -> Tensor:
    """Centres ``[..., 3]`` of voxels ``(i, j, k)`` of a cubic grid of radius 1 around 0 (FACTS)."""
    return (voxels + 0.5) * 2 / resolution - 1

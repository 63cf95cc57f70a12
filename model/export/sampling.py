"""Opacity or density, and anything else that voxels hold, at any point of a field, interpolated as it is rendered."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.plenoxel import ops
from lib.plenoxel.grid import GridHandle
from model.fusion import mean_of
from model.grid import PlenoxelGrid
from model.nested_grids import split_grids
from utils.spherical_harmonics import SH_CHANNELS

_POINTS_AT_ONCE = 1 << 20


def voxel_opacity(grid: PlenoxelGrid) -> Tensor:
    """Opacity 0..1 ``[V]`` of each voxel, float32: of a ray that passes through one of its thickness.

    Density of nested grids is stored so that it means the same opacity in voxels of any size.
    """
    return (1 - torch.exp(-grid.density.clamp(min=0).double() * min(grid.voxel_size))).float()


def normalized_centers(grid: PlenoxelGrid, rows: Tensor | None = None) -> Tensor:
    """Middles of voxels as -1..1 along each axis of the (outermost) grid, float64 ``[N, 3]``."""
    return (grid.voxel_centers(rows).double() - _vector(grid, grid.center)) / _vector(grid, grid.radius)


def from_normalized(grid: PlenoxelGrid, points: Tensor) -> Tensor:
    """Points of -1..1 in the grid's world, float64 ``[N, 3]``."""
    return points * _vector(grid, grid.radius) + _vector(grid, grid.center)


class FieldSampler:
    """Samples a field of one grid or of nested ones; points are -1..1 along each axis of the (outermost) grid.

    A point takes the grid with the smallest voxels whose box it lies in, as in rendering, and is interpolated between
    eight voxels, of which empty ones have amount 0.

    Args:
        grid: the voxels.
        values: float32 ``[V, C]``, at most 27 numbers a voxel; they are averaged by amount, so that empty voxels do
            not count. None: there are none.
        amount: float32 ``[V]``, how much is there; None: the opacity.
    """

    def __init__(self, grid: PlenoxelGrid, values: Tensor | None = None, amount: Tensor | None = None):
        amount = voxel_opacity(grid) if amount is None else amount
        self._channels = 0 if values is None else values.shape[1]
        stored = torch.zeros(grid.num_voxels, SH_CHANNELS, device=grid.device)
        if values is not None:
            stored[:, : self._channels] = values * amount[:, None]
        self._resolution, self.device = grid.resolution, grid.device
        self._levels: list[GridHandle] = [
            part.handle for part in split_grids(grid.replace(density=amount, sh=stored))
        ]

    def amount(self, points: Tensor) -> Tensor:
        """How much ``[N]``, float32, is at ``points [N, 3]``; 0 outside of the field's box."""
        amount, _ = self.weighted(points)
        return torch.where(points.abs().amax(-1) > 1, 0, amount)

    def values(self, points: Tensor) -> Tensor:
        """Values ``[N, C]`` at ``points [N, 3]``, outside the box those at its border; 0 where all is empty."""
        amount, values = self.weighted(points.clamp(-1, 1))
        return mean_of(values, amount)

    def gradient(self, points: Tensor, step: Tensor) -> Tensor:
        """Central differences ``[N, 3]`` of the amount over ``step [N]`` to either side, in units of -1..1."""
        columns = []
        for axis in range(3):
            offset = torch.zeros_like(points)
            offset[:, axis] = step
            columns.append((self.amount(points + offset) - self.amount(points - offset)) / (2 * step))
        return torch.stack(columns, dim=-1)

    def weighted(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The amount ``[N]``, and values times amount ``[N, C]``; outside the box those at its border."""
        amount = torch.empty(len(points), device=self.device)
        values = torch.empty(len(points), self._channels, device=self.device)
        for first in range(0, len(points), _POINTS_AT_ONCE):
            rows = slice(first, first + _POINTS_AT_ONCE)
            amount[rows], values[rows] = self._sample_block(points[rows])
        return amount, values

    def _sample_block(self, points: Tensor) -> tuple[Tensor, Tensor]:
        size = torch.tensor(self._resolution, dtype=torch.float64, device=self.device)
        reach, count = points.abs().amax(-1), len(self._levels)
        amount = torch.zeros(len(points), device=self.device)
        values = torch.zeros(len(points), self._channels, device=self.device)
        inner = 0.0
        for level, handle in enumerate(self._levels):
            outer = 0.5 ** (count - 1 - level)
            inside = reach <= outer if level == 0 else (reach > inner) & (reach <= outer)
            inside |= (reach > outer) if level == count - 1 else False
            chosen = inside.nonzero()[:, 0]
            if len(chosen):
                coordinates = (points[chosen] / outer + 1) / 2 * size - 0.5
                amount[chosen], sampled = ops.sample_grid(handle, coordinates.float())
                values[chosen] = sampled[:, : self._channels]
            inner = outer
        return amount, values


def _vector(grid: PlenoxelGrid, values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=grid.device)

"""The index of a grid's occupied voxels, which is constant while densities and coefficients change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lib.library import load_library

load_library(Path(__file__).parent)

EMPTY = -1
_LARGEST_SIDE = 1 << 24  # coordinates of voxels are exact in float32; also in csrc/binding.h
_LARGEST = torch.finfo(torch.float32).max


class CellTable(NamedTuple):
    """The occupied cells (cubes of eight neighbouring voxels) as rendering on a GPU needs them."""

    ahead: Tensor  # uint8 [8, *links.shape]: for each octant of directions, how far a ray surely meets no occupied cell
    words: Tensor  # int32 [ceil(cells / 32), 2]: bits of the occupied cells, number of occupied cells before them


class VoxelIndex:
    """Which voxels of a grid are occupied, by which rows of values, and their placement in the world.

    Several grids of one resolution are indexed together by stacking their links (rows numbered through). Grids that
    differ in values only share their index.

    Grids may be nested: L grids of one resolution about one centre, each reaching half as far as the next. The last is
    the whole box; each counts in its own box but for that of the one within. So voxels shrink towards the middle.

    Args:
        links: int32 ``[Rx, Ry, Rz]``, ``[S, Rx, Ry, Rz]`` for a stack, or ``[S, L, Rx, Ry, Rz]`` for a stack of nested
            grids, the innermost first: the row of each voxel, -1 where it is empty.
        num_rows: V; each of the rows 0 to V - 1 is named by one voxel.
        center: the grid's centre in world units.
        radius: half of the grid's extent along each axis in world units.

    Raises:
        ValueError: the above does not hold. Kernels trust the index, so its values are checked here, once.
    """

    def __init__(
        self,
        links: Tensor,
        num_rows: int,
        center: Sequence[float] = (0.0, 0.0, 0.0),
        radius: Sequence[float] = (1.0, 1.0, 1.0),
    ):
        _check_links(links, num_rows)
        self._set(links, num_rows, center, radius)

    @classmethod
    def from_voxels(
        cls,
        resolution: Sequence[int],
        voxels: Tensor,
        center: Sequence[float] = (0.0, 0.0, 0.0),
        radius: Sequence[float] = (1.0, 1.0, 1.0),
        levels: int = 1,
    ) -> VoxelIndex:
        """The index of a grid whose row r belongs to voxel number ``voxels[r]``, ``(i * Ry + j) * Rz + k``, int64.

        Voxels of nested grids are numbered level by level.

        Raises:
            ValueError: there are not three resolutions of at least 2, or a voxel is outside the grid or named twice.
        """
        resolution = _resolution(resolution)
        count = levels * math.prod(resolution)
        if len(voxels) >= 2**31:
            raise ValueError(f"a grid has at most 2^31 - 1 rows, found {len(voxels)}")
        if len(voxels) and (voxels.min() < 0 or voxels.max() >= count):
            raise ValueError(f"links_idx lies outside a grid of {resolution}: {voxels.min()}..{voxels.max()}")
        shape = resolution if levels == 1 else (1, levels, *resolution)
        index = cls._of_voxels(shape, voxels, center, radius)
        if int((index.links >= 0).sum()) != len(voxels):
            raise ValueError("links_idx names a voxel twice")
        return index

    @classmethod
    def from_mask(
        cls,
        occupied: Tensor,
        center: Sequence[float] = (0.0, 0.0, 0.0),
        radius: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> VoxelIndex:
        """The index of a grid whose occupied voxels, numbered in their order, are those of a mask of links' shape."""
        _resolution(occupied.shape[-3:])
        voxels = occupied.reshape(-1).nonzero()[:, 0]
        return cls._of_voxels(occupied.shape, voxels, center, radius)

    @classmethod
    def _of_voxels(cls, resolution: Sequence[int], voxels: Tensor, center, radius) -> VoxelIndex:
        links = torch.full((math.prod(resolution),), EMPTY, dtype=torch.int32, device=voxels.device)
        links[voxels] = torch.arange(len(voxels), dtype=torch.int32, device=voxels.device)
        return cls._trusted(links.view(*resolution), len(voxels), center, radius)

    @classmethod
    def _trusted(cls, links: Tensor, num_rows: int, center, radius) -> VoxelIndex:
        """An index of links that are valid by construction."""
        index = cls.__new__(cls)
        index._set(links, num_rows, center, radius)
        return index

    def _set(self, links: Tensor, num_rows: int, center, radius) -> None:
        self.links, self.num_rows = usable_for_gradients(links.contiguous()), num_rows
        self.center, self.radius = _triple(center, "center"), _triple(radius, "radius")
        if min(self.radius) <= 0:
            raise ValueError(f"radius must be positive, found {self.radius}")
        if max(self.links.shape[-3:]) > _LARGEST_SIDE:
            raise ValueError(f"a grid has at most {_LARGEST_SIDE} voxels along an axis, found {self.resolution}")
        self.occupied_cells = _count_cells(self.links) if self.links.is_cuda else None
        self._distance: Tensor | None = None
        self._cell_table: CellTable | None = None

    @property
    def resolution(self) -> tuple[int, int, int]:
        """``(Rx, Ry, Rz)``."""
        return tuple(self.links.shape[-3:])

    @property
    def levels(self) -> int:
        """L, the number of nested grids; 1 for a grid alone."""
        return self.links.shape[1] if self.links.dim() == 5 else 1

    @property
    def total_voxels(self) -> int:
        """All voxels, occupied or not, of all grids."""
        return self.links.numel()

    @property
    def device(self) -> torch.device:
        return self.links.device

    @property
    def occupied(self) -> Tensor:
        """Boolean mask, shape of ``links``."""
        return self.links >= 0

    @property
    def voxels(self) -> Tensor:
        """int64 ``[V]``: the number of each row's voxel."""
        flat = self.links.reshape(-1)
        occupied = (flat >= 0).nonzero()[:, 0]
        voxels = torch.empty(self.num_rows, dtype=torch.int64, device=self.device)
        voxels[flat[occupied].long()] = occupied
        return voxels

    def mask_of(self, rows: Tensor) -> Tensor:
        """Boolean ``rows [V]`` as a mask of the shape of ``links``, false in empty voxels."""
        if not self.num_rows:
            return self.occupied
        return rows[self.links.clamp(min=0).long()] & self.occupied

    def select(self, keep: Tensor) -> VoxelIndex:
        """The index of only the rows for which the boolean ``keep [V]`` is true, numbered in their order."""
        row = torch.where(keep, torch.cumsum(keep, 0) - 1, EMPTY).to(torch.int32)
        links = torch.where(self.occupied, row[self.links.clamp(min=0).long()], EMPTY) if len(keep) else self.links
        return self._trusted(links, int(keep.sum()), self.center, self.radius)

    @property
    def distance(self) -> Tensor:
        """Distance field by which rays leap over empty space: uint8, shape of ``links``; made when first asked for."""
        if self._distance is None:
            self._distance = torch.ops.plenoxel.cell_distance(self.links)
        return self._distance

    @property
    def cell_table(self) -> CellTable:
        """For rendering on a GPU; made when first asked for."""
        if self._cell_table is None:
            self._cell_table = CellTable(*torch.ops.plenoxel.cell_table(self.distance))
        return self._cell_table

    def to(self, device: torch.device | str) -> VoxelIndex:
        """The same index on ``device``; itself if it is there."""
        links = self.links.to(device)
        return self if links is self.links else self._trusted(links, self.num_rows, self.center, self.radius)

    def memory(self) -> dict[str, int]:
        """Bytes of each part that was made so far."""
        table = self._cell_table
        return {
            "links": self.links.nbytes,
            "distance": 0 if self._distance is None else self._distance.nbytes,
            "cell_table": 0 if table is None else table.ahead.nbytes + table.words.nbytes,
        }


def usable_for_gradients(tensor: Tensor) -> Tensor:
    """The tensor, or its copy where it was made in inference mode and could never take part in a gradient."""
    if torch.compiler.is_compiling() or not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def _check_links(links: Tensor, num_rows: int) -> None:
    if links.dtype != torch.int32 or links.dim() not in (3, 4, 5):
        raise ValueError(
            "links must be int32 [Rx, Ry, Rz], [S, Rx, Ry, Rz] or [S, L, Rx, Ry, Rz], found "
            f"{links.dtype} {tuple(links.shape)}"
        )
    _resolution(links.shape[-3:])
    if not links.numel():
        raise ValueError(f"links must hold at least one grid, found {tuple(links.shape)}")
    least, greatest = (int(value) for value in links.aminmax())
    if least < EMPTY or greatest >= num_rows:
        wrong = least if least < EMPTY else greatest
        raise ValueError(f"links must be {EMPTY} or a row from 0 to {num_rows - 1}, found {wrong}")
    rows = links[links >= 0].long()
    named = torch.zeros(greatest + 1, dtype=torch.bool, device=links.device)
    named[rows] = True
    count = int(named.sum())
    if not len(rows) == count == num_rows:
        raise ValueError(
            f"links must name each of {num_rows} rows once, found {len(rows)} occupied voxels that name {count} of them"
        )


def _count_cells(links: Tensor) -> int:
    """How many cells have an occupied corner; a cell begins at each voxel but those on the upper borders."""
    mask = links >= 0
    for axis in (-3, -2, -1):
        size = mask.shape[axis] - 1
        mask = mask.narrow(axis, 0, size) | mask.narrow(axis, 1, size)
    return int(mask.sum())


def _resolution(sizes: Sequence[int]) -> tuple[int, int, int]:
    resolution = tuple(int(size) for size in sizes)
    if len(resolution) != 3:
        raise ValueError(f"resolution must have 3 entries, found {resolution}")
    if min(resolution) < 2:
        raise ValueError(f"a grid needs at least 2 voxels along each axis, found {resolution}")
    return resolution


def _triple(values: Sequence[float], name: str) -> tuple[float, float, float]:
    values = tuple(float(value) for value in values)
    if len(values) != 3:
        raise ValueError(f"{name} must have 3 entries, found {values}")
    if not all(abs(value) <= _LARGEST for value in values):
        raise ValueError(f"{name} must be finite numbers, found {values}")
    return values

"""A grid as the ops take it: an index, the values of its rows, and acceleration structures."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.plenoxel.index import VoxelIndex, usable_for_gradients
from lib.plenoxel.packed import PackedGrid, pack_grid
from utils.spherical_harmonics import SH_CHANNELS


class GridHandle:
    """Owns all data of a grid; dropping it frees its acceleration structures.

    Attributes:
        index: which voxels are occupied, and their placement.
        density: float32 (on the CPU also float64) ``[V]``, per world unit of length; of nested grids per unit
            of the outermost, so that voxels of one density have one opacity, whatever their size.
        sh: ``[V, 27]``, channel-major (R0..R8, G0..G8, B0..B8).
        quantization: float32 ``[2, 27]`` where ``sh`` came from bytes (`pack_grid`), else None.

    Code that changes ``density`` or ``sh`` in place must call :meth:`values_changed`, or a GPU keeps rendering the old
    ones; the ops that change them do. :meth:`with_values` makes a handle with other values.

    Raises:
        ValueError: the values do not fit the index or each other.
    """

    def __init__(self, index: VoxelIndex, density: Tensor, sh: Tensor, quantization: Tensor | None = None):
        rows = index.num_rows
        if density.shape != (rows,) or sh.shape != (rows, SH_CHANNELS):
            raise ValueError(
                f"an index of {rows} rows needs density [{rows}] and sh [{rows}, {SH_CHANNELS}], found "
                f"{list(density.shape)} and {list(sh.shape)}"
            )
        self.index = index
        self.density, self.sh = usable_for_gradients(density), usable_for_gradients(sh)
        self.quantization = quantization
        self._packed: PackedGrid | None = None

    @property
    def device(self) -> torch.device:
        return self.index.device

    @property
    def packed(self) -> PackedGrid:
        """The copy that a GPU renders from, made when first asked for and kept until the values change.

        Optimizers change values that require gradients without notice: of these the copy is made each time.
        """
        changes_unseen = self.density.requires_grad or self.sh.requires_grad
        if self._packed is None or changes_unseen:
            self._packed = None  # frees the old one's memory before the new one takes its own
            packed = pack_grid(self.index, self.density, self.sh, self.quantization)
            if changes_unseen:
                return packed
            self._packed = packed
        return self._packed

    def values_changed(self) -> None:
        """Must be called after ``density`` or ``sh`` were changed in place."""
        self._packed = self.quantization = None

    def with_values(self, density: Tensor | None = None, sh: Tensor | None = None) -> GridHandle:
        """A handle that shares the index and has other values, where given."""
        kept = self.quantization if sh is None else None
        return GridHandle(self.index, self.density if density is None else density, self.sh if sh is None else sh, kept)

    def to(self, device: torch.device | str) -> GridHandle:
        """The same grid on ``device``; itself if it is there."""
        index, density, sh = self.index.to(device), self.density.to(device), self.sh.to(device)
        there = index is self.index and density is self.density and sh is self.sh
        quantization = None if self.quantization is None else self.quantization.to(device)
        return self if there else GridHandle(index, density, sh, quantization)

    def memory(self) -> dict[str, int]:
        """Bytes of each part that was made so far; grids that share an index share its part."""
        packed = 0 if self._packed is None else self._packed.cells.nbytes + self._packed.rows.nbytes
        return {**self.index.memory(), "density": self.density.nbytes, "sh": self.sh.nbytes, "packed": packed}

"""A field in few bytes, without loss, from which it is made again much faster than from its files.

Published and fitted fields store their coefficients in bytes. Kept so, a room takes some megabytes; laid out for
rendering, it takes hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dataloader.perfception import PerfceptionScene
from dataloader.quantization import dequantize_columns
from model.capture import CaptureModel
from model.grid import PlenoxelGrid
from model.radiance_field import RadianceField
from model.sphere_layers import SphereLayers

if TYPE_CHECKING:
    from dataloader import SceneTransform

_BITS = 8
_HIGHEST = 2**_BITS - 1


@dataclass(frozen=True)
class CompactField:
    """What a field is made from, on its device.

    Attributes:
        resolution: of its grid, or of each of nested ones.
        levels: how many grids are nested.
        voxels: int32 ``[V]``, the number of each occupied voxel.
        density: float32 ``[V]``.
        codes: uint8 ``[V, 27]``, the coefficients as they were stored.
        quantization: float32 ``[2, 27]``, minimum and scale of their columns.
        background, transform, capture: the field's.
    """

    resolution: tuple[int, int, int]
    levels: int
    voxels: Tensor
    density: Tensor
    codes: Tensor
    quantization: Tensor
    background: SphereLayers | None
    transform: SceneTransform
    capture: CaptureModel | None

    @classmethod
    def of(cls, field: RadianceField) -> CompactField | None:
        """Of a field; None where it cannot be told in few bytes: coefficients were not stored in bytes, or changed."""
        grid, quantization = field.grid, field.grid.handle.quantization
        if quantization is None or grid.links.numel() >= 2**31:
            return None
        codes = ((grid.sh - quantization[0]) / quantization[1].clamp(min=torch.finfo(torch.float32).tiny)).round()
        codes = codes.clamp(0, _HIGHEST).to(torch.uint8)
        compact = cls(grid.resolution, grid.levels, grid.links_idx.int(), grid.density, codes, quantization,
                      grid.background, field.transform, field.capture)  # fmt: skip
        return compact if torch.equal(compact._sh(), grid.sh) else None

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        tensors = [self.voxels, self.density, self.codes, self.quantization]
        tensors += [] if self.background is None else [self.background.texture]
        return sum(tensor.nbytes for tensor in tensors)

    def unpack(self) -> RadianceField:
        """The field, with the same numbers in the same rows."""
        grid = PlenoxelGrid.from_scene(PerfceptionScene(
            self.resolution, self.voxels.long(), self.density, self._sh(), self.transform, levels=self.levels,
            quantization=self.quantization,
        ))  # fmt: skip
        grid.background = self.background
        return RadianceField(grid, self.transform, self.capture)

    def _sh(self) -> Tensor:
        return dequantize_columns(self.codes, *self.quantization, _BITS, len(self.codes))

"""A field in few bytes, without loss, from which it is made again much faster than from its files.

Published and fitted fields store their coefficients in 8 bits, so that a column has at most 256 different numbers. Kept
as these numbers and a byte for each voxel, a room takes some megabytes; laid out for rendering, it takes hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.capture import CaptureModel
from model.grid import PlenoxelGrid
from model.radiance_field import RadianceField
from model.sphere_layers import SphereLayers

if TYPE_CHECKING:
    from dataloader import SceneTransform

_MOST_NUMBERS = 256  # that a byte tells apart


@dataclass(frozen=True)
class CodedColumn:
    """A list of numbers: the different ones, float32 ``[K]``, K up to 256, and which each is, codes uint8 ``[V]``."""

    numbers: Tensor
    codes: Tensor

    @classmethod
    def of(cls, values: Tensor) -> CodedColumn | None:
        """Of float32 ``[V]``; None where too many numbers are different."""
        numbers, codes = values.unique(return_inverse=True)
        return cls(numbers, codes.to(torch.uint8)) if len(numbers) <= _MOST_NUMBERS else None

    def values(self) -> Tensor:
        """The numbers, float32 ``[V]``."""
        return self.numbers[self.codes.int()]


@dataclass(frozen=True)
class CompactField:
    """What a field is made from, on its device.

    Attributes:
        resolution: of its grid.
        voxels: int32 ``[V]``, the number of each occupied voxel.
        density: float32 ``[V]``, or coded.
        sh: 27 columns.
        background, transform, capture: the field's.
    """

    resolution: tuple[int, int, int]
    voxels: Tensor
    density: Tensor | CodedColumn
    sh: list[CodedColumn]
    background: SphereLayers | None
    transform: SceneTransform
    capture: CaptureModel | None

    @classmethod
    def of(cls, field: RadianceField) -> CompactField | None:
        """Of a field; None where it cannot be told in few bytes: nested grids, or coefficients of more than 8 bits."""
        grid = field.grid
        if grid.levels > 1 or grid.center != (0.0, 0.0, 0.0) or grid.radius != (1.0, 1.0, 1.0):
            return None
        columns = []
        for values in grid.sh.T:
            column = CodedColumn.of(values)
            if column is None:
                return None
            columns.append(column)
        density = CodedColumn.of(grid.density) or grid.density
        return cls(grid.resolution, grid.links_idx.int(), density, columns, grid.background, field.transform,
                   field.capture)  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        coded = [*self.sh, *([self.density] if isinstance(self.density, CodedColumn) else [])]
        plain = [self.voxels, *([self.density] if isinstance(self.density, Tensor) else [])]
        plain += [] if self.background is None else [self.background.texture]
        return sum(tensor.nbytes for column in coded for tensor in (column.numbers, column.codes)) + sum(
            tensor.nbytes for tensor in plain
        )

    def unpack(self) -> RadianceField:
        """The field, with the same numbers in the same rows."""
        density = self.density if isinstance(self.density, Tensor) else self.density.values()
        sh = torch.stack([column.values() for column in self.sh], dim=1)
        grid = PlenoxelGrid.from_sparse(self.resolution, self.voxels.long(), density, sh)
        grid.background = self.background
        return RadianceField(grid, self.transform, self.capture)

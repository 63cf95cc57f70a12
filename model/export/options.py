"""Options of what is exported."""

from __future__ import annotations

from dataclasses import dataclass

import gin

from utils.errors import UserError, check_choice


@gin.configurable
@dataclass(frozen=True)
class MeshOptions:
    """The surface of a field.

    Attributes:
        opacity: the surface is where a voxel's thickness has this opacity, between 0 and 1.
        voxels_of: which of nested grids' voxels, from 0 for the smallest, give the triangles their size; the next
            number makes a quarter of the triangles.
        weight: triangles are dropped of whose voxels no ray of the recorded cameras gives any this rendering weight,
            such as the backs of walls; the surface is then open. 0 keeps all, and it is closed.
        least_faces: connected parts of fewer triangles are dropped, and counted; 0 keeps all.
    """

    opacity: float = 0.3
    voxels_of: int = 0
    weight: float = 0.0
    least_faces: int = 200

    def __post_init__(self) -> None:
        if not 0.001 <= self.opacity <= 0.999:
            raise UserError(f"MeshOptions.opacity = {self.opacity}: expected a number from 0.001 to 0.999")
        if not 0 <= self.weight <= 1:
            raise UserError(f"MeshOptions.weight = {self.weight}: expected a number from 0 to 1")
        if self.voxels_of < 0 or self.least_faces < 0:
            raise UserError(f"MeshOptions.voxels_of = {self.voxels_of} and least_faces = {self.least_faces}: expected "
                            "0 or more")


@gin.configurable
@dataclass(frozen=True)
class PointOptions:
    """Which voxels become points.

    Attributes:
        weight: those that a ray of the recorded cameras gives at least this rendering weight, above 0 and up to 1: how
            much of a pixel's colour is theirs.
    """

    weight: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise UserError(f"PointOptions.weight = {self.weight}: expected a number above 0 and up to 1")


@gin.configurable
@dataclass(frozen=True)
class GridOptions:
    """One grid in PeRFception's format from a field of any size or of nested grids.

    Attributes:
        resolution: cells along each axis; PeRFception's are 256.
        least_opacity: voxels of less opacity, and not beside one that has it, are left out.
        bits: of each SH coefficient: 2, 4, 8 (as PeRFception's), 16 or 32.
        measured: at most so many photographs, evenly spread, are compared with renders before and after: of those that
            were held out where that is known, else of all; 0 measures nothing.
    """

    resolution: int = 256
    least_opacity: float = 0.005
    bits: int = 8
    measured: int = 20

    def __post_init__(self) -> None:
        if not 8 <= self.resolution <= 1024:
            raise UserError(f"GridOptions.resolution = {self.resolution}: expected 8 to 1024")
        if not 0 <= self.least_opacity < 1:
            raise UserError(f"GridOptions.least_opacity = {self.least_opacity}: expected 0 or more, and less than 1")
        check_choice("GridOptions.bits", self.bits, (2, 4, 8, 16, 32))
        if self.measured < 0:
            raise UserError(f"GridOptions.measured = {self.measured}: expected 0 or more")

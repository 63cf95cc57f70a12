"""Options of what is exported."""

from __future__ import annotations

from dataclasses import dataclass

import gin

from utils.errors import UserError


@gin.configurable
@dataclass(frozen=True)
class MeshOptions:
    """The surface of a field.

    Attributes:
        opacity: the surface is where a voxel's thickness has this opacity, between 0 and 1.
        voxels_of: which of nested grids' voxels, from 0 for the smallest, give the triangles their size; the next
            number makes a quarter of the triangles.
        least_faces: connected parts of fewer triangles are dropped, and counted; 0 keeps all.
    """

    opacity: float = 0.5
    voxels_of: int = 0
    least_faces: int = 200

    def __post_init__(self) -> None:
        if not 0.001 <= self.opacity <= 0.999:
            raise UserError(f"MeshOptions.opacity = {self.opacity}: expected a number from 0.001 to 0.999")
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

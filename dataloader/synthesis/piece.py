"""A piece of furniture: labelled, textured surfaces in the piece's own coordinates.

Every piece stands on z = 0 with its back towards +y and its front towards -y; x is its width. What hangs on
a wall has its back at y = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from dataloader.synthesis import geometry, materials
from dataloader.synthesis.geometry import Surface
from dataloader.synthesis.materials import Material


class Nyu40(IntEnum):
    """The NYU40 ids that rooms use; what of them is a class, the label set says."""

    WALL = 1
    FLOOR = 2
    CABINET = 3
    BED = 4
    CHAIR = 5
    SOFA = 6
    TABLE = 7
    DOOR = 8
    WINDOW = 9
    BOOKSHELF = 10
    PICTURE = 11
    COUNTER = 12
    DESK = 14
    SHELVES = 15
    CURTAIN = 16
    PILLOW = 18
    MIRROR = 19
    FLOOR_MAT = 20
    CEILING = 22
    BOOKS = 23
    REFRIGERATOR = 24
    TELEVISION = 25
    TOWEL = 27
    SHOWER_CURTAIN = 28
    BOX = 29
    WHITEBOARD = 30
    NIGHT_STAND = 32
    TOILET = 33
    SINK = 34
    LAMP = 35
    BATHTUB = 36
    OTHER_STRUCTURE = 38
    OTHER_FURNITURE = 39
    OTHER_PROP = 40


@dataclass(frozen=True)
class Style:
    """The style that a room's furniture shares."""

    edge: float  # longest cell of a surface in metres
    wood: Material
    paint: Material
    fabric: Material
    metal: Material

    @classmethod
    def draw(cls, rng: np.random.Generator, edge: float) -> Style:
        return cls(edge, materials.wood(rng), materials.lacquer(rng), materials.fabric(rng), materials.metal(rng))


@dataclass
class Piece:
    """Surfaces with their material and NYU40 label; methods add surfaces."""

    edge: float
    parts: list[tuple[Surface, Material, int]] = field(default_factory=list)

    def add(self, surface: Surface, material: Material, label: int) -> None:
        self.parts.append((surface, material, int(label)))

    def box(self, low, high, material: Material, label: int) -> None:
        self.add(geometry.box(low, high, self.edge), material, label)

    def cushion(self, low, high, material: Material, label: int, exponent: float = 6.0) -> None:
        self.add(geometry.cushion(low, high, self.edge, exponent), material, label)

    def tube(self, start, stop, radius: float, material: Material, label: int,
             end_radius: float | None = None) -> None:
        self.add(geometry.tube(start, stop, radius, self.edge, end_radius), material, label)

    def legs(self, half_x: float, half_y: float, height: float, radius: float, material: Material,
             label: int, square: bool = True) -> None:
        """Four legs at (+-half_x, +-half_y)."""
        for x in (-half_x, half_x):
            for y in (-half_y, half_y):
                if square:
                    self.box((x - radius, y - radius, 0), (x + radius, y + radius, height), material, label)
                else:
                    self.tube((x, y, 0.002), (0.92 * x, 0.92 * y, height), 0.7 * radius, material, label, radius)

    def merge(self, other: Piece, offset=(0.0, 0.0, 0.0), yaw: float = 0.0) -> None:
        """Take over another piece, rotated by ``yaw`` about z and moved by ``offset``."""
        rotation = geometry.axis_rotation(2, yaw)
        self.parts += [(s.moved(rotation, offset), material, label) for s, material, label in other.parts]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner [3] of the piece."""
        low = np.min([surface.vertices.min(axis=0) for surface, _, _ in self.parts], axis=0)
        high = np.max([surface.vertices.max(axis=0) for surface, _, _ in self.parts], axis=0)
        return low, high

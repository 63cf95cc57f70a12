"""Furniture and surfaces of each room type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataloader.synthesis import materials
from dataloader.synthesis.furniture import bathroom, bedroom, kitchen, props, seating, storage, tables, wall_items
from dataloader.synthesis.materials import Material
from dataloader.synthesis.piece import Piece, Style


@dataclass(frozen=True)
class Item:
    """One kind of furniture of a room type.

    Attributes:
        build: makes the piece.
        place: "wall" (its back to a wall) or "floor".
        clearance: metres kept free in front of it (all round it on the floor).
        gap: metres between its back and the wall.
        count: fewest and most of them; those up to the fewest must find a place.
    """

    build: Callable[[Style, np.random.Generator], Piece]
    place: str = "wall"
    clearance: float = 0.0
    gap: float = 0.02
    count: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class RoomType:
    """A room type: its size in metres, its surfaces and its furniture, in the order of placement."""

    width: tuple[float, float]
    depth: tuple[float, float]
    floors: tuple[Callable[[np.random.Generator], Material], ...]
    items: tuple[Item, ...]
    walls: Callable[[np.random.Generator], Material] = materials.plaster


def _floor_tiles(rng: np.random.Generator) -> Material:
    return materials.tiles(rng, float(rng.uniform(0.28, 0.4)), gloss=0.3)


def _wall_tiles(rng: np.random.Generator) -> Material:
    return materials.tiles(rng, float(rng.uniform(0.16, 0.24)), gloss=0.4)


_DOOR = Item(wall_items.door, clearance=0.75, gap=0.0)
_CURTAINED_WINDOW = Item(wall_items.window_with_curtains, gap=0.0)
_WINDOW = Item(wall_items.plain_window, gap=0.0)

ROOM_TYPES: dict[str, RoomType] = {
    "living room": RoomType((4.3, 5.2), (3.8, 4.5), (materials.planks, materials.carpet), (
        _DOOR,
        _CURTAINED_WINDOW,
        Item(tables.living_group, clearance=0.2, gap=0.05),
        Item(tables.television_stand, clearance=0.5),
        Item(storage.bookshelf, clearance=0.4, count=(1, 2)),
        Item(seating.armchair, clearance=0.3, gap=0.06, count=(1, 2)),
        Item(storage.cabinet, clearance=0.4, count=(0, 1)),
        Item(props.floor_lamp, gap=0.05, count=(0, 1)),
        Item(props.plant, gap=0.03, count=(1, 2)),
        Item(props.ottoman, place="floor", clearance=0.1, count=(0, 1)),
        Item(props.ottoman, gap=0.05, count=(0, 2)),
        Item(wall_items.radiator, gap=0.0, count=(0, 1)),
        Item(wall_items.picture, gap=0.0, count=(2, 4)),
        Item(wall_items.wall_shelf, gap=0.0, count=(0, 2)),
        Item(wall_items.clock, gap=0.0, count=(0, 1)),
    )),
    "bedroom": RoomType((3.6, 4.3), (3.4, 4.0), (materials.planks, materials.carpet), (
        _DOOR,
        _CURTAINED_WINDOW,
        Item(bedroom.bed_group, clearance=0.4),
        Item(storage.wardrobe, clearance=0.5),
        Item(tables.desk_group, clearance=0.1, count=(0, 1)),
        Item(storage.bookshelf, clearance=0.3, count=(0, 1)),
        Item(seating.armchair, gap=0.06, clearance=0.2, count=(0, 1)),
        Item(props.ottoman, gap=0.05, count=(0, 1)),
        Item(wall_items.radiator, gap=0.0, count=(0, 1)),
        Item(props.cardboard_box, gap=0.04, count=(0, 2)),
        Item(wall_items.picture, gap=0.0, count=(1, 3)),
        Item(wall_items.wall_shelf, gap=0.0, count=(0, 2)),
    )),
    "kitchen": RoomType((3.7, 4.4), (3.4, 4.0), (_floor_tiles, materials.checkered, materials.planks), (
        Item(kitchen.kitchen_run, clearance=0.7),
        _DOOR,
        _WINDOW,
        Item(tables.dining_group, place="floor", clearance=0.05),
        Item(storage.cabinet, clearance=0.3, count=(0, 1)),
        Item(seating.stool, gap=0.05, count=(0, 2)),
        Item(props.bin, gap=0.04, count=(1, 1)),
        Item(wall_items.radiator, gap=0.0, count=(0, 1)),
        Item(props.cardboard_box, gap=0.04, count=(0, 1)),
        Item(wall_items.wall_shelf, gap=0.0, count=(1, 2)),
        Item(wall_items.clock, gap=0.0, count=(1, 1)),
        Item(wall_items.picture, gap=0.0, count=(0, 1)),
    )),
    "bathroom": RoomType((2.6, 3.1), (2.5, 2.9), (_floor_tiles, materials.checkered), (
        Item(bathroom.tub_group, clearance=0.05),
        _DOOR,
        Item(bathroom.toilet, clearance=0.4),
        Item(bathroom.wash_stand, clearance=0.5),
        Item(wall_items.small_window, gap=0.0),
        Item(bathroom.towel_rail, gap=0.0, count=(1, 2)),
        Item(wall_items.radiator, gap=0.0, count=(0, 1)),
        Item(props.bin, gap=0.04, count=(0, 1)),
        Item(seating.stool, gap=0.05, count=(0, 1)),
    ), walls=_wall_tiles),
    "office": RoomType((3.7, 4.5), (3.5, 4.2), (materials.carpet, materials.planks), (
        _DOOR,
        _WINDOW,
        Item(tables.desk_group, clearance=0.1, count=(2, 2)),
        Item(storage.bookshelf, clearance=0.4, count=(1, 3)),
        Item(storage.cabinet, clearance=0.4, count=(1, 1)),
        Item(wall_items.whiteboard, gap=0.0, count=(0, 1)),
        Item(props.plant, gap=0.03, count=(0, 1)),
        Item(props.bin, gap=0.04, count=(1, 2)),
        Item(props.cardboard_box, gap=0.04, count=(0, 3)),
        Item(wall_items.radiator, gap=0.0, count=(0, 1)),
        Item(wall_items.clock, gap=0.0, count=(0, 1)),
        Item(wall_items.wall_shelf, gap=0.0, count=(0, 2)),
        Item(wall_items.picture, gap=0.0, count=(0, 2)),
    )),
    "classroom": RoomType((5.4, 6.4), (4.8, 5.8), (materials.planks, materials.carpet), (
        _DOOR,
        Item(wall_items.whiteboard, clearance=1.0, gap=0.0),
        Item(wall_items.plain_window, gap=0.0, count=(2, 2)),
        Item(tables.school_desk, place="floor", clearance=0.1, count=(5, 10)),
        Item(storage.bookshelf, clearance=0.3, count=(1, 2)),
        Item(storage.cabinet, clearance=0.3, count=(1, 2)),
        Item(props.bin, gap=0.04, count=(1, 1)),
        Item(wall_items.picture, gap=0.0, count=(0, 2)),
    )),
    "studio": RoomType((5.8, 6.6), (5.0, 5.8), (materials.planks, _floor_tiles), (
        Item(kitchen.kitchen_run, clearance=0.6),
        _DOOR,
        Item(bathroom.tub_group, clearance=0.05),
        _CURTAINED_WINDOW,
        Item(bedroom.bed_group, clearance=0.2),
        Item(seating.sofa, clearance=0.3, gap=0.05),
        Item(bathroom.toilet, clearance=0.3),
        Item(tables.desk_group, clearance=0.05),
        Item(storage.bookshelf, clearance=0.3),
        Item(tables.dining_group, place="floor", clearance=0.05),
        Item(props.ottoman, gap=0.05),
        Item(props.plant, gap=0.03, count=(0, 1)),
        Item(wall_items.picture, gap=0.0, count=(1, 3)),
        Item(wall_items.wall_shelf, gap=0.0, count=(0, 2)),
        Item(wall_items.clock, gap=0.0, count=(0, 1)),
    )),
}

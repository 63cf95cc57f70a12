"""A furnished room as one labelled, textured triangle mesh."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import gin
import numpy as np
import torch

from dataloader.synthesis import geometry, materials, textures
from dataloader.synthesis.layout import FloorPlan
from dataloader.synthesis.materials import Material, MaterialTable
from dataloader.synthesis.piece import Nyu40, Piece, Style
from dataloader.synthesis.room_types import ROOM_TYPES, RoomType
from lib.raster import RayTree
from utils.errors import UserError, check_choice
from utils.seeding import numpy_generator

logger = logging.getLogger(__name__)
ATTEMPTS = 60
WINDOW_INSET = 0.3  # metres from the pane to its light source: inside the curtains


@gin.configurable
@dataclass(frozen=True)
class RoomOptions:
    """The rooms to generate.

    Attributes:
        types: room types, cycled through by room number; see ``dataloader/synthesis/room_types.py``.
        edge: longest triangle leg in metres (about; ScanNet's meshes have 2 to 5 cm).
        height: lowest and highest ceiling in metres.
        repainted: share of the materials whose colours and pattern are drawn without regard to what they are (a
            striped door, a blue floor), while their gloss stays; see :func:`materials.repainted`.
        palette: of the repainted ones: "all", or "first" or "second", which have no pattern and no hue in common.
    """

    types: tuple[str, ...] = ("living room", "bedroom", "kitchen", "bathroom", "office", "studio")
    edge: float = 0.065
    height: tuple[float, float] = (2.4, 2.7)
    repainted: float = 0.0
    palette: str = "all"

    def __post_init__(self) -> None:
        check_choice("RoomOptions.palette", self.palette, tuple(materials.PALETTES))
        if not 0 <= self.repainted <= 1:
            raise UserError(f"RoomOptions.repainted = {self.repainted}: expected a share from 0 to 1")
        object.__setattr__(self, "types", tuple(self.types))
        object.__setattr__(self, "height", tuple(self.height))
        unknown = sorted(set(self.types) - set(ROOM_TYPES))
        if unknown or not self.types:
            raise UserError(f"RoomOptions.types = {list(self.types)}: unknown room type {unknown or 'list'}; "
                            f"expected some of {', '.join(ROOM_TYPES)}")
        if not 0.01 <= self.edge <= 0.5:
            raise UserError(f"RoomOptions.edge = {self.edge} metres; expected 0.01 to 0.5")


@dataclass(frozen=True)
class Light:
    """A lamp or window that lights the room."""

    points: np.ndarray  # [S, 3] where its light comes from
    color: tuple[float, float, float]
    strength: float


@dataclass(frozen=True)
class Room:
    """The mesh (closed, seen from inside), its materials and its lights. Metres, +z up."""

    kind: str
    size: tuple[float, float, float]
    vertices: np.ndarray  # [N, 3] float32
    normals: np.ndarray  # [N, 3] float32, unit
    uv: np.ndarray  # [N, 2] float32, metres
    faces: np.ndarray  # [F, 3] int32
    labels: np.ndarray  # [N] uint16, NYU40
    material: np.ndarray  # [N] int16, row of materials
    materials: MaterialTable
    lights: tuple[Light, ...]

    @cached_property
    def ray_tree(self) -> RayTree:
        """The mesh made ready for rays."""
        return RayTree(torch.from_numpy(self.vertices), torch.from_numpy(self.faces))

    def vertex_colors(self) -> np.ndarray:
        """Diffuse colour at the vertices, uint8 [N, 3]."""
        color = textures.albedo(self.materials, self.material, self.uv)
        return np.round(color * 255).astype(np.uint8)


def build_room(seed: int, index: int, options: RoomOptions) -> Room:
    """Room number ``index`` of ``seed``: always the same, and another one for each index.

    Raises:
        UserError: the furniture the room type needs did not fit in any attempt.
    """
    kind = options.types[index % len(options.types)]
    for attempt in range(ATTEMPTS):
        rng = numpy_generator(seed, "room", index, attempt)
        style = Style.draw(rng, options.edge)
        plan = _furnish(ROOM_TYPES[kind], style, rng, options, grow=1 + 0.01 * attempt)
        if plan is not None:
            logger.debug("room %d (%s) furnished at attempt %d", index, kind, attempt + 1)
            return _assemble(kind, plan, style, rng, _repainting(seed, index, options))
    raise UserError(f"room {index} ({kind}) of seed {seed} could not be furnished in {ATTEMPTS} attempts; "
                    "take another seed")


def _furnish(room_type: RoomType, style: Style, rng: np.random.Generator, options: RoomOptions,
             grow: float) -> FloorPlan | None:
    plan = FloorPlan(rng.uniform(*room_type.width) * grow, rng.uniform(*room_type.depth) * grow,
                     rng.uniform(*options.height))
    for item in room_type.items:
        for number in range(int(rng.integers(item.count[0], item.count[1] + 1))):
            piece = item.build(style, rng)
            if item.place == "wall":
                fits = plan.against_wall(piece, rng, item.clearance, item.gap)
            else:
                fits = plan.on_floor(piece, rng, item.clearance)
            if not fits and number < item.count[0]:
                return None
    _hang_lamps(plan, style)
    _add_shell(plan, style, room_type, rng)
    return plan


def _hang_lamps(plan: FloorPlan, style: Style) -> None:
    """One ceiling lamp in each half of a long room, else one at the centre."""
    count = 2 if max(plan.width, plan.depth) > 5.2 else 1
    wide = plan.width >= plan.depth
    for share in (np.arange(count) + 0.5) / count:
        lamp = Piece(style.edge)
        lamp.tube((0, 0, -0.05), (0, 0, 0.0), 0.09, style.metal, Nyu40.LAMP)
        lamp.tube((0, 0, -0.12), (0, 0, -0.05), 0.13, materials.LAMP_GLOW, Nyu40.LAMP, 0.19)
        x, y = (share, 0.5) if wide else (0.5, share)
        plan.fixed(lamp, (x * plan.width, y * plan.depth, plan.height))


def _add_shell(plan: FloorPlan, style: Style, room_type: RoomType, rng: np.random.Generator) -> None:
    """Floor, ceiling, walls and skirting boards."""
    width, depth, height, edge = plan.width, plan.depth, plan.height, style.edge
    shell = Piece(edge)
    floor = room_type.floors[rng.integers(len(room_type.floors))](rng)
    walls = room_type.walls(rng)
    ceiling = materials.solid(materials.hsv(0.1, 0.03, 0.95))
    shell.add(geometry.rectangle((0, 0, 0), (width, 0, 0), (0, depth, 0), edge), floor, Nyu40.FLOOR)
    shell.add(geometry.rectangle((0, depth, height), (width, 0, 0), (0, -depth, 0), edge), ceiling, Nyu40.CEILING)
    corners = [(0, 0), (width, 0), (width, depth), (0, depth)]
    for start, stop in zip(corners, corners[1:] + corners[:1], strict=True):
        along = np.array([start[0] - stop[0], start[1] - stop[1], 0.0])
        shell.add(geometry.rectangle((*stop, 0), along, (0, 0, height), edge), walls, Nyu40.WALL)
    if room_type.walls is materials.plaster:
        board = style.paint
        for low, high in (((0, 0), (width, 0.015)), ((0, depth - 0.015), (width, depth)),
                          ((0, 0), (0.015, depth)), ((width - 0.015, 0), (width, depth))):
            shell.box((*low, 0.0), (*high, 0.07), board, Nyu40.WALL)
    plan.fixed(shell, (0.0, 0.0, 0.0))


def _repainting(seed: int, index: int, options: RoomOptions) -> Callable[[list[Material]], list[Material]]:
    """What becomes of a room's materials."""
    rng = numpy_generator(seed, "repaint", index)
    palette = materials.PALETTES[options.palette]

    def repaint(of_room: list[Material]) -> list[Material]:
        chosen = rng.random(len(of_room)) < options.repainted
        return [materials.repainted(material, palette, rng) if change else material
                for material, change in zip(of_room, chosen, strict=True)]

    return repaint


def _assemble(
    kind: str, plan: FloorPlan, style: Style, rng: np.random.Generator,
    repaint: Callable[[list[Material]], list[Material]],
) -> Room:  # fmt: skip
    whole = Piece(style.edge)
    for placed in plan.placed:
        whole.merge(placed.piece, placed.offset, placed.yaw)
    rows: dict = {}
    material = [rows.setdefault(part, len(rows)) for _, part, _ in whole.parts]
    counts = [len(surface.vertices) for surface, _, _ in whole.parts]
    mesh = geometry.merged([surface for surface, _, _ in whole.parts])
    return Room(
        kind,
        (plan.width, plan.depth, plan.height),
        mesh.vertices.astype(np.float32),
        mesh.normals.astype(np.float32),
        mesh.uv.astype(np.float32),
        mesh.faces.astype(np.int32),
        np.repeat([label for _, _, label in whole.parts], counts).astype(np.uint16),
        np.repeat(material, counts).astype(np.int16),
        MaterialTable.of(repaint(list(rows))),
        _lights(whole, rng),
    )


def _lights(whole: Piece, rng: np.random.Generator) -> tuple[Light, ...]:
    """Lamps shine from below their glass, windows from a few points before the pane."""
    lights = []
    warmth = rng.uniform(0.75, 0.95)
    for surface, material, label in whole.parts:
        low, high = surface.vertices.min(axis=0), surface.vertices.max(axis=0)
        if material == materials.LAMP_GLOW and label == Nyu40.LAMP:
            ring = np.array([[0.18, 0, 0], [-0.18, 0, 0], [0, 0.18, 0], [0, -0.18, 0]])
            centre = np.append((low[:2] + high[:2]) / 2, low[2] - 0.06)
            lights.append(Light(centre + ring, (1.0, (1 + warmth) / 2, warmth), 1.0))
        elif material.pattern == "outdoors":
            inward = surface.normals[0] * WINDOW_INSET
            share = np.array([[0.25, 0.3], [0.75, 0.3], [0.25, 0.75], [0.75, 0.75]])
            across = share[:, :1] * np.array([1.0, 1.0, 0.0]) + share[:, 1:] * np.array([0.0, 0.0, 1.0])
            area = float(np.linalg.norm(high[:2] - low[:2]) * (high[2] - low[2]))
            lights.append(Light(low + across * (high - low) + inward, (0.82, 0.92, 1.0), 0.9 * area))
    return tuple(lights)

"""What hangs on or is set into a wall: doors, windows, curtains, pictures, whiteboards. Backs at y = 0."""

from __future__ import annotations

import numpy as np

from dataloader.synthesis import geometry, materials
from dataloader.synthesis.furniture import props
from dataloader.synthesis.materials import Material
from dataloader.synthesis.piece import Nyu40, Piece, Style


def door(style: Style, rng: np.random.Generator) -> Piece:
    """A panelled door in its frame."""
    piece, label = Piece(style.edge), Nyu40.DOOR
    half, height, trim = rng.uniform(0.42, 0.47), rng.uniform(2.0, 2.08), 0.08
    leaf = materials.wood(rng) if rng.random() < 0.55 else materials.lacquer(rng)
    frame = materials.lacquer(rng) if rng.random() < 0.5 else leaf
    for x in (-half - trim, half):
        piece.box((x, -0.05, 0), (x + trim, 0, height + trim), frame, label)
    piece.box((-half, -0.05, height), (half, 0, height + trim), frame, label)
    piece.box((-half, -0.025, 0.005), (half, 0, height), leaf, label)
    inset = materials.tinted(leaf.color, 0.86)
    panel = Material(leaf.pattern, inset, materials.tinted(leaf.color2, 0.86), leaf.scale, leaf.gloss, leaf.shininess)
    rows = int(rng.integers(2, 4))
    borders = np.linspace(0.12, height - 0.08, rows + 1)
    for low, high in zip(borders[:-1], borders[1:], strict=True):
        for left, right in ((-half + 0.08, -0.03), (0.03, half - 0.08)):
            piece.box((left, -0.037, low + 0.03), (right, -0.025, high - 0.05), panel, label)
    x = half - 0.06
    piece.tube((x, -0.025, 1.02), (x, -0.075, 1.02), 0.014, style.metal, label)
    piece.tube((x, -0.075, 1.02), (x - 0.12, -0.075, 1.02), 0.012, style.metal, label)
    return piece


def window(style: Style, rng: np.random.Generator, width: float, low: float = 0.95, high: float = 2.1) -> Piece:
    """A window with frame, mullions and sill; the pane shows the outdoors and shines."""
    piece, label, half = Piece(style.edge), Nyu40.WINDOW, width / 2
    frame = materials.WHITE_PLASTIC if rng.random() < 0.7 else style.wood
    sky = materials.hsv(rng.uniform(0.54, 0.6), rng.uniform(0.2, 0.5), 1.0)
    pane = Material("outdoors", sky, (0.22, 0.38, 0.16), (high - low) / 2, 0.6, 70.0, 1.3, rng.uniform(0, 64))
    piece.add(geometry.rectangle((-half, -0.012, low), (width, 0, 0), (0, 0, high - low), style.edge), pane, label)
    for x in np.linspace(-half, half, int(rng.integers(2, 4)) + 1):
        piece.box((x - 0.03, -0.045, low - 0.03), (x + 0.03, 0, high + 0.03), frame, label)
    for z in (low, high, low + 0.68 * (high - low))[: int(rng.integers(2, 4))]:
        piece.box((-half, -0.04, z - 0.03), (half, 0, z + 0.03), frame, label)
    piece.box((-half - 0.06, -0.14, low - 0.07), (half + 0.06, 0, low - 0.03), frame, label)
    return piece


def hanging_cloth(piece: Piece, start: float, stop: float, y: float, low: float, high: float, material: Material,
                  label: int, rng: np.random.Generator, waves: float | None = None, depth: float = 0.03) -> None:
    """Cloth in folds between x = ``start`` and ``stop`` about the plane ``y``, seen from both sides."""
    waves = (stop - start) / rng.uniform(0.1, 0.14) if waves is None else waves
    columns = max(geometry.cells(stop - start, piece.edge), int(6 * waves)) + 1
    rows = geometry.cells(high - low, piece.edge) + 1
    s, t = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    fold = np.sin(2 * np.pi * waves * s + 0.4 * np.sin(3 * t)) * depth * (1.1 - 0.35 * t)
    x, z = start + s * (stop - start), low + t * (high - low)
    uv = np.stack([s * (stop - start) * 1.5, z], axis=-1)
    for side in (-1, 1):
        points = np.stack([x, y + fold + 0.004 * side, z], axis=-1)
        order = slice(None) if side < 0 else slice(None, None, -1)
        piece.add(geometry.patch(points[:, order], uv=uv[:, order]), material, label)


def curtains(style: Style, rng: np.random.Generator, width: float, high: float = 2.25) -> Piece:
    """A pair of curtains on a rod, drawn aside from a window ``width`` wide."""
    piece, half = Piece(style.edge), width / 2
    low = 0.03 if rng.random() < 0.7 else 0.75
    cloth = materials.fabric(rng)
    piece.tube((-half - 0.42, -0.1, high), (half + 0.42, -0.1, high), 0.014, style.metal, Nyu40.OTHER_PROP)
    inward = rng.uniform(0.05, 0.2, size=2)
    for start, stop in ((-half - 0.36, -half + inward[0]), (half - inward[1], half + 0.36)):
        hanging_cloth(piece, start, stop, -0.1, low, high - 0.02, cloth, Nyu40.CURTAIN, rng)
    return piece


def window_with_curtains(style: Style, rng: np.random.Generator) -> Piece:
    """A window between a pair of curtains."""
    width = rng.uniform(0.95, 1.5)
    piece = window(style, rng, width)
    piece.merge(curtains(style, rng, width))
    return piece


def plain_window(style: Style, rng: np.random.Generator) -> Piece:
    """A window without curtains."""
    return window(style, rng, rng.uniform(0.9, 1.5))


def small_window(style: Style, rng: np.random.Generator) -> Piece:
    """A bathroom's window, high in the wall."""
    return window(style, rng, rng.uniform(0.5, 0.75), 1.45, 2.1)


def picture(style: Style, rng: np.random.Generator) -> Piece:
    """A framed landscape or abstract painting."""
    piece, label = Piece(style.edge), Nyu40.PICTURE
    half_x, half_z, trim, middle = rng.uniform(0.25, 0.5), rng.uniform(0.22, 0.38), 0.035, rng.uniform(1.5, 1.65)
    frame = style.wood if rng.random() < 0.6 else materials.BLACK_PLASTIC
    low, high = middle - half_z, middle + half_z
    piece.box((-half_x, -0.02, low), (half_x, 0, high), frame, label)
    for z in (low - trim, high):
        piece.box((-half_x - trim, -0.035, z), (half_x + trim, 0, z + trim), frame, label)
    for x in (-half_x - trim, half_x):
        piece.box((x, -0.035, low), (x + trim, 0, high), frame, label)
    pattern = str(rng.choice(["landscape", "blocks"]))
    colors = [materials.hsv(rng.random(), rng.uniform(0.45, 0.9), rng.uniform(0.45, 0.9)) for _ in range(2)]
    canvas = Material(pattern, colors[0], colors[1], half_z, 0.05, 15.0, phase=rng.uniform(0, 20))
    surface = geometry.rectangle((-half_x, -0.024, low), (2 * half_x, 0, 0), (0, 0, 2 * half_z), style.edge)
    piece.add(surface, canvas, label)
    return piece


def whiteboard(style: Style, rng: np.random.Generator) -> Piece:
    """A framed whiteboard."""
    piece, label, half = Piece(style.edge), Nyu40.WHITEBOARD, rng.uniform(0.7, 1.1)
    piece.box((-half, -0.03, 0.95), (half, 0, 1.95), style.metal, label)
    white = materials.solid((0.95, 0.95, 0.96), 0.5, 40.0)
    piece.add(geometry.rectangle((-half + 0.03, -0.033, 0.98), (2 * half - 0.06, 0, 0), (0, 0, 0.94), style.edge),
              white, label)
    return piece


def radiator(style: Style, rng: np.random.Generator) -> Piece:
    """A ribbed radiator."""
    piece, label, half = Piece(style.edge), Nyu40.OTHER_STRUCTURE, rng.uniform(0.35, 0.55)
    for x in np.arange(-half, half, 0.07):
        piece.cushion((x, -0.13, 0.12), (x + 0.06, -0.03, 0.7), materials.WHITE_PLASTIC, label, 6.0)
    for z in (0.18, 0.62):
        piece.box((-half, -0.1, z), (half, -0.06, z + 0.04), materials.WHITE_PLASTIC, label)
    return piece


def wall_shelf(style: Style, rng: np.random.Generator) -> Piece:
    """A board on the wall with a few things on it."""
    piece, label = Piece(style.edge), Nyu40.SHELVES
    half, height = rng.uniform(0.3, 0.5), rng.uniform(1.3, 1.6)
    piece.box((-half, -0.2, height), (half, 0, height + 0.025), style.wood.shifted(rng), label)
    for x in (-half + 0.06, half - 0.08):
        piece.box((x, -0.15, height - 0.12), (x + 0.02, 0, height), style.metal, label)
    things = [props.vase, props.book_stack, props.bowl]
    for x in np.arange(-half + 0.15, half - 0.1, 0.3):
        piece.merge(things[rng.integers(len(things))](style, rng), (x, -0.11, height + 0.025))
    return piece


def clock(style: Style, rng: np.random.Generator) -> Piece:
    """A wall clock."""
    piece, label = Piece(style.edge), Nyu40.OTHER_PROP
    radius, height = rng.uniform(0.13, 0.18), rng.uniform(1.75, 1.95)
    piece.tube((0, 0, height), (0, -0.035, height), radius, materials.BLACK_PLASTIC, label)
    piece.tube((0, -0.03, height), (0, -0.038, height), radius - 0.015, materials.WHITE_PLASTIC, label)
    for angle, length in ((rng.uniform(0, 6), 0.5), (rng.uniform(0, 6), 0.75)):
        tip = (radius * length * np.sin(angle), -0.04, height + radius * length * np.cos(angle))
        piece.tube((0, -0.04, height), tip, 0.007, materials.BLACK_PLASTIC, label)
    return piece

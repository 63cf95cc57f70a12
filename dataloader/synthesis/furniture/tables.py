"""Tables, desks, night stands and what stands on them."""

from __future__ import annotations

import numpy as np

from dataloader.synthesis import geometry, materials
from dataloader.synthesis.furniture import props, seating
from dataloader.synthesis.materials import Material
from dataloader.synthesis.piece import Nyu40, Piece, Style


def table(style: Style, rng: np.random.Generator, width: float, depth: float, height: float,
          label: int = Nyu40.TABLE) -> Piece:
    """A rectangular table on four legs with an apron."""
    piece = Piece(style.edge)
    half_x, half_y, leg = width / 2, depth / 2, rng.uniform(0.022, 0.035)
    top = style.wood.shifted(rng)
    piece.legs(half_x - 0.05, half_y - 0.05, height - 0.03, leg, style.wood, label)
    piece.box((-half_x, -half_y, height - 0.035), (half_x, half_y, height), top, label)
    for y in (-half_y + 0.04, half_y - 0.06):
        piece.box((-half_x + 0.06, y, height - 0.1), (half_x - 0.06, y + 0.02, height - 0.035), style.wood, label)
    return piece


def round_table(style: Style, rng: np.random.Generator, radius: float, height: float) -> Piece:
    """A round table on one column."""
    piece, label = Piece(style.edge), Nyu40.TABLE
    piece.tube((0, 0, height - 0.035), (0, 0, height), radius, style.wood.shifted(rng), label)
    piece.tube((0, 0, 0.03), (0, 0, height - 0.03), 0.05, style.metal, label)
    piece.tube((0, 0, 0), (0, 0, 0.035), 0.55 * radius, style.metal, label)
    return piece


def dining_group(style: Style, rng: np.random.Generator) -> Piece:
    """A dining table with chairs around it and a few things on it."""
    piece, height = Piece(style.edge), rng.uniform(0.72, 0.77)
    if rng.random() < 0.35:
        radius = rng.uniform(0.45, 0.55)
        piece.merge(round_table(style, rng, radius, height))
        angles = np.arange(4) * np.pi / 2 + rng.uniform(0, 1.5)
        seats = [(np.sin(a) * (radius + 0.12), -np.cos(a) * (radius + 0.12), a + np.pi) for a in angles[:3]]
    else:
        width, depth = rng.uniform(1.1, 1.5), rng.uniform(0.75, 0.9)
        piece.merge(table(style, rng, width, depth, height))
        x, y = width / 4, depth / 2 + 0.1
        seats = [(-x, -y, np.pi), (x, -y, np.pi), (-x, y, 0.0), (x, y, 0.0)]
    chair_seed = int(rng.integers(1 << 31))
    for x, y, yaw in seats:
        matching = seating.chair(style, np.random.default_rng(chair_seed))
        piece.merge(matching, (x, y, 0), yaw + rng.uniform(-0.2, 0.2))
    piece.merge(props.vase(style, rng), (rng.uniform(-0.15, 0.15), rng.uniform(-0.1, 0.1), height))
    piece.merge(props.bowl(style, rng), (0.28, rng.uniform(-0.1, 0.1), height))
    return piece


def coffee_table(style: Style, rng: np.random.Generator) -> Piece:
    """A low table with a lower shelf, books and a bowl."""
    width, depth, height = rng.uniform(0.85, 1.1), rng.uniform(0.48, 0.58), rng.uniform(0.38, 0.45)
    piece = table(style, rng, width, depth, height)
    piece.box((-width / 2 + 0.06, -depth / 2 + 0.06, 0.12), (width / 2 - 0.06, depth / 2 - 0.06, 0.14), style.wood,
              Nyu40.TABLE)
    piece.merge(props.book_stack(style, rng), (-0.2, 0.0, height), rng.uniform(-0.5, 0.5))
    piece.merge(props.bowl(style, rng), (0.2, 0.03, height))
    return piece


def night_stand(style: Style, rng: np.random.Generator) -> Piece:
    """A small chest of two drawers with a lamp."""
    piece, label = Piece(style.edge), Nyu40.NIGHT_STAND
    half, height = rng.uniform(0.2, 0.24), rng.uniform(0.48, 0.56)
    piece.box((-half, -half, 0.05), (half, half, height), style.wood, label)
    for low in (0.08, 0.08 + (height - 0.1) / 2):
        high = low + (height - 0.14) / 2
        piece.box((-half + 0.02, -half - 0.015, low), (half - 0.02, -half, high), style.wood, label)
        piece.tube((-0.04, -half - 0.03, low + 0.1), (0.04, -half - 0.03, low + 0.1), 0.01, style.metal, label)
    piece.merge(props.table_lamp(style, rng), (0, 0.03, height))
    return piece


def desk(style: Style, rng: np.random.Generator, width: float | None = None) -> Piece:
    """A desk with a drawer block, a monitor, a keyboard, a lamp and paper."""
    piece, label = Piece(style.edge), Nyu40.DESK
    width = rng.uniform(1.2, 1.6) if width is None else width
    half, depth, height = width / 2, rng.uniform(0.62, 0.75), rng.uniform(0.71, 0.75)
    front, back = -depth / 2, depth / 2
    top = style.wood if rng.random() < 0.6 else style.paint
    piece.box((-half, front, height - 0.035), (half, back, height), top, label)
    piece.box((-half + 0.02, front + 0.04, 0), (-half + 0.05, back - 0.02, height - 0.035), top, label)
    piece.box((half - 0.42, front + 0.03, 0.03), (half - 0.02, back - 0.02, height - 0.035), top, label)
    piece.box((-half + 0.05, back - 0.05, 0.3), (half - 0.42, back - 0.03, height - 0.035), top, label)
    for low in np.linspace(0.06, height - 0.26, 3):
        piece.box((half - 0.4, front + 0.012, low), (half - 0.04, front + 0.03, low + 0.19), style.paint, label)
        piece.tube((half - 0.27, front - 0.003, low + 0.13), (half - 0.17, front - 0.003, low + 0.13), 0.009,
                   style.metal, label)
    piece.merge(props.monitor(style, rng), (-0.12, back - 0.2, height))
    piece.box((-0.34, front + 0.12, height), (0.1, front + 0.26, height + 0.018), materials.BLACK_PLASTIC,
              Nyu40.OTHER_PROP)
    piece.box((0.3, front + 0.12, height), (0.51, front + 0.41, height + 0.006), materials.solid((0.93, 0.93, 0.9)),
              Nyu40.OTHER_PROP)
    piece.merge(props.table_lamp(style, rng), (half - 0.2, back - 0.18, height))
    return piece


def desk_group(style: Style, rng: np.random.Generator) -> Piece:
    """A desk with an office chair in front of it."""
    piece = desk(style, rng)
    piece.merge(seating.office_chair(style, rng), (-0.12, -0.68, 0), np.pi + rng.uniform(-0.5, 0.5))
    return piece


def school_desk(style: Style, rng: np.random.Generator) -> Piece:
    """A pupil's table for one with its chair."""
    piece = table(style, rng, 0.8, 0.5, 0.72, Nyu40.DESK)
    piece.merge(seating.chair(style, np.random.default_rng(5)), (0.0, -0.38, 0), np.pi + rng.uniform(-0.15, 0.15))
    if rng.random() < 0.6:
        piece.merge(props.book_stack(style, rng), (rng.uniform(-0.2, 0.2), 0.03, 0.72), rng.uniform(-0.4, 0.4))
    return piece


def rug(style: Style, rng: np.random.Generator, width: float, depth: float, material: Material) -> Piece:
    """A rug a centimetre thick."""
    piece = Piece(style.edge)
    piece.box((-width / 2, -depth / 2, 0.0), (width / 2, depth / 2, 0.012), material, Nyu40.FLOOR_MAT)
    return piece


def living_group(style: Style, rng: np.random.Generator) -> Piece:
    """A sofa, a rug and a coffee table in front of it."""
    piece = seating.sofa(style, rng)
    piece.merge(rug(style, rng, 1.9, 1.2, materials.fabric(rng)), (0, -0.95, 0))
    piece.merge(coffee_table(style, rng), (rng.uniform(-0.1, 0.1), -1.05, 0.012))
    return piece


def television_stand(style: Style, rng: np.random.Generator) -> Piece:
    """A low board with a television on it."""
    piece, label = Piece(style.edge), Nyu40.OTHER_FURNITURE
    half, depth, height = rng.uniform(0.6, 0.8), 0.4, rng.uniform(0.42, 0.52)
    piece.box((-half, -depth / 2, 0.06), (half, depth / 2, height), style.paint, label)
    for start in (-half, -half / 3, half / 3):
        piece.box((start + 0.02, -depth / 2 - 0.015, 0.09), (start + 2 * half / 3 - 0.02, -depth / 2, height - 0.03),
                  style.wood, label)
    piece.box((-0.16, -0.08, height), (0.16, 0.1, height + 0.02), materials.BLACK_PLASTIC, Nyu40.TELEVISION)
    piece.box((-0.04, 0.0, height), (0.04, 0.03, height + 0.1), materials.BLACK_PLASTIC, Nyu40.TELEVISION)
    piece.box((-0.52, 0.0, height + 0.07), (0.52, 0.05, height + 0.68), materials.BLACK_PLASTIC, Nyu40.TELEVISION)
    screen = materials.solid((0.06, 0.07, 0.1), 0.8, 60.0)
    surface = geometry.rectangle((-0.5, -0.003, height + 0.09), (1.0, 0, 0), (0, 0, 0.57), style.edge)
    piece.add(surface, screen, Nyu40.TELEVISION)
    return piece

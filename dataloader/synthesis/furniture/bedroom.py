"""Beds."""

from __future__ import annotations

import numpy as np

from dataloader.synthesis import materials
from dataloader.synthesis.furniture import tables
from dataloader.synthesis.piece import Nyu40, Piece, Style


def bed(style: Style, rng: np.random.Generator, width: float | None = None) -> Piece:
    """A frame with headboard, mattress, blanket and pillows; the head stands against the wall."""
    piece, label = Piece(style.edge), Nyu40.BED
    width = rng.choice([1.0, 1.45, 1.65]) if width is None else width
    half, length = width / 2, 2.05
    front, back = -length / 2, length / 2
    frame = style.wood if rng.random() < 0.7 else style.paint
    piece.legs(half - 0.06, length / 2 - 0.08, 0.2, 0.035, frame, label)
    piece.box((-half, front, 0.16), (half, back, 0.32), frame, label)
    piece.box((-half - 0.02, back - 0.05, 0.1), (half + 0.02, back, rng.uniform(0.9, 1.15)), frame, label)
    if rng.random() < 0.4:
        piece.box((-half - 0.02, front - 0.04, 0.1), (half + 0.02, front, 0.6), frame, label)
    sheet = materials.solid(materials.hsv(rng.random(), rng.uniform(0, 0.12), 0.93))
    piece.cushion((-half + 0.02, front + 0.02, 0.28), (half - 0.02, back - 0.06, 0.52), sheet, label, 10.0)
    blanket = materials.fabric(rng)
    piece.cushion((-half - 0.02, front - 0.005, 0.3), (half + 0.02, back - 0.6, 0.57), blanket, label, 9.0)
    pillow = materials.fabric(rng) if rng.random() < 0.4 else sheet
    places = [0.0] if width < 1.2 else [-width / 4, width / 4]
    for x in places:
        piece.cushion((x - 0.32, back - 0.52, 0.48), (x + 0.32, back - 0.1, 0.66), pillow, Nyu40.PILLOW, 3.0)
    return piece


def bed_group(style: Style, rng: np.random.Generator) -> Piece:
    """A bed with a night stand on one or both sides."""
    width = float(rng.choice([1.0, 1.45, 1.65]))
    piece = bed(style, rng, width)
    first = rng.choice((-1.0, 1.0))
    stand_seed = int(rng.integers(1 << 31))
    for side in (first, -first)[: 1 if width < 1.2 else 2]:
        stand = tables.night_stand(style, np.random.default_rng(stand_seed))
        piece.merge(stand, (side * (width / 2 + 0.3), 1.02 - 0.26, 0))
    return piece

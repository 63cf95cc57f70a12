"""Chairs, office chairs, stools, sofas and armchairs."""

from __future__ import annotations

import numpy as np

from dataloader.synthesis import materials
from dataloader.synthesis.piece import Nyu40, Piece, Style


def chair(style: Style, rng: np.random.Generator) -> Piece:
    """A dining chair: four legs, a seat, and a back of slats or a panel."""
    piece, label = Piece(style.edge), Nyu40.CHAIR
    frame = style.wood if rng.random() < 0.6 else style.metal
    seat = style.fabric.shifted(rng) if rng.random() < 0.5 else frame
    half, seat_height, height = rng.uniform(0.2, 0.23), rng.uniform(0.43, 0.47), rng.uniform(0.85, 0.98)
    piece.legs(half - 0.02, half - 0.02, seat_height, 0.02, frame, label, square=frame is style.wood)
    piece.cushion((-half, -half, seat_height - 0.02), (half, half, seat_height + 0.035), seat, label, 10.0)
    for x in (-half + 0.02, half - 0.02):
        piece.box((x - 0.02, half - 0.04, seat_height), (x + 0.02, half, height), frame, label)
    if rng.random() < 0.5:
        for x in np.linspace(-half + 0.08, half - 0.08, 4):
            piece.box((x - 0.016, half - 0.03, seat_height), (x + 0.016, half - 0.012, height - 0.06), frame, label)
        piece.box((-half, half - 0.04, height - 0.08), (half, half, height), frame, label)
    else:
        piece.cushion((-half, half - 0.05, seat_height + 0.14), (half, half + 0.005, height), seat, label, 8.0)
    return piece


def office_chair(style: Style, rng: np.random.Generator) -> Piece:
    """A swivel chair: five feet, a column, a padded seat, back and arms."""
    piece, label = Piece(style.edge), Nyu40.CHAIR
    pad = style.fabric.shifted(rng) if rng.random() < 0.5 else materials.leather(rng)
    frame = materials.BLACK_PLASTIC
    for angle in np.arange(5) * 2 * np.pi / 5 + 0.3:
        tip = (0.29 * np.cos(angle), 0.29 * np.sin(angle), 0.06)
        piece.tube((0, 0, 0.09), tip, 0.025, frame, label)
        piece.cushion(np.subtract(tip, (0.03, 0.03, 0.057)), np.add(tip, (0.03, 0.03, 0.0)), frame, label, 2.0)
    piece.tube((0, 0, 0.08), (0, 0, 0.42), 0.03, style.metal, label)
    piece.cushion((-0.24, -0.25, 0.41), (0.24, 0.22, 0.5), pad, label, 5.0)
    piece.box((-0.03, 0.2, 0.44), (0.03, 0.24, 0.62), frame, label)
    piece.cushion((-0.22, 0.19, 0.56), (0.22, 0.27, rng.uniform(0.95, 1.1)), pad, label, 5.0)
    for x in (-0.26, 0.26):
        piece.box((x - 0.02, -0.02, 0.46), (x + 0.02, 0.02, 0.66), frame, label)
        piece.box((x - 0.03, -0.16, 0.66), (x + 0.03, 0.14, 0.69), frame, label)
    return piece


def sofa(style: Style, rng: np.random.Generator, width: float | None = None, label: int = Nyu40.SOFA) -> Piece:
    """A sofa (or, one seat wide, an armchair) with seat and back cushions, arms and scatter pillows."""
    piece = Piece(style.edge)
    cover = materials.leather(rng) if rng.random() < 0.3 else style.fabric.shifted(rng)
    width = rng.uniform(1.7, 2.2) if width is None else width
    depth, arm, arm_height, back_height = 0.88, rng.uniform(0.14, 0.2), rng.uniform(0.55, 0.64), 0.82
    left, right, front, back = -width / 2, width / 2, -depth / 2, depth / 2
    piece.legs(width / 2 - 0.08, depth / 2 - 0.08, 0.1, 0.025, style.wood, label)
    piece.box((left, front + 0.03, 0.08), (right, back, 0.28), cover, label)
    piece.cushion((left, back - 0.24, 0.08), (right, back, back_height), cover, label, 10.0)
    for x in (left, right - arm):
        piece.cushion((x, front, 0.08), (x + arm, back - 0.02, arm_height), cover, label, 8.0)
    seats = max(1, round((width - 2 * arm) / 0.65))
    borders = np.linspace(left + arm, right - arm, seats + 1)
    for start, stop in zip(borders[:-1], borders[1:], strict=True):
        piece.cushion((start, front - 0.01, 0.26), (stop, back - 0.2, 0.45), cover, label, 7.0)
        piece.cushion((start + 0.01, back - 0.36, 0.42), (stop - 0.01, back - 0.16, back_height + 0.04), cover,
                      label, 5.0)
    for _ in range(int(rng.integers(0, 3)) if seats > 1 else 0):
        x = rng.choice((left + arm + 0.22, right - arm - 0.22)) + rng.uniform(-0.03, 0.03)
        piece.cushion((x - 0.2, back - 0.5, 0.44), (x + 0.2, back - 0.35, 0.8), materials.fabric(rng),
                      Nyu40.PILLOW, 3.5)
    return piece


def armchair(style: Style, rng: np.random.Generator) -> Piece:
    """An upholstered chair."""
    return sofa(style, rng, width=rng.uniform(0.82, 0.95), label=Nyu40.CHAIR)


def stool(style: Style, rng: np.random.Generator) -> Piece:
    """A round stool."""
    piece, label = Piece(style.edge), Nyu40.CHAIR
    height = rng.uniform(0.45, 0.65)
    piece.legs(0.14, 0.14, height, 0.02, style.metal, label, square=False)
    piece.tube((0, 0, height - 0.02), (0, 0, height + 0.03), 0.18, style.wood, label)
    return piece

"""Kitchen counters with their sink, stove and cabinets; the bathroom's wash stand is built the same way."""

from __future__ import annotations

import numpy as np

from dataloader.synthesis import geometry, materials
from dataloader.synthesis.furniture import props, storage
from dataloader.synthesis.materials import Material
from dataloader.synthesis.piece import Nyu40, Piece, Style


def basin(piece: Piece, centre: tuple[float, float, float], half_x: float, half_y: float, depth: float,
          material: Material, exponent: float) -> None:
    """A sink let into a counter: a raised rim, a bowl and a drain."""
    x, y, z = centre
    count = 32
    rings = [(half_x, half_y, 0.0), (half_x, half_y, 0.015), (half_x - 0.025, half_y - 0.025, 0.015),
             (half_x - 0.04, half_y - 0.04, -0.6 * depth), (0.6 * half_x, 0.6 * half_y, -depth),
             (0.002, 0.002, -depth)]
    curves = [geometry.curve_of(count, (x, y, z + h), a, b, exponent) for a, b, h in rings]
    for group in (curves[:3], curves[2:]):
        piece.add(geometry.loft(group, piece.edge), material, Nyu40.SINK)
    drain = geometry.curve_of(count, (x, y, z - depth + 0.004), 0.03, 0.03, 2.0)
    piece.add(geometry.disk(drain, piece.edge), materials.BLACK_PLASTIC, Nyu40.SINK)


def counter_top(piece: Piece, low, high, hole: tuple[float, float, float, float] | None, exponent: float,
                material: Material) -> None:
    """A slab from ``low`` to ``high``; ``hole`` (x, y, half_x, half_y) is cut through it for a sink."""
    label, (x0, y0, z0), (x1, y1, z1) = Nyu40.COUNTER, low, high
    if hole is None:
        piece.box(low, high, material, label)
        return
    x, y, half_x, half_y = hole
    left, right = x - half_x - 0.06, x + half_x + 0.06
    for start, stop in ((x0, left), (right, x1)):
        if stop - start > 1e-6:
            piece.box((start, y0, z0), (stop, y1, z1), material, label)
    middle, half_depth = (y0 + y1) / 2, (y1 - y0) / 2
    for z, upwards in ((z1, True), (z0, False)):
        outer = geometry.curve_of(32, (x, middle, z), (right - left) / 2, half_depth)
        inner = geometry.curve_of(32, (x, y, z), half_x, half_y, exponent)
        piece.add(geometry.loft([outer, inner] if upwards else [inner, outer], piece.edge), material, label)
    for y_side, u in ((y0, right - left), (y1, left - right)):
        start = left if u > 0 else right
        piece.add(geometry.rectangle((start, y_side, z0), (u, 0, 0), (0, 0, z1 - z0), piece.edge), material, label)


def tap(piece: Piece, x: float, y: float, z: float, height: float, reach: float, metal: Material) -> None:
    """A tap whose spout bends forward."""
    piece.tube((x, y, z), (x, y, z + height), 0.016, metal, Nyu40.SINK)
    piece.tube((x, y, z + height - 0.012), (x, y - reach, z + height), 0.013, metal, Nyu40.SINK)
    piece.tube((x, y - reach, z + height), (x, y - reach, z + height - 0.05), 0.012, metal, Nyu40.SINK)


def kitchen_run(style: Style, rng: np.random.Generator, width: float | None = None) -> Piece:
    """Base cabinets under a counter with sink and stove, cabinets above, and a refrigerator at one end."""
    piece = Piece(style.edge)
    width = rng.uniform(2.1, 2.7) if width is None else width
    half, front, back, height = width / 2, -0.3, 0.3, 0.9
    body, slab = (style.paint if rng.random() < 0.6 else style.wood), materials.stone(rng)
    piece.box((-half, front + 0.06, 0), (half, back, 0.1), materials.BLACK_PLASTIC, Nyu40.CABINET)
    piece.box((-half, front, 0.1), (half, back, height - 0.2), body, Nyu40.CABINET)
    for y in (front, back - 0.02):
        piece.box((-half, y, height - 0.2), (half, y + 0.02, height - 0.035), body, Nyu40.CABINET)
    for x in (-half, half - 0.02):
        piece.box((x, front, height - 0.2), (x + 0.02, back, height - 0.035), body, Nyu40.CABINET)
    borders = np.linspace(-half, half, round(width / 0.5) + 1)
    storage.fronts(piece, borders, 0.12, height - 0.06, front, body.shifted(rng), style.metal, Nyu40.CABINET)
    sink_x, stove_x = (-0.45, 0.5) if rng.random() < 0.5 else (0.45, -0.5)
    counter_top(piece, (-half - 0.01, front - 0.03, height - 0.035), (half + 0.01, back, height),
                (sink_x, 0.0, 0.33, 0.21), 8.0, slab)
    basin(piece, (sink_x, 0.0, height), 0.34, 0.22, 0.16, style.metal, 8.0)
    tap(piece, sink_x, 0.25, height, 0.26, 0.18, materials.metal(rng))
    _stove(piece, stove_x, height)
    _wall_cabinets(piece, style, rng, borders, body)
    piece.merge(props.bowl(style, rng), (stove_x + np.sign(stove_x) * 0.42, 0.0, height))
    side = rng.choice((-1.0, 1.0))
    piece.merge(storage.refrigerator(style, rng), (side * (half + 0.4), back - 0.36, 0))
    return piece


def _stove(piece: Piece, x: float, z: float) -> None:
    glass = materials.solid((0.07, 0.07, 0.08), 0.8, 60.0)
    piece.box((x - 0.28, -0.24, z), (x + 0.28, 0.24, z + 0.012), glass, Nyu40.OTHER_STRUCTURE)
    plate = materials.solid((0.22, 0.2, 0.2), 0.3, 20.0)
    for dx in (-0.13, 0.13):
        for dy in (-0.11, 0.11):
            piece.tube((x + dx, dy, z + 0.012), (x + dx, dy, z + 0.02), 0.085, plate, Nyu40.OTHER_STRUCTURE)
    pot = materials.solid((0.6, 0.6, 0.63), 0.8, 45.0)
    piece.tube((x - 0.13, 0.11, z + 0.02), (x - 0.13, 0.11, z + 0.15), 0.09, pot, Nyu40.OTHER_PROP)


def _wall_cabinets(piece: Piece, style: Style, rng: np.random.Generator, borders: np.ndarray, body: Material) -> None:
    low, high, front, back = 1.45, 2.1, -0.05, 0.3
    start = int(rng.integers(0, 2))
    chosen = borders[start : len(borders) - 1 + start]
    piece.box((chosen[0], front, low), (chosen[-1], back, high), body, Nyu40.CABINET)
    storage.fronts(piece, chosen, low, high, front, body.shifted(rng), style.metal, Nyu40.CABINET)

"""Toilet, bathtub with shower curtain, and wash stand."""

from __future__ import annotations

import numpy as np

from dataloader.synthesis import geometry, materials
from dataloader.synthesis.furniture import kitchen, storage
from dataloader.synthesis.furniture.wall_items import hanging_cloth
from dataloader.synthesis.piece import Nyu40, Piece, Style


def toilet(style: Style, rng: np.random.Generator) -> Piece:
    """A bowl with seat and raised lid in front of a cistern."""
    piece, label, china = Piece(style.edge), Nyu40.TOILET, materials.porcelain(rng)
    bowl_y, half_x, half_y = -0.12, rng.uniform(0.18, 0.2), rng.uniform(0.23, 0.26)
    foot = [(0.75, 0.0), (0.6, 0.06), (0.58, 0.16), (0.92, 0.33), (1.0, 0.4)]
    rings = [(s * half_x, s * half_y, z) for s, z in foot]
    outside = [geometry.curve_of(32, (0, bowl_y + 0.1 * (1 - a / half_x), z), a, b, 2.3) for a, b, z in rings]
    piece.add(geometry.loft(outside, style.edge), china, label)
    hollow = [(1.0, 0.4), (0.99, 0.425), (0.66, 0.425), (0.64, 0.4), (0.5, 0.27), (0.25, 0.2), (0.01, 0.2)]
    inside = [geometry.curve_of(32, (0, bowl_y, z), s * half_x, s * half_y, 2.3) for s, z in hollow]
    for group in (inside[:3], inside[2:]):
        piece.add(geometry.loft(group, style.edge), china, label)
    water = geometry.curve_of(32, (0, bowl_y, 0.23), 0.35 * half_x, 0.35 * half_y, 2.0)
    piece.add(geometry.disk(water, style.edge), materials.solid((0.6, 0.75, 0.8), 0.8, 60.0), label)
    piece.cushion((-0.22, 0.15, 0.36), (0.22, 0.35, 0.78), china, label, 12.0)
    piece.cushion((-0.235, 0.135, 0.77), (0.235, 0.355, 0.82), china, label, 8.0)
    piece.tube((-0.15, 0.13, 0.7), (-0.08, 0.13, 0.7), 0.014, style.metal, label)
    piece.box((-0.12, 0.05, 0.0), (0.12, 0.3, 0.38), china, label)
    if rng.random() < 0.6:
        lid = geometry.cushion((-half_x, -0.012, 0), (half_x, 0.012, 0.42), style.edge, 3.0)
        piece.add(lid.moved(geometry.axis_rotation(0, -0.12), (0, 0.09, 0.43)), china, label)
    else:
        rim = [geometry.curve_of(32, (0, bowl_y, z), half_x, half_y, 2.3) for z in (0.425, 0.44)]
        piece.add(geometry.loft(rim, style.edge), china, label)
        piece.add(geometry.disk(rim[1], style.edge), china, label)
    return piece


def bathtub(style: Style, rng: np.random.Generator) -> Piece:
    """A built-in tub, hollow, with tap, and a shower curtain on a rod before part of it."""
    piece, label, enamel = Piece(style.edge), Nyu40.BATHTUB, materials.porcelain(rng)
    half_x, half_y, height = rng.uniform(0.78, 0.85), rng.uniform(0.36, 0.4), rng.uniform(0.5, 0.58)
    count = 64
    outer = [geometry.curve_of(count, (0, 0, z), half_x, half_y) for z in (0.0, height)]
    piece.add(geometry.loft(outer, style.edge), enamel, label)
    inner = [(half_x - 0.08, half_y - 0.07, height), (half_x - 0.1, half_y - 0.09, height - 0.06),
             (half_x - 0.18, half_y - 0.14, 0.2), (half_x - 0.27, half_y - 0.2, 0.13), (0.01, 0.01, 0.13)]
    curves = [geometry.curve_of(count, (0, 0, z), a, b, 4.5) for a, b, z in inner]
    piece.add(geometry.loft([outer[1], curves[0]], style.edge), enamel, label)
    piece.add(geometry.loft(curves, style.edge), enamel, label)
    end = rng.choice((-1.0, 1.0))
    piece.tube((end * (half_x - 0.04), 0, height), (end * (half_x - 0.04), 0, height + 0.12), 0.02, style.metal, label)
    piece.tube((end * (half_x - 0.04), 0, height + 0.1), (end * (half_x - 0.2), 0, height + 0.09), 0.018, style.metal,
               label)
    rod_height, front = 2.0, -half_y - 0.05
    piece.tube((-half_x, front, rod_height), (half_x, front, rod_height), 0.013, style.metal, Nyu40.OTHER_PROP)
    width = rng.uniform(0.55, 0.8)
    start = -half_x if end > 0 else half_x - width
    cloth = materials.fabric(rng)
    hanging_cloth(piece, start, start + width, front, 0.15, rod_height - 0.03, cloth, Nyu40.SHOWER_CURTAIN, rng)
    return piece


def wash_stand(style: Style, rng: np.random.Generator) -> Piece:
    """A cabinet with a counter, a basin and a tap, and a mirror above."""
    piece = Piece(style.edge)
    half, front, back, height = rng.uniform(0.4, 0.55), -0.26, 0.26, 0.84
    body = style.wood if rng.random() < 0.5 else style.paint
    piece.box((-half + 0.02, front + 0.02, 0.05), (half - 0.02, back, height - 0.2), body, Nyu40.CABINET)
    for y in (front + 0.02, back - 0.02):
        piece.box((-half + 0.02, y, height - 0.2), (half - 0.02, y + 0.02, height - 0.03), body, Nyu40.CABINET)
    for x in (-half + 0.02, half - 0.04):
        piece.box((x, front + 0.02, height - 0.2), (x + 0.02, back, height - 0.03), body, Nyu40.CABINET)
    borders = np.linspace(-half + 0.02, half - 0.02, 3)
    storage.fronts(piece, borders, 0.08, height - 0.05, front + 0.02, body, style.metal, Nyu40.CABINET)
    kitchen.counter_top(piece, (-half, front, height - 0.03), (half, back, height), (0, -0.02, 0.26, 0.18), 2.5,
                        materials.stone(rng))
    kitchen.basin(piece, (0, -0.02, height), 0.27, 0.19, 0.13, materials.porcelain(rng), 2.5)
    kitchen.tap(piece, 0, 0.2, height, 0.16, 0.13, style.metal)
    piece.box((-half + 0.05, back - 0.03, 1.1), (half - 0.05, back, 1.85), style.metal, Nyu40.MIRROR)
    glass = geometry.rectangle((-half + 0.08, back - 0.033, 1.13), (2 * half - 0.16, 0, 0), (0, 0, 0.69), style.edge)
    piece.add(glass, materials.MIRROR, Nyu40.MIRROR)
    return piece


def towel_rail(style: Style, rng: np.random.Generator) -> Piece:
    """A towel over a rail on the wall."""
    piece = Piece(style.edge)
    piece.tube((-0.3, -0.06, 1.25), (0.3, -0.06, 1.25), 0.012, style.metal, Nyu40.OTHER_PROP)
    cloth = materials.fabric(rng)
    start = rng.uniform(-0.28, -0.15)
    hanging_cloth(piece, start, start + 0.42, -0.075, 1.25 - rng.uniform(0.4, 0.6), 1.27, cloth, Nyu40.TOWEL, rng,
                  waves=3.0, depth=0.006)
    return piece


def bath_mat(style: Style, rng: np.random.Generator) -> Piece:
    """A mat in front of the tub."""
    piece = Piece(style.edge)
    color = materials.hsv(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.5, 0.9))
    mat = materials.Material("weave", color, materials.tinted(color, 0.8), 0.1)
    piece.box((-0.4, -0.25, 0), (0.4, 0.25, 0.015), mat, Nyu40.FLOOR_MAT)
    return piece


def tub_group(style: Style, rng: np.random.Generator) -> Piece:
    """The tub with a mat before it."""
    piece = bathtub(style, rng)
    piece.merge(bath_mat(style, rng), (rng.uniform(-0.2, 0.2), -0.75, 0), rng.uniform(-0.1, 0.1))
    return piece

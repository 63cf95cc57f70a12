"""Small things, mostly unannotated: lamps, plants, vases, books, boxes, monitors, bins."""

from __future__ import annotations

import numpy as np

from dataloader.synthesis import geometry, materials
from dataloader.synthesis.materials import Material
from dataloader.synthesis.piece import Nyu40, Piece, Style


def table_lamp(style: Style, rng: np.random.Generator) -> Piece:
    """A lamp with a conical shade."""
    piece, label = Piece(style.edge), Nyu40.LAMP
    height = rng.uniform(0.34, 0.46)
    piece.tube((0, 0, 0), (0, 0, 0.02), 0.07, style.metal, label)
    piece.tube((0, 0, 0.02), (0, 0, height - 0.1), 0.014, style.metal, label)
    piece.tube((0, 0, height - 0.17), (0, 0, height), 0.12, _shade(rng), label, 0.08)
    return piece


def floor_lamp(style: Style, rng: np.random.Generator) -> Piece:
    """A standing lamp."""
    piece, label = Piece(style.edge), Nyu40.LAMP
    height = rng.uniform(1.45, 1.65)
    piece.tube((0, 0, 0), (0, 0, 0.03), 0.15, style.metal, label)
    piece.tube((0, 0, 0.03), (0, 0, height - 0.2), 0.015, style.metal, label)
    piece.tube((0, 0, height - 0.28), (0, 0, height), 0.21, _shade(rng), label, 0.15)
    return piece


def _shade(rng: np.random.Generator) -> Material:
    return materials.solid(materials.hsv(0.1, rng.uniform(0.05, 0.4), 0.95), emission=0.35)


def plant(style: Style, rng: np.random.Generator) -> Piece:
    """A potted plant of arching leaves."""
    piece, label = Piece(style.edge), Nyu40.OTHER_PROP
    radius, height = rng.uniform(0.13, 0.18), rng.uniform(0.25, 0.34)
    piece.tube((0, 0, 0), (0, 0, height), 0.75 * radius, materials.CLAY, label, radius)
    reach = rng.uniform(0.55, 0.85)
    for angle in np.arange(14) * 2.4:
        lean = rng.uniform(0.12, 0.42)
        along = np.linspace(0, 1, 7)
        out = lean * reach * along**1.5
        up = height - 0.02 + reach * along * np.sqrt(1 - (lean * along) ** 2) - 0.45 * lean * reach * along**3
        spine = np.stack([out * np.cos(angle), out * np.sin(angle), up], axis=-1)
        across = np.array([-np.sin(angle), np.cos(angle), 0]) * 0.055
        width = np.sin(np.pi * (0.1 + 0.88 * along))[:, None]
        points = np.stack([spine - across * width, spine, spine + across * width], axis=1)
        piece.add(geometry.patch(points), materials.LEAVES.shifted(rng), label)
    return piece


def vase(style: Style, rng: np.random.Generator) -> Piece:
    """A glazed vase."""
    piece = Piece(style.edge)
    glaze = materials.solid(materials.hsv(rng.random(), 0.6, 0.6), 0.6, 35.0)
    radius = rng.uniform(0.05, 0.07)
    profile = [(0.7 * radius, 0.0), (radius, 0.07), (0.9 * radius, 0.13), (0.4 * radius, 0.2), (0.6 * radius, 0.25)]
    piece.add(geometry.lathe(profile, (0, 0, 0), style.edge), glaze, Nyu40.OTHER_PROP)
    return piece


def bowl(style: Style, rng: np.random.Generator) -> Piece:
    """A bowl of fruit."""
    piece, label = Piece(style.edge), Nyu40.OTHER_PROP
    glaze = materials.solid(materials.hsv(rng.random(), 0.3, 0.85), 0.5, 35.0)
    outer = [(0.05, 0.0), (0.1, 0.03), (0.13, 0.07)]
    inner = [(0.125, 0.07), (0.09, 0.035), (0.0, 0.02)]
    piece.add(geometry.lathe(outer + inner, (0, 0, 0), style.edge), glaze, label)
    for angle in (0.3, 2.4, 4.5):
        x, y = 0.055 * np.cos(angle), 0.055 * np.sin(angle)
        fruit = materials.solid(materials.hsv(rng.choice([0.02, 0.08, 0.14, 0.27]), 0.8, 0.85), 0.2, 15.0)
        piece.cushion((x - 0.038, y - 0.038, 0.03), (x + 0.038, y + 0.038, 0.106), fruit, label, 2.0)
    return piece


def book(rng: np.random.Generator) -> Material:
    """A book's cover."""
    color = materials.hsv(rng.random(), rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.85))
    return materials.solid(color, 0.08, 12.0)


def book_stack(style: Style, rng: np.random.Generator) -> Piece:
    """A few books lying on each other."""
    piece, z = Piece(style.edge), 0.0
    for _ in range(int(rng.integers(2, 5))):
        thickness, half_x, half_y = rng.uniform(0.02, 0.04), rng.uniform(0.1, 0.14), rng.uniform(0.08, 0.1)
        piece.box((-half_x, -half_y, z), (half_x, half_y, z + thickness), book(rng), Nyu40.BOOKS)
        z += thickness
    return piece


def monitor(style: Style, rng: np.random.Generator) -> Piece:
    """A computer screen on a foot."""
    piece, label, frame = Piece(style.edge), Nyu40.OTHER_PROP, materials.BLACK_PLASTIC
    piece.box((-0.12, -0.08, 0), (0.12, 0.08, 0.015), frame, label)
    piece.box((-0.025, 0.0, 0.01), (0.025, 0.03, 0.14), frame, label)
    piece.box((-0.28, -0.015, 0.1), (0.28, 0.015, 0.44), frame, label)
    desktop = materials.hsv(rng.uniform(0.45, 0.7), 0.6, 0.5)
    glow = Material("screen", desktop, desktop, 0.26, 0.5, 60.0, 0.35, float(rng.integers(1, 60)))
    piece.add(geometry.rectangle((-0.26, -0.018, 0.12), (0.52, 0, 0), (0, 0, 0.3), style.edge), glow, label)
    return piece


def bin(style: Style, rng: np.random.Generator) -> Piece:
    """An open waste bin."""
    piece, label = Piece(style.edge), Nyu40.OTHER_FURNITURE
    plastic = materials.solid(materials.hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.25, 0.7)), 0.2, 20.0)
    height, radius = rng.uniform(0.3, 0.45), rng.uniform(0.13, 0.17)
    profile = [(0.8 * radius, 0.0), (radius, height), (radius - 0.01, height), (0.78 * radius, 0.02), (0.0, 0.02)]
    piece.add(geometry.lathe(profile, (0, 0, 0), style.edge), plastic, label)
    return piece


def cardboard_box(style: Style, rng: np.random.Generator) -> Piece:
    """A parcel with tape."""
    piece, label = Piece(style.edge), Nyu40.BOX
    size_x, size_y, height = rng.uniform(0.15, 0.25), rng.uniform(0.13, 0.2), rng.uniform(0.2, 0.4)
    board = Material("plain", (0.68, 0.52, 0.35), (0.6, 0.45, 0.3), 0.2, phase=rng.uniform(0, 64))
    piece.box((-size_x, -size_y, 0), (size_x, size_y, height), board, label)
    piece.box((-size_x - 0.002, -0.03, height - 0.08), (size_x + 0.002, 0.03, height + 0.003),
              materials.solid((0.8, 0.7, 0.5), 0.3, 20.0), label)
    return piece


def ottoman(style: Style, rng: np.random.Generator) -> Piece:
    """An upholstered footstool."""
    piece = Piece(style.edge)
    half = rng.uniform(0.22, 0.3)
    piece.cushion((-half, -half, 0.0), (half, half, rng.uniform(0.36, 0.44)), materials.fabric(rng),
                  Nyu40.OTHER_FURNITURE, 8.0)
    return piece

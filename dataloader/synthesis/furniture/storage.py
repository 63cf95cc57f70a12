"""Cabinets, wardrobes, bookshelves and refrigerators."""

from __future__ import annotations

import numpy as np

from dataloader.synthesis import materials
from dataloader.synthesis.furniture import props
from dataloader.synthesis.materials import Material
from dataloader.synthesis.piece import Nyu40, Piece, Style


def fronts(piece: Piece, borders: np.ndarray, low: float, high: float, y: float, material: Material,
           handle: Material, label: int) -> None:
    """Doors between the x ``borders`` from height ``low`` to ``high`` on the front plane ``y``, with handles."""
    for index, (start, stop) in enumerate(zip(borders[:-1], borders[1:], strict=True)):
        piece.box((start + 0.008, y - 0.02, low + 0.008), (stop - 0.008, y, high - 0.008), material, label)
        x = stop - 0.06 if index % 2 == 0 else start + 0.06
        middle = (low + high) / 2
        piece.tube((x, y - 0.04, middle - 0.07), (x, y - 0.04, middle + 0.07), 0.01, handle, label)


def cabinet(style: Style, rng: np.random.Generator) -> Piece:
    """A sideboard: doors below a row of drawers."""
    piece, label = Piece(style.edge), Nyu40.CABINET
    width, depth, height = rng.uniform(0.9, 1.5), rng.uniform(0.4, 0.5), rng.uniform(0.8, 1.15)
    half, front, back = width / 2, -depth / 2, depth / 2
    body, door = (style.wood, style.wood.shifted(rng)) if rng.random() < 0.6 else (style.paint, style.paint)
    piece.box((-half, front, 0.06), (half, back, height), body, label)
    piece.box((-half - 0.015, front - 0.03, height), (half + 0.015, back, height + 0.025), body, label)
    borders = np.linspace(-half, half, max(2, round(width / 0.45)) + 1)
    fronts(piece, borders, 0.08, height - 0.2, front, door, style.metal, label)
    for start, stop in zip(borders[:-1], borders[1:], strict=True):
        piece.box((start + 0.01, front - 0.02, height - 0.19), (stop - 0.01, front, height - 0.02), door, label)
        x = (start + stop) / 2
        piece.tube((x - 0.05, front - 0.035, height - 0.1), (x + 0.05, front - 0.035, height - 0.1), 0.01,
                   style.metal, label)
    decoration = props.vase if rng.random() < 0.5 else props.book_stack
    piece.merge(decoration(style, rng), (rng.uniform(-0.3, 0.3), 0, height + 0.025))
    return piece


def wardrobe(style: Style, rng: np.random.Generator) -> Piece:
    """A tall cupboard with full-height doors."""
    piece, label = Piece(style.edge), Nyu40.CABINET
    width, depth, height = rng.uniform(1.0, 1.5), 0.58, rng.uniform(1.9, 2.1)
    body = style.paint if rng.random() < 0.5 else style.wood
    piece.box((-width / 2, -depth / 2, 0.0), (width / 2, depth / 2, height), body, label)
    borders = np.linspace(-width / 2, width / 2, max(2, round(width / 0.5)) + 1)
    fronts(piece, borders, 0.06, height - 0.03, -depth / 2, body.shifted(rng), style.metal, label)
    return piece


def bookshelf(style: Style, rng: np.random.Generator) -> Piece:
    """Open shelves filled with standing books."""
    piece, label = Piece(style.edge), Nyu40.BOOKSHELF
    width, depth, levels = rng.uniform(0.8, 1.2), rng.uniform(0.28, 0.34), int(rng.integers(4, 6))
    height = 0.08 + levels * rng.uniform(0.34, 0.38)
    half, front, back, board = width / 2, -depth / 2, depth / 2, 0.025
    frame = style.wood.shifted(rng)
    piece.box((-half, back - 0.015, 0), (half, back, height), frame, label)
    for x in (-half, half - board):
        piece.box((x, front, 0), (x + board, back - 0.015, height), frame, label)
    heights = np.linspace(0.06, height - board, levels + 1)
    for z in heights:
        piece.box((-half + board, front + 0.005, z), (half - board, back - 0.015, z + board), frame, label)
    for z in heights[:-1]:
        _row_of_books(piece, rng, -half + board + 0.01, half - board - 0.01, front + 0.04, z + board,
                      heights[1] - heights[0] - board)
    return piece


def _row_of_books(piece: Piece, rng: np.random.Generator, x: float, end: float, front: float, z: float,
                  room: float) -> None:
    end -= rng.choice([0.0, 0.0, rng.uniform(0.1, 0.4)])
    while True:
        thickness = rng.uniform(0.022, 0.06)
        if x + thickness > end:
            return
        if rng.random() < 0.04:
            x += rng.uniform(0.04, 0.12)
            continue
        height, depth = room * rng.uniform(0.6, 0.92), rng.uniform(0.14, 0.19)
        piece.box((x, front, z), (x + thickness - 0.002, front + depth, z + height), props.book(rng), Nyu40.BOOKSHELF)
        x += thickness


def refrigerator(style: Style, rng: np.random.Generator) -> Piece:
    """A fridge-freezer with two doors, long handles and magnets."""
    piece, label = Piece(style.edge), Nyu40.REFRIGERATOR
    width, depth, height = rng.uniform(0.6, 0.75), rng.uniform(0.62, 0.7), rng.uniform(1.65, 1.85)
    half, front, back = width / 2, -depth / 2, depth / 2
    shell = style.metal if rng.random() < 0.5 else materials.solid((0.92, 0.93, 0.93), 0.45, 30.0)
    piece.box((-half, front + 0.06, 0.0), (half, back, height), shell, label)
    split = height * (0.36 if rng.random() < 0.5 else 0.66)
    for low, high in ((0.06, split - 0.008), (split + 0.008, height - 0.005)):
        piece.box((-half + 0.004, front, low), (half - 0.004, front + 0.052, high), shell, label)
    for low, high in ((split - 0.4, split - 0.06), (split + 0.06, split + 0.4)):
        piece.tube((-half + 0.07, front - 0.035, low), (-half + 0.07, front - 0.035, high), 0.014, style.metal, label)
    for _ in range(int(rng.integers(0, 4))):
        x, z = rng.uniform(-0.05, half - 0.12), rng.uniform(split + 0.08, height - 0.15)
        note = materials.solid(materials.hsv(rng.random(), 0.35, 0.9))
        piece.box((x, front - 0.004, z), (x + 0.09, front, z + 0.1), note, Nyu40.OTHER_PROP)
    return piece

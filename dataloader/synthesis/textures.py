"""Procedural textures, evaluated at surface points in metres.

A pattern is a function of texture coordinates ``u, v`` [N] and one row of material values a point; it returns
display colours [N, 3]. Everything is NumPy element by element, so that the bytes do not depend on threads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dataloader.synthesis.materials import MaterialTable

NOISE_SIZE = 256
NOISE_CELLS_PER_UNIT = 16


class Rows(NamedTuple):
    """Material values, one row a point."""

    color: np.ndarray  # [N, 3]
    color2: np.ndarray  # [N, 3]
    scale: np.ndarray  # [N]
    phase: np.ndarray  # [N]


@lru_cache(maxsize=1)
def _noise_table() -> np.ndarray:
    """Tileable fractal noise [NOISE_SIZE * NOISE_SIZE] float32, evenly spread over 0..1."""
    white = np.random.default_rng(2012).standard_normal((NOISE_SIZE, NOISE_SIZE))
    frequency = np.fft.fftfreq(NOISE_SIZE) * NOISE_SIZE
    magnitude = np.hypot(*np.meshgrid(frequency, frequency))
    amplitude = np.where(magnitude > 3, np.maximum(magnitude, 1) ** -1.3, 0)
    field = np.fft.ifft2(np.fft.fft2(white) * amplitude).real
    rank = np.empty(field.size, dtype=np.float32)
    rank[np.argsort(field.ravel(), kind="stable")] = np.linspace(0, 1, field.size, dtype=np.float32)
    return rank


def noise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise in 0..1 whose coarsest features are about one unit wide; repeats every 16 units."""
    table = _noise_table()
    x, y = x * NOISE_CELLS_PER_UNIT, y * NOISE_CELLS_PER_UNIT
    x_floor, y_floor = np.floor(x), np.floor(y)
    x_part, y_part = x - x_floor, y - y_floor
    mask = NOISE_SIZE - 1
    x0, y0 = x_floor.astype(np.int32) & mask, (y_floor.astype(np.int32) & mask) * NOISE_SIZE
    x1, y1 = (x0 + 1) & mask, (y0 + NOISE_SIZE) & (mask * NOISE_SIZE)
    top = table[y0 + x0] * (1 - x_part) + table[y0 + x1] * x_part
    bottom = table[y1 + x0] * (1 - x_part) + table[y1 + x1] * x_part
    return top * (1 - y_part) + bottom * y_part


def scatter(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A pseudo-random number in 0..1 for each integer cell (x, y)."""
    x, y = x.astype(np.int64).astype(np.uint32), y.astype(np.int64).astype(np.uint32)
    state = x * np.uint32(0x9E3779B1) ^ y * np.uint32(0x85EBCA77)
    state = (state ^ (state >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    state = state ^ (state >> np.uint32(12))
    return (state & np.uint32(0xFFFF)).astype(np.float32) / np.float32(0xFFFF)


def _mix(rows: Rows, share: np.ndarray) -> np.ndarray:
    return rows.color + (rows.color2 - rows.color) * share[:, None]


def _plain(u, v, rows):
    return _mix(rows, noise(u / rows.scale * 0.25 + rows.phase, v / rows.scale * 0.25))


def _wood(u, v, rows):
    streak = noise(u / rows.scale * 0.35 + rows.phase, v / rows.scale * 0.03 + rows.phase * 0.7)
    return _mix(rows, streak)


def _planks(u, v, rows):
    board = np.floor(u / rows.scale)
    shift = scatter(board, rows.phase)
    length = v / (rows.scale * 8) + shift
    piece = np.floor(length)
    grain = noise(u / rows.scale * 0.8 + rows.phase + piece, length * 2 + board * 3.7)
    seam_u = np.abs(u / rows.scale - board - 0.5) > 0.475
    seam_v = np.abs(length - piece - 0.5) > 0.495
    brightness = 0.85 + 0.3 * scatter(board, piece)
    return _mix(rows, 0.7 * grain) * np.where(seam_u | seam_v, 0.6, brightness)[:, None]


def _tiles(u, v, rows):
    column, row = np.floor(u / rows.scale), np.floor(v / rows.scale)
    groove = np.maximum(np.abs(u / rows.scale - column - 0.5), np.abs(v / rows.scale - row - 0.5)) > 0.47
    brightness = 0.94 + 0.08 * scatter(column + np.floor(rows.phase), row)
    return np.where(groove[:, None], rows.color2, rows.color * brightness[:, None])


def _checks(u, v, rows):
    odd = (np.floor(u / rows.scale) + np.floor(v / rows.scale)) % 2
    grain = 0.94 + 0.1 * noise(u * 1.5 + rows.phase, v * 1.5)
    return _mix(rows, odd) * grain[:, None]


def _stripes(u, v, rows):
    return _mix(rows, (np.floor(u / rows.scale + rows.phase) % 2) * (0.9 + 0.1 * noise(u, v)))


def _dots(u, v, rows):
    row = np.floor(v / rows.scale)
    x = u / rows.scale + 0.5 * (row % 2)
    distance = (x - np.floor(x) - 0.5) ** 2 + (v / rows.scale - row - 0.5) ** 2
    return _mix(rows, (distance < 0.09).astype(np.float32))


def _weave(u, v, rows):
    coarse = noise(u / rows.scale * 0.15 + rows.phase, v / rows.scale * 0.15)
    fine = noise(u * 6 + rows.phase, v * 6)
    return _mix(rows, 0.55 * coarse + 0.45 * fine)


def _marble(u, v, rows):
    warp = noise(u / rows.scale * 0.4 + rows.phase, v / rows.scale * 0.4)
    vein = np.abs(np.sin(u / rows.scale * 3 + 9 * warp))
    return _mix(rows, (1 - vein) ** 2 * 0.9 + 0.25 * noise(u * 5, v * 5 + rows.phase))


def _brushed(u, v, rows):
    return _mix(rows, noise(u * 0.7 + rows.phase, v * 9))


def _landscape(u, v, rows):
    """A painting: sky, hills and a sun; ``scale`` is half the picture's height."""
    x, y = u / rows.scale, v / rows.scale
    ridge = noise(x * 0.4 + rows.phase, rows.phase) * 1.2 - 0.7
    near = noise(x * 0.25 + rows.phase * 2, rows.phase + 5) * 0.9 - 0.95
    sky = np.float32([0.95, 0.8, 0.6]) + (rows.color - np.float32([0.95, 0.8, 0.6])) * (0.5 + 0.5 * y)[:, None]
    sun = (x - np.sin(rows.phase) * 0.6) ** 2 + (y - 0.45) ** 2 < 0.05
    result = np.where(sun[:, None], np.float32([1.0, 0.93, 0.6]), sky)
    result = np.where((y < ridge)[:, None], rows.color2, result)
    return np.where((y < near)[:, None], rows.color2 * 0.55, result)


def _blocks(u, v, rows):
    """An abstract painting: fields of colour between black bars."""
    size = rows.scale * 0.55
    x, y = u / size + rows.phase, v / size + rows.phase * 1.7
    wide = np.floor(x + 0.35 * scatter(np.floor(y), rows.phase))
    bar = np.minimum(np.abs(x - np.round(x)), np.abs(y - np.round(y))) < 0.05
    pick = scatter(wide, np.floor(y) + 7)
    field = np.where((pick < 0.4)[:, None], np.float32([0.93, 0.91, 0.85]),
                     np.where((pick < 0.7)[:, None], rows.color, rows.color2))
    return np.where(bar[:, None], np.float32([0.08, 0.08, 0.08]), field)


def _outdoors(u, v, rows):
    """What is seen through a window: bright sky, clouds, trees; ``scale`` is half the window's height."""
    x, y = u / rows.scale, v / rows.scale
    cloud = np.clip(noise(x * 0.5 + rows.phase, y * 1.1) * 1.6 - 0.6, 0, 1)
    sky = rows.color + (1 - rows.color) * cloud[:, None]
    tree = noise(x * 0.9 + rows.phase * 3, rows.phase) * 0.9 - 0.75
    leaf = rows.color2 * (0.7 + 0.6 * noise(x * 3, y * 3 + rows.phase))[:, None]
    return np.where((y < tree)[:, None], leaf, sky)


def _screen(u, v, rows):
    """A monitor: windows with lines of text on a coloured desktop."""
    line = np.floor(v / 0.022)
    width = 0.12 * scatter(line, rows.phase)
    text = (np.abs(u + 0.06) < width) & (v / 0.022 - line > 0.45)
    page = (np.abs(u) < rows.scale * 0.9) & (np.abs(v) < rows.scale * 0.55)
    paper = np.where(text[:, None], np.float32([0.2, 0.25, 0.4]), np.float32([0.92, 0.93, 0.95]))
    return np.where(page[:, None], paper, rows.color)


PATTERNS = {
    "plain": _plain,
    "wood": _wood,
    "planks": _planks,
    "tiles": _tiles,
    "checks": _checks,
    "stripes": _stripes,
    "dots": _dots,
    "weave": _weave,
    "marble": _marble,
    "brushed": _brushed,
    "landscape": _landscape,
    "blocks": _blocks,
    "outdoors": _outdoors,
    "screen": _screen,
}


def albedo(table: MaterialTable, material: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Diffuse display colour [N, 3] float32 in 0..1 of materials [N] at texture coordinates [N, 2] metres."""
    names = sorted(set(table.pattern))
    pattern = np.array([names.index(name) for name in table.pattern], dtype=np.int8)[material]
    result = np.empty((len(material), 3), dtype=np.float32)
    for index in np.flatnonzero(np.bincount(pattern, minlength=len(names))):
        at = np.flatnonzero(pattern == index)
        chosen = np.take(material, at)
        rows = Rows(*(np.take(column, chosen, axis=0)
                      for column in (table.color, table.color2, table.scale, table.phase)))
        points = np.take(uv, at, axis=0).astype(np.float32, copy=False)
        result[at] = PATTERNS[names[index]](points[:, 0], points[:, 1], rows)
    return np.clip(result, 0, 1)

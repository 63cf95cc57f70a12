"""Tessellated surfaces from which furniture is built.

A surface is a grid of points ``[R, C, 3]`` (rows run along v, columns along u). Its normals are
``dP/du x dP/dv``, its triangles are wound the same way, and no cell is longer than ``edge`` metres.
Closed curves run counter-clockwise seen from above and repeat their first point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Surface:
    """Triangles with per-vertex normals and texture coordinates."""

    vertices: np.ndarray  # [N, 3] float64, metres
    normals: np.ndarray  # [N, 3] float64, unit
    uv: np.ndarray  # [N, 2] float64, metres along the surface
    faces: np.ndarray  # [F, 3] int64

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> Surface:
        """The surface under x -> rotation @ x + translation; texture coordinates stay with it."""
        vertices = _rotate(self.vertices, rotation) + np.asarray(translation, dtype=np.float64)
        return Surface(vertices, _rotate(self.normals, rotation), self.uv, self.faces)


def _rotate(vectors: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """rotation @ vector without BLAS, whose sums may depend on its number of threads."""
    return (vectors[:, None, :] * np.asarray(rotation, dtype=np.float64)[None]).sum(axis=-1)


def axis_rotation(axis: int, angle: float) -> np.ndarray:
    """3x3 rotation by ``angle`` radians about coordinate axis 0, 1 or 2."""
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation[i, i] = rotation[j, j] = cosine
    rotation[i, j], rotation[j, i] = -sine, sine
    return rotation


def cells(length: float, edge: float) -> int:
    """Number of cells no longer than ``edge`` that divide ``length``."""
    return max(1, int(np.ceil(length / edge - 1e-9)))


def merged(surfaces: list[Surface]) -> Surface:
    """Several surfaces as one, without welding their vertices."""
    offsets = np.cumsum([0] + [len(surface.vertices) for surface in surfaces])
    return Surface(
        np.concatenate([surface.vertices for surface in surfaces]),
        np.concatenate([surface.normals for surface in surfaces]),
        np.concatenate([surface.uv for surface in surfaces]),
        np.concatenate([s.faces + offset for s, offset in zip(surfaces, offsets, strict=False)]),
    )


def patch(points: np.ndarray, normals: np.ndarray | None = None, uv: np.ndarray | None = None) -> Surface:
    """The surface through a grid of points [R, C, 3]; normals by differences, uv by arc length if not given."""
    rows, columns = points.shape[:2]
    if normals is None:
        normals = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    if uv is None:
        along_u = np.linalg.norm(np.diff(points, axis=1), axis=-1).max(axis=0)
        along_v = np.linalg.norm(np.diff(points, axis=0), axis=-1).max(axis=1)
        u, v = np.concatenate([[0], np.cumsum(along_u)]), np.concatenate([[0], np.cumsum(along_v)])
        uv = np.stack(np.meshgrid(u, v), axis=-1)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return Surface(points.reshape(-1, 3), normals.reshape(-1, 3), uv.reshape(-1, 2), faces)


def rectangle(origin, u, v, edge: float, along: int = 1) -> Surface:
    """The parallelogram origin + [0, 1] u + [0, 1] v; uv in metres from its centre.

    ``along`` = 1 lays the texture's v along ``v``, 0 lays it along ``u`` (wood grain follows v).
    """
    origin, u, v = (np.asarray(x, dtype=np.float64) for x in (origin, u, v))
    width, height = np.linalg.norm(u), np.linalg.norm(v)
    s, t = np.meshgrid(
        np.linspace(0, 1, cells(width, edge) + 1), np.linspace(0, 1, cells(height, edge) + 1)
    )
    points = origin + s[..., None] * u + t[..., None] * v
    normals = np.broadcast_to(np.cross(u, v), points.shape)
    uv = np.stack([(s - 0.5) * width, (t - 0.5) * height], axis=-1)
    return patch(points, normals, uv if along == 1 else uv[..., ::-1])


def box(low, high, edge: float) -> Surface:
    """An axis-aligned box seen from outside; the texture's v follows its longest side."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    size = high - low
    x, y, z = np.diag(size)
    longest = int(np.argmax(size))
    sides = [
        ((high[0], low[1], low[2]), y, z, 1),
        ((low[0], high[1], low[2]), -y, z, 1),
        ((high[0], high[1], low[2]), -x, z, 0),
        ((low[0], low[1], low[2]), x, z, 0),
        ((low[0], low[1], high[2]), x, y, 0),
        ((low[0], high[1], low[2]), x, -y, 0),
    ]
    return merged(
        [rectangle(origin, u, v, edge, along=0 if axis_of_u == longest else 1) for origin, u, v, axis_of_u in sides]
    )


def cushion(low, high, edge: float, exponent: float = 6.0) -> Surface:
    """A box with rounded edges: the superellipsoid |x/a|^n + |y/b|^n + |z/c|^n = 1 (n = 2: an ellipsoid)."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    half, centre = (high - low) / 2, (high + low) / 2
    cube = box(-half, half, edge)
    unit = cube.vertices / half
    unit = unit / (np.abs(unit) ** exponent).sum(axis=1, keepdims=True) ** (1 / exponent)
    normals = np.sign(unit) * np.abs(unit) ** (exponent - 1) / half
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    return Surface(centre + unit * half, normals, cube.uv, cube.faces)


def curve_of(count: int, centre, half_x: float, half_y: float, exponent: float = np.inf) -> np.ndarray:
    """A superellipse [count + 1, 3] in the plane z = centre[2]; exponent inf is a rectangle, 2 an ellipse.

    A ``count`` that is a multiple of 8 hits a rectangle's corners.
    """
    angle = np.linspace(0, 2 * np.pi, count + 1)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    if np.isinf(exponent):
        radius = 1 / np.abs(direction).max(axis=1)
    else:
        radius = (np.abs(direction) ** exponent).sum(axis=1) ** (-1 / exponent)
    flat = direction * radius[:, None] * (half_x, half_y)
    return np.concatenate([flat, np.zeros((count + 1, 1))], axis=1) + np.asarray(centre, dtype=np.float64)


def loft(curves: list[np.ndarray], edge: float) -> Surface:
    """The surface through closed curves [K, 3] of equal length, one after the other along v."""
    rows = [curves[0][None]]
    for start, stop in zip(curves[:-1], curves[1:], strict=True):
        count = cells(float(np.linalg.norm(stop - start, axis=1).max()), edge)
        share = np.linspace(0, 1, count + 1)[1:, None, None]
        rows.append(start + share * (stop - start))
    points = np.concatenate(rows)
    if len(curves) == 2:  # one flat or conical band: differences across it would be poor at its ends
        normals = np.cross(np.gradient(points, axis=1), np.broadcast_to(curves[1] - curves[0], points.shape))
        return patch(points, normals)
    return patch(points)


def disk(curve: np.ndarray, edge: float) -> Surface:
    """The flat inside of a closed curve, facing up."""
    centre = curve[:-1].mean(axis=0)
    surface = loft([curve, centre + 1e-3 * (curve - centre)], edge)
    return Surface(surface.vertices, np.broadcast_to((0.0, 0.0, 1.0), surface.vertices.shape).copy(),
                   surface.vertices[:, :2] - centre[:2], surface.faces)


def lathe(profile, centre, edge: float, scale=(1.0, 1.0), exponent: float = 2.0) -> Surface:
    """A solid of revolution about z: ``profile`` [(radius, height), ...] from the bottom up, seen from outside."""
    widest = max(radius for radius, _ in profile) * max(scale)
    count = 8 * max(1, cells(2 * np.pi * widest, 8 * edge))
    x, y, z = centre
    curves = [
        curve_of(count, (x, y, z + height), max(radius, 1e-4) * scale[0], max(radius, 1e-4) * scale[1], exponent)
        for radius, height in profile
    ]
    return loft(curves, edge)


def tube(start, stop, radius: float, edge: float, end_radius: float | None = None) -> Surface:
    """A capped cylinder or cone frustum from ``start`` to ``stop``."""
    start, stop = np.asarray(start, dtype=np.float64), np.asarray(stop, dtype=np.float64)
    end_radius = radius if end_radius is None else end_radius
    axis = stop - start
    length = float(np.linalg.norm(axis))
    side = lathe([(radius, 0.0), (end_radius, length)], (0, 0, 0), edge)
    count = 8 * max(1, cells(2 * np.pi * max(radius, end_radius), 8 * edge))
    top = disk(curve_of(count, (0, 0, length), end_radius, end_radius, 2.0), edge)
    bottom = disk(curve_of(count, (0, 0, 0), radius, radius, 2.0), edge)
    bottom = bottom.moved(np.diag([1.0, -1.0, -1.0]), (0, 0, 0))
    return merged([side, top, bottom]).moved(_rotation_from_z(axis / length), start)


def _rotation_from_z(direction: np.ndarray) -> np.ndarray:
    """A rotation that takes +z to the unit vector ``direction``."""
    helper = np.array([1.0, 0, 0]) if abs(direction[0]) < 0.9 else np.array([0, 1.0, 0])
    x = np.cross(helper, direction)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(direction, x), direction], axis=1)

"""Points spread over triangles so densely that no part of the surface is far from one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SurfacePoints:
    """Points on triangles.

    Attributes:
        points: float64 ``[P, 3]``.
        face: int64 ``[P]``, the triangle that each lies on.
        weight: float64 ``[P]``, square metres that each stands for; they add up to the surface's area.
        reach: metres; no point of the surface is farther from the nearest of ``points``.
    """

    points: np.ndarray
    face: np.ndarray
    weight: np.ndarray
    reach: float


def face_areas(
    corners: np.ndarray,  # float64 [F, 3, 3]
) -> np.ndarray:  # float64 [F]
    """Areas of triangles, square metres."""
    return np.linalg.norm(area_vectors(corners), axis=1)


def area_vectors(
    corners: np.ndarray,  # float64 [F, 3, 3]
) -> np.ndarray:  # float64 [F, 3]
    """Normals of triangles with their areas as length."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2


def spread_points(
    corners: np.ndarray,  # float64 [F, 3, 3], triangles
    spacing: float,
) -> SurfacePoints:
    """Lattices over the triangles, corners included, whose small triangles have edges of at most ``spacing`` metres.

    A point inside a triangle is nearer to one of its corners than the longest edge over the root of 3, so that is the
    reach. Triangles are in their order, and the points of one do not depend on the others.
    """
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1) if len(corners) else np.zeros(0)
    divisions = np.maximum(1, np.ceil(longest / spacing)).astype(np.int64)
    areas = face_areas(corners)
    points, faces, weights = [np.zeros((0, 3))], [np.zeros(0, np.int64)], [np.zeros(0)]
    for count in np.unique(divisions):
        chosen = np.flatnonzero(divisions == count)
        first, second = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        inside = first + second <= count
        lattice = np.stack((first[inside], second[inside], count - first[inside] - second[inside]), axis=1) / count
        points.append(np.einsum("pk,fkx->fpx", lattice, corners[chosen]).reshape(-1, 3))
        faces.append(np.repeat(chosen, len(lattice)))
        weights.append(np.repeat(areas[chosen] / len(lattice), len(lattice)))
    face = np.concatenate(faces)
    order = np.argsort(face, kind="stable")
    return SurfacePoints(
        np.concatenate(points)[order], face[order], np.concatenate(weights)[order], spacing / math.sqrt(3)
    )

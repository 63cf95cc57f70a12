"""View-independent lighting, computed once per vertex.

Each light is a few points with a shadow cube rendered by the rasterizer, which gives soft shadows. Indirect
light is approximated by points scattered through the room: surfaces visible from few of them, in corners or under
furniture, are darker (ambient occlusion).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dataloader.synthesis import textures
from dataloader.synthesis.room import Room
from lib.raster import rasterize

CUBE_SIZE = 96
AMBIENT_POINTS = 20
AMBIENT_STRENGTH = 1.3
BOUNCED_TWICE = 0.08  # constant ambient light
SURFACE_OFFSET = 0.03  # metres a vertex is lifted off its surface before it is tested for shadow
TARGET_LUMINANCE = 0.38  # mean of linear light that the exposure aims at

# right, down, forward of the six cameras of a cube, in world axes
_CUBE_AXES = np.array([
    [[0, -1, 0], [0, 0, -1], [1, 0, 0]],
    [[0, 1, 0], [0, 0, -1], [-1, 0, 0]],
    [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
    [[-1, 0, 0], [0, 0, -1], [0, -1, 0]],
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
], dtype=np.float32)


@dataclass(frozen=True)
class Illumination:
    """Light at the vertices of a room."""

    irradiance: np.ndarray  # [N, 3] float32, scaled by the exposure
    visibility: np.ndarray  # [N, L] float32, share of each light that is seen
    positions: np.ndarray  # [L, 3] float32
    colors: np.ndarray  # [L, 3] float32, scaled by strength and exposure
    ambient: np.ndarray  # [3] float32, mean irradiance


def illuminate(room: Room, rng: np.random.Generator) -> Illumination:
    """Irradiance and shadows of all vertices."""
    visibility = np.zeros((len(room.vertices), len(room.lights)), dtype=np.float32)
    irradiance = np.zeros((len(room.vertices), 3), dtype=np.float32)
    for index, light in enumerate(room.lights):
        for point in light.points.astype(np.float32):
            seen = _visible(room, point) / np.float32(len(light.points))
            visibility[:, index] += seen
            weight = seen * _falling(room, point) * np.float32(light.strength)
            irradiance += weight[:, None] * np.float32(light.color)
    tint = np.mean([light.color for light in room.lights], axis=0).astype(np.float32)
    size = np.array(room.size)
    points = (0.12 + 0.76 * rng.random((AMBIENT_POINTS, 3))) * size
    points[:, 2] = rng.uniform(0.7, size[2] - 0.25, AMBIENT_POINTS)
    ambient = sum(_visible(room, point) * _falling(room, point) for point in points.astype(np.float32))
    irradiance += (AMBIENT_STRENGTH / AMBIENT_POINTS * ambient + BOUNCED_TWICE)[:, None] * tint
    return _exposed(room, irradiance, visibility)


def _exposed(room: Room, irradiance: np.ndarray, visibility: np.ndarray) -> Illumination:
    albedo = textures.albedo(room.materials, room.material, room.uv) ** 2
    lit = irradiance.mean(axis=1) > 0.25 * np.median(irradiance)
    exposure = np.float32(TARGET_LUMINANCE / (albedo * irradiance)[lit].mean())
    return Illumination(
        irradiance * exposure,
        visibility,
        np.array([light.points.mean(axis=0) for light in room.lights], dtype=np.float32),
        np.array([light.strength * np.array(light.color) for light in room.lights], dtype=np.float32) * exposure,
        (irradiance[lit] * exposure).mean(axis=0),
    )


def _falling(room: Room, point: np.ndarray) -> np.ndarray:
    """Lambert's cosine times the fall-off with distance of a light at ``point`` [3]: [N]."""
    offset = point - room.vertices
    squared = (offset * offset).sum(axis=1)
    cosine = (offset * room.normals).sum(axis=1) / np.sqrt(squared + 1e-6)
    return np.maximum(cosine, 0) / (0.25 + 0.25 * squared)


def _visible(room: Room, point: np.ndarray) -> np.ndarray:
    """Visibility of each vertex from ``point``, 0..1 float32 [N] (bilinear over the shadow map's texels)."""
    cameras = torch.zeros(6, 4, 4)
    cameras[:, :3, :3] = torch.from_numpy(_CUBE_AXES)
    cameras[:, :3, 3] = torch.from_numpy(-(_CUBE_AXES * point).sum(axis=-1))
    cameras[:, 3, 3] = 1
    half = CUBE_SIZE / 2
    intrinsics = torch.tensor([[half, 0, half], [0, half, half], [0, 0, 1]]).expand(6, 3, 3)
    fragments = rasterize(torch.from_numpy(room.vertices), torch.from_numpy(room.faces), cameras, intrinsics,
                          CUBE_SIZE, CUBE_SIZE)
    depth = fragments.depth.numpy()
    depth = np.where(depth > 0, depth, np.inf).astype(np.float32).ravel()

    offset = room.vertices + np.float32(SURFACE_OFFSET) * room.normals - point
    axis = np.abs(offset).argmax(axis=1)
    distance = np.abs(np.take_along_axis(offset, axis[:, None], axis=1))[:, 0]
    side = axis * 2 + (np.take_along_axis(offset, axis[:, None], axis=1)[:, 0] < 0)
    frame = _CUBE_AXES[side]
    scale = half / np.maximum(distance, 1e-6)
    u = (frame[:, 0] * offset).sum(axis=1) * scale + np.float32(half - 0.5)
    v = (frame[:, 1] * offset).sum(axis=1) * scale + np.float32(half - 0.5)
    limit = distance * np.float32(0.985) - np.float32(0.02)
    left, top = np.floor(u), np.floor(v)
    result = np.zeros(len(u), dtype=np.float32)
    for du in (0, 1):
        for dv in (0, 1):
            weight = (1 - np.abs(u - left - du)) * (1 - np.abs(v - top - dv))
            column = np.clip(left + du, 0, CUBE_SIZE - 1).astype(np.int64)
            row = np.clip(top + dv, 0, CUBE_SIZE - 1).astype(np.int64)
            result += weight * (depth[(side * CUBE_SIZE + row) * CUBE_SIZE + column] > limit)
    return result

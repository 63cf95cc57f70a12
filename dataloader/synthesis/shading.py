"""The colour that a camera sees: diffuse light, highlights (Blinn-Phong) and a simple reflection of the room."""

from __future__ import annotations

import numpy as np

from dataloader.synthesis import textures
from dataloader.synthesis.lighting import Illumination
from dataloader.synthesis.room import Room

CHUNK = 32768  # points shaded at a time: their intermediates fit a core's cache


class Shader:
    """Shades points on a room's surface; safe to share between threads."""

    def __init__(self, room: Room, light: Illumination):
        self._room, self._light = room, light
        self._attributes = np.concatenate([room.normals, room.uv, light.irradiance, light.visibility], axis=1)
        self._face_material = room.material[room.faces[:, 0]]

    def __call__(self, face: np.ndarray, barycentric: np.ndarray, eye: np.ndarray) -> np.ndarray:
        """Light in 0..1, linear, float32 [P, 3], of points on faces [P] (-1: nothing, black) seen from ``eye`` [3]."""
        result = np.zeros((len(face), 3), dtype=np.float32)
        eye = eye.astype(np.float32)
        for start in range(0, len(face), CHUNK):
            part = slice(start, start + CHUNK)
            hit = np.flatnonzero(face[part] >= 0)
            result[start + hit] = self._shade(face[part][hit], barycentric[part][hit], eye)
        return result

    def material_of(self, face: np.ndarray) -> np.ndarray:
        """Row of the material table of faces (any shape)."""
        return self._face_material[face]

    def _shade(self, face: np.ndarray, barycentric: np.ndarray, eye: np.ndarray) -> np.ndarray:
        corners, table = self._room.faces[face], self._room.materials
        values = _interpolated(self._attributes, corners, barycentric)
        normal, uv, irradiance, visibility = values[:, :3], values[:, 3:5], values[:, 5:8], values[:, 8:]
        material = self._face_material[face]
        albedo = textures.albedo(table, material, uv) ** 2
        color = albedo * (irradiance + table.emission[material][:, None])
        glossy = np.flatnonzero(table.gloss[material] > 0)
        if glossy.size:
            point = _interpolated(self._room.vertices, corners[glossy], barycentric[glossy])
            color[glossy] += self._gloss(point, normal[glossy], visibility[glossy], material[glossy], eye)
        return color / (1 + color) * (1 + color / 6)

    def _gloss(self, point, normal, visibility, material, eye) -> np.ndarray:
        table, light = self._room.materials, self._light
        view = _unit(eye - point)
        normal = _unit(normal)
        facing = _dot(view, normal)
        normal, facing = np.where(facing[:, None] < 0, -normal, normal), np.abs(facing)
        gloss, shininess = table.gloss[material], table.shininess[material]
        strength = gloss * (shininess + 8) / 20
        result = np.zeros_like(point)
        for index, position in enumerate(light.positions):
            offset = position - point
            squared = _dot(offset, offset)
            toward = offset / np.sqrt(squared)[:, None]
            half = np.maximum(_dot(_unit(toward + view), normal), 0)
            amount = strength * half**shininess * visibility[:, index] / (0.25 + 0.25 * squared) * 0.3
            result += amount[:, None] * light.colors[index]
        fresnel = gloss * (0.12 + 0.6 * (1 - facing) ** 4)
        mirrored = 2 * facing * normal[:, 2] - view[:, 2]
        result += (fresnel * (0.45 + 0.4 * mirrored))[:, None] * light.ambient
        return result


def _interpolated(values: np.ndarray, corners: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Vertex values [N, C] at points [P, C] of triangles ``corners`` [P, 3]."""
    result = np.take(values, corners[:, 0], axis=0)
    result *= barycentric[:, :1]
    for k in (1, 2):
        corner = np.take(values, corners[:, k], axis=0)
        corner *= barycentric[:, k : k + 1]
        result += corner
    return result


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Row by row, [P]; as three products, which NumPy does faster than sums over rows of three."""
    return first[:, 0] * second[:, 0] + first[:, 1] * second[:, 1] + first[:, 2] * second[:, 2]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.maximum(_dot(vectors, vectors), 1e-12))[:, None]

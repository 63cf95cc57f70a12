"""A closed, furnished room as a triangle mesh, made in code: what the rasterizer's benchmark looks at."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from utils.cameras import look_at, rigid_inverse

ROOM = np.array([7.0, 5.0, 2.8])  # metres


def box_surface(size: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """A closed box from the origin to ``size`` in cells of about ``cell`` metres: vertices, faces."""
    counts = np.maximum(1, np.round(size / cell)).astype(int)
    vertices, faces, total = [], [], 0
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for side in (0, counts[axis]):
            grid = np.zeros((counts[u] + 1, counts[v] + 1, 3), dtype=np.int64)
            grid[..., axis] = side
            grid[..., u], grid[..., v] = np.meshgrid(
                np.arange(counts[u] + 1), np.arange(counts[v] + 1), indexing="ij"
            )
            index = np.arange(grid[..., 0].size).reshape(grid.shape[:2]) + total
            a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
            faces += [np.stack((a, b, c), -1).reshape(-1, 3), np.stack((a, c, d), -1).reshape(-1, 3)]
            vertices.append(grid.reshape(-1, 3))
            total += index.size
    corners, weld = np.unique(np.concatenate(vertices), axis=0, return_inverse=True)
    return corners * (size / counts), weld.reshape(-1)[np.concatenate(faces)]


def room_mesh(num_faces: int = 130_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Vertices float32 ``[Nv, 3]`` and faces int32 ``[F, 3]`` of a room with 16 boxes, about ``num_faces`` in all.

    Surfaces are bumpy by a centimetre or two, as scans are; every connected part is closed.
    """
    random = np.random.default_rng(seed)
    sizes = [ROOM] + [random.uniform((0.3, 0.3, 0.4), (1.6, 0.9, 1.8)) for _ in range(16)]
    area = sum(2 * (s[0] * s[1] + s[1] * s[2] + s[2] * s[0]) for s in sizes)
    cell = np.sqrt(2 * area / num_faces)
    vertices, faces, total = [], [], 0
    for number, size in enumerate(sizes):
        points, triangles = box_surface(size, cell)
        if number:  # furniture on the floor along the walls, slightly below its surface
            along = random.uniform(0.1, 0.9) * (ROOM[:2] - size[:2])
            along[number % 2] = (0.05, ROOM[number % 2] - size[number % 2] - 0.05)[number // 2 % 2]
            points = points + [*along, -0.05]
        phase = random.uniform(0, 2 * np.pi, (3, 3))
        bumps = np.sin(points[:, None, :] * (9.0, 11.0, 13.0) + phase).sum(-1) * 0.007
        vertices.append(points + bumps)
        faces.append(triangles + total)
        total += len(points)
    return torch.from_numpy(np.concatenate(vertices)).float(), torch.from_numpy(np.concatenate(faces)).int()


def room_cameras(count: int, seed: int = 0) -> Tensor:
    """World-to-camera matrices float64 ``[count, 4, 4]`` of cameras at eye height that look around the room."""
    random = np.random.default_rng(seed)
    eyes = ROOM * random.uniform((0.3, 0.35, 0.5), (0.7, 0.65, 0.7), (count, 3))
    angles = np.arange(count) * 2 * np.pi / count
    aims = eyes + np.stack((np.cos(angles), np.sin(angles), np.full(count, -0.25)), -1)
    return rigid_inverse(look_at(torch.from_numpy(eyes), torch.from_numpy(aims)))

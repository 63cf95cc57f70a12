"""Coloured points on the scene's surfaces, from depth maps or from a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.fitting.frames import Frames
from utils.cameras import pixel_grid, unproject

_POINTS_A_FRAME = 20_000
_MOST_POINTS = 8_000_000
_FRAMES_AT_ONCE = 16


@dataclass
class PointCloud:
    """World points float32 ``[P, 3]`` in metres and their colours float32 ``[P, 3]``, 0 to 1."""

    points: Tensor
    colors: Tensor


def depth_point_cloud(frames: Frames) -> PointCloud:
    """Back-project every valid pixel of the depth maps, thinned to some 20,000 pixels a frame and 8 million in all."""
    height, width = frames.depths.shape[1:]
    stride = max(1, round((height * width / min(_POINTS_A_FRAME, _MOST_POINTS / len(frames))) ** 0.5))
    device = frames.depths.device
    uv = pixel_grid(height, width, torch.float64, device)[::stride, ::stride]
    rows = (uv[..., 1] * frames.size[0] / height).long()
    columns = (uv[..., 0] * frames.size[1] / width).long()
    intrinsics = frames.depth_intrinsics.to(device)
    points, colors = [], []
    for chosen in torch.arange(len(frames)).split(_FRAMES_AT_ONCE):
        depth = frames.depths[chosen, ::stride, ::stride].double() / 1000
        known = depth > 0
        poses = frames.camera_to_world[chosen].to(device)
        points.append(unproject(uv, depth, intrinsics, poses[:, None, None], frames.lens)[known].float())
        colors.append(frames.images[chosen][:, rows, columns][known].float() / 255)
    return PointCloud(torch.cat(points), torch.cat(colors))


def mesh_point_cloud(vertices: Tensor, faces: Tensor, colors: Tensor | None, spacing: float) -> PointCloud:
    """Vertices and points on the faces of a mesh, so dense that no gap is wider than about ``spacing``.

    Args:
        vertices: float32 ``[Nv, 3]``, metres.
        faces: integer ``[F, 3]``.
        colors: uint8 ``[Nv, 3]``; grey where the mesh has none.
        spacing: metres.
    """
    vertex_colors = torch.full_like(vertices, 0.5) if colors is None else colors.float() / 255
    corners, corner_colors = vertices[faces.long()], vertex_colors[faces.long()]
    longest = (corners - corners.roll(1, dims=1)).norm(dim=-1).amax(-1)
    pieces = (longest / spacing).ceil().clamp(1, 64).long()
    points, point_colors = [vertices], [vertex_colors]
    for count in pieces.unique().tolist():
        weights = _barycentric_lattice(count).to(vertices)
        chosen = pieces == count
        points.append((weights @ corners[chosen]).reshape(-1, 3))
        point_colors.append((weights @ corner_colors[chosen]).reshape(-1, 3))
    return PointCloud(torch.cat(points), torch.cat(point_colors))


def _barycentric_lattice(count: int) -> Tensor:
    """Barycentric coordinates ``[N, 3]`` of the lattice that cuts each edge into ``count`` pieces."""
    first, second = torch.meshgrid(torch.arange(count + 1), torch.arange(count + 1), indexing="ij")
    inside = first + second <= count
    first, second = first[inside], second[inside]
    return torch.stack((first, second, count - first - second), dim=-1) / count

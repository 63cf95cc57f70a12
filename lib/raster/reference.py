"""The rasterizer in plain PyTorch: every face against every pixel, in float64. Slow and obvious."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.cameras import pixel_grid


def _rasterize(
    vertices: Tensor,  # [Nv, 3] float32
    faces: Tensor,  # [F, 3]
    world_to_camera: Tensor,  # [B, 4, 4] float64
    intrinsics: Tensor,  # [B, 3, 3] float64
    mesh_ranges: Tensor,  # [B, 4] or [1, 4] int64: first vertex, end of vertices, first face, end of faces
    height: int,
    width: int,
    near: float,
    with_depth: bool,
    with_barycentric: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lib.raster.rasterize`. Outputs that were not asked for are empty.

    Returns:
        face, depth, barycentric; and int64 ``[1]``: the largest index of a face that names a vertex outside its
        mesh, -1 if there is none. Such faces are not drawn.
    """
    views, bad_face = [], -1
    for camera, k, (first_vertex, end_vertex, first_face, end_face) in zip(
        world_to_camera, intrinsics, mesh_ranges.expand(len(world_to_camera), 4).tolist(), strict=True
    ):
        mesh_faces = faces[first_face:end_face].long() - first_vertex
        points = _project(vertices[first_vertex:end_vertex], camera, k)
        bad = ((mesh_faces < 0) | (mesh_faces >= len(points))).any(dim=1, keepdim=True)
        if bad.any():
            bad_face = max(bad_face, first_face + int(bad[:, 0].nonzero().max()))
            mesh_faces = mesh_faces.masked_fill(bad, 0)  # three times the same vertex: shows nothing
        face, depth, barycentric = _nearest_faces(points[mesh_faces], height, width, near)
        views.append((torch.where(face >= 0, face + first_face, -1).int(), depth, barycentric))
    face = vertices.new_empty((0, height, width), dtype=torch.int32)
    depth = vertices.new_empty((0, height, width))
    barycentric = vertices.new_empty((0, height, width, 3))
    if views:
        face = torch.stack([view[0] for view in views])
        depth = torch.stack([view[1] for view in views]) if with_depth else depth
        barycentric = torch.stack([view[2] for view in views]) if with_barycentric else barycentric
    return face, depth, barycentric, torch.tensor([bad_face])


def _project(vertices: Tensor, world_to_camera: Tensor, intrinsics: Tensor) -> Tensor:
    """Homogeneous image positions ``[Nv, 3]`` (x, y, depth): pixel = (x, y) / depth. Rounded to float32 once."""
    local = vertices.double() @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    x = local @ intrinsics[0]
    y = local @ intrinsics[1]
    return torch.stack((x, y, local[:, 2]), dim=-1).float().double()


def _nearest_faces(corners: Tensor, height: int, width: int, near: float) -> tuple[Tensor, Tensor, Tensor]:
    """Face index, depth ``[H, W]`` and barycentrics ``[H, W, 3]`` for faces' image positions ``[F, 3, 3]``."""
    centres = pixel_grid(height, width, torch.float64, corners.device)
    best = torch.zeros(height, width, dtype=torch.float32, device=corners.device)
    face = torch.full((height, width), -1, dtype=torch.int64, device=corners.device)
    depth = torch.zeros(height, width, device=corners.device)
    barycentric = torch.zeros(height, width, 3, device=corners.device)
    for index, triangle in enumerate(corners):
        determinant = torch.linalg.det(triangle)
        if not triangle.isfinite().all() or determinant == 0:
            continue
        covered, values = _edge_functions(triangle, centres, determinant.sign())
        total = values.sum(-1)
        inverse_depth = total / determinant.abs()
        key = inverse_depth.float()
        visible = covered & (inverse_depth <= 1.0 / near) & (key > best)
        best = torch.where(visible, key, best)
        face = torch.where(visible, index, face)
        depth = torch.where(visible, (1.0 / inverse_depth).float(), depth)
        barycentric = torch.where(visible[..., None], (values / total[..., None]).float(), barycentric)
    return face, depth, barycentric


def _edge_functions(triangle: Tensor, centres: Tensor, orientation: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each pixel is covered ``[H, W]``, and the three edge functions, positive inside, ``[H, W, 3]``.

    2D homogeneous coordinates (Olano & Greer 1997): the edge through vertices a and b is a x b, and no clipping is
    needed. A centre on an edge counts as if it lay a little to the right and, much less, further down.
    """
    first, second = triangle[[1, 2, 0]], triangle[[2, 0, 1]]
    edges = torch.linalg.cross(first, second, dim=-1) * orientation  # [3 edges, 3 coefficients]
    values = centres @ edges[:, :2].T + edges[:, 2]
    on_edge_counts = (edges[:, 0] > 0) | ((edges[:, 0] == 0) & (edges[:, 1] > 0))
    return ((values > 0) | ((values == 0) & on_edge_counts)).all(-1), values

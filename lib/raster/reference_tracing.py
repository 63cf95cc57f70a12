"""Ray tracing in plain PyTorch: every ray against every face, in float64. Slow and obvious."""

from __future__ import annotations

import torch
from torch import Tensor


def _trace(
    vertices: Tensor,  # [Nv, 3] float32
    faces: Tensor,  # [F, 3]
    origins: Tensor,  # [R, 3] float64
    directions: Tensor,  # [R, 3] float64
    near: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :class:`lib.raster.RayTree`; face, depth and barycentric.

    A ray o + t d hits the plane of v0, v1, v2 where t = (v0 - o) . n / d . n, and is inside where the volumes
    d . (vi x vj), of corners seen from the origin, have one sign (Plücker's test).
    """
    best = torch.full((len(origins),), torch.inf, dtype=torch.float64, device=origins.device)
    face = torch.full((len(origins),), -1, dtype=torch.int32, device=origins.device)
    weights = torch.zeros(len(origins), 3, dtype=torch.float64, device=origins.device)
    for index, triangle in enumerate(vertices.double()[faces.long()]):
        if not triangle.isfinite().all():
            continue
        corners = triangle - origins[:, None]  # [R, 3, xyz]
        volumes = (torch.linalg.cross(corners[:, [1, 2, 0]], corners[:, [2, 0, 1]]) * directions[:, None]).sum(-1)
        total = volumes.sum(-1)
        normal = torch.linalg.cross(triangle[1] - triangle[0], triangle[2] - triangle[0])
        t = (corners[:, 0] @ normal) / (directions @ normal)
        inside = ((volumes >= 0).all(-1) | (volumes <= 0).all(-1)) & (total != 0)
        hit = inside & (t >= near) & (t < best)
        best, face = torch.where(hit, t, best), torch.where(hit, index, face).int()
        weights = torch.where(hit[:, None], volumes / total[:, None], weights)
    depth = torch.where(face >= 0, best, 0.0).float()
    return face, depth, weights.float()

"""Which points, and which directions, views saw: by what their depth shows at the pixel there."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.cameras import project_local
from utils.lenses import Lens


def was_seen(
    points: Tensor,  # [P, 3]
    pose: Tensor,  # [..., 4, 4]
    intrinsics: Tensor,  # [..., 3, 3]
    depth: Tensor,  # [..., H, W]
    tolerance: float,
    lens: Lens | None = None,
) -> Tensor:  # bool [..., P]
    """Whether each point is the surface that a view's depth shows at its pixel."""
    local = (points - pose[..., None, :3, 3]) @ pose[..., :3, :3]
    inside, surface, point_depth = _looked_up(local, intrinsics, depth, lens)
    return inside & (surface > 0) & ((point_depth - surface).abs() <= tolerance * surface)


def was_in_view(
    points: Tensor,  # [P, 3]
    pose: Tensor,  # [..., 4, 4]
    intrinsics: Tensor,  # [..., 3, 3]
    depth: Tensor,  # [..., H, W]
    tolerance: float,
    lens: Lens | None = None,
) -> Tensor:  # bool [..., P]
    """Whether each point is within a view's image, and not behind the surface that its depth shows there."""
    local = (points - pose[..., None, :3, 3]) @ pose[..., :3, :3]
    inside, surface, point_depth = _looked_up(local, intrinsics, depth, lens)
    return inside & ((surface == 0) | (point_depth <= surface * (1 + tolerance)))


def was_looked_past(
    directions: Tensor,  # [P, 3]
    pose: Tensor,  # [..., 4, 4]
    intrinsics: Tensor,  # [..., 3, 3]
    depth: Tensor,  # [..., H, W]
    lens: Lens | None = None,
) -> Tensor:  # bool [..., P]
    """Whether a view shows no surface, a depth of 0, in each direction: it saw what is infinitely far there."""
    inside, surface, _ = _looked_up(directions @ pose[..., :3, :3], intrinsics, depth, lens)
    return inside & (surface == 0)


def _looked_up(
    local: Tensor, intrinsics: Tensor, depth: Tensor, lens: Lens | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of points in the cameras' frames: whether they are in the image, its depth there, and their own."""
    height, width = depth.shape[-2:]
    if lens is None:
        homogeneous, point_depth = local @ intrinsics.mT, local[..., 2]
        uv = homogeneous[..., :2] / homogeneous[..., 2:]
    else:
        uv, point_depth = project_local(local, intrinsics[..., None, :, :], lens)
    column, row = uv.floor().unbind(-1)
    inside = (point_depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.where(inside, row * width + column, 0.0).long()
    return inside, depth.flatten(-2).gather(-1, index), point_depth

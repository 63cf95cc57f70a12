"""Registration of depth images to the colour camera."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from utils.cameras import pixel_grid, project, unproject

_SAME_PLACE = 1e-9


def register_depth(
    depth: Tensor, depth_intrinsics: Tensor, intrinsics: Tensor, size: tuple[int, int], depth_to_color: Tensor
) -> Tensor:
    """Depth ``[h, w]`` resampled to the colour camera's view of ``size``, by nearest neighbour.

    Args:
        depth: metres along the optical axis, 0 = none.
        depth_intrinsics: ``[3, 3]`` of the depth image.
        intrinsics: ``[3, 3]`` of the result.
        size: (height, width) of the result.
        depth_to_color: ``[4, 4]``. When it is the identity, each result pixel looks up the depth pixel on its own
            ray. Otherwise the depth pixels are projected, the nearest surface wins, and pixels that none falls on
            stay 0.

    Returns:
        float32 ``[H, W]``.
    """
    if (depth_to_color - torch.eye(4, dtype=depth_to_color.dtype)).abs().max() < _SAME_PLACE:
        return _look_up(depth, depth_intrinsics.double(), intrinsics.double(), size)
    return _splat(depth, depth_intrinsics.double(), intrinsics.double(), size, depth_to_color.double())


def _look_up(depth: Tensor, depth_intrinsics: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    index, outside = _pixels_on_rays(_numbers(depth_intrinsics), tuple(depth.shape), _numbers(intrinsics), size)
    # NumPy, because many threads read frames at a time, and each would start PyTorch's own threads for so little.
    found = depth.numpy().reshape(-1)[index]
    found[outside] = 0
    return torch.from_numpy(found)


def _numbers(intrinsics: Tensor) -> tuple[float, ...]:
    return tuple(intrinsics.reshape(-1).tolist())


@lru_cache(maxsize=4)
def _pixels_on_rays(
    depth_intrinsics: tuple[float, ...], depth_size: tuple[int, int], intrinsics: tuple[float, ...],
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Which depth pixel, as a flat index ``[H, W]``, lies on each result pixel's ray, and where there is none.

    The same for all frames of a scene. Intrinsics are their nine numbers, row by row.
    """
    camera = torch.eye(4, dtype=torch.float64)
    ones = torch.ones(size, dtype=torch.float64)
    rays = unproject(pixel_grid(*size, dtype=torch.float64), ones, ones.new_tensor(intrinsics).view(3, 3), camera)
    uv, _ = project(rays, ones.new_tensor(depth_intrinsics).view(3, 3), camera)
    inside, row, column = _pixel_of(uv, depth_size)
    return (row * depth_size[1] + column).numpy(), (~inside).numpy()


def _splat(
    depth: Tensor, depth_intrinsics: Tensor, intrinsics: Tensor, size: tuple[int, int], depth_to_color: Tensor
) -> Tensor:
    pixels = pixel_grid(*depth.shape, dtype=torch.float64)
    points = unproject(pixels, depth.double(), depth_intrinsics, depth_to_color)
    uv, distance = project(points, intrinsics, torch.eye(4, dtype=torch.float64))
    inside, row, column = _pixel_of(uv.nan_to_num(-1.0, -1.0, -1.0), size)
    inside &= (depth > 0) & (distance > 0)
    nearest = torch.full((size[0] * size[1],), torch.inf, dtype=torch.float64)
    target = (row * size[1] + column)[inside]
    nearest.scatter_reduce_(0, target, distance[inside], "amin")
    return torch.where(nearest.isinf(), 0.0, nearest).reshape(size).to(depth.dtype)


def _pixel_of(uv: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Whether ``uv [..., 2]`` lies in an image of ``size``, and its row and column (clamped)."""
    # A position on a pixel's border may fall on either side; the offset makes the choice independent of rounding.
    column, row = (uv + 1e-9).floor().unbind(-1)
    inside = (column >= 0) & (row >= 0) & (column < size[1]) & (row < size[0])
    return inside, row.long().clamp(0, size[0] - 1), column.long().clamp(0, size[1] - 1)

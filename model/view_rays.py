"""Rays of views in a grid's frame."""

from __future__ import annotations

import torch
from torch import Tensor

from model.grid import PlenoxelGrid
from utils.cameras import camera_rays, seen_pixels
from utils.lenses import Lens

_FAR = 4.0  # of the grid's radius


def grid_rays(
    grid: PlenoxelGrid,
    camera_to_grid: Tensor,  # [..., 4, 4]
    intrinsics: Tensor,  # [3, 3] or [..., 3, 3], in pixels of images of ``size``
    size: tuple[int, int],
    lens: Lens | None,
) -> tuple[Tensor, Tensor]:
    """Origins and unit directions float32 ``[..., H, W, 3]`` of all pixels, on the grid's device.

    Rays of pixels that the lens does not see pass the grid by: they show nothing, and nothing is spread along them.
    """
    camera_to_grid, intrinsics = camera_to_grid.to(grid.device), intrinsics.to(grid.device)
    origins, directions = camera_rays(camera_to_grid, intrinsics, *size, lens)
    seen = seen_pixels(intrinsics, size, lens)
    if seen is None or bool(seen.all()):
        return origins, directions
    center, radius = (origins.new_tensor(values) for values in (grid.center, grid.radius))
    away = torch.nn.functional.normalize(radius, dim=-1)
    return (torch.where(seen[..., None], origins, center + _FAR * radius),
            torch.where(seen[..., None], directions, away))  # fmt: skip

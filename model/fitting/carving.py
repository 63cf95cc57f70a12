"""Space carving from depth maps: which space is empty, and which is unknown because no depth was measured there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from model.fitting.frames import Frames
from utils.cameras import project_local, rigid_inverse
from utils.lenses import Lens

_FEWEST_VIEWS = 2
_FREE_SHARE = 0.1
_MARGIN_CELLS = 1.5


class CarvedSpace(NamedTuple):
    """Masks ``[R, R, R]`` over the grid's cube.

    seen: inside what a training camera's lens sees, occluded or not.
    free: depth measurements found a surface farther away along the same line of sight.
    unmeasured: not free, and on two or more lines of sight along which nothing was measured, as on black or glass
        surfaces.
    """

    seen: Tensor
    free: Tensor
    unmeasured: Tensor


def carve(frames: Frames, camera_to_grid: Tensor, scene_scale: float, resolution: int) -> CarvedSpace:
    """Project the centre of each cell into all training cameras.

    Args:
        frames: with depth maps.
        camera_to_grid: ``[N, 4, 4]``.
        scene_scale: grid units per metre.
        resolution: cells along each axis.
    """
    shape = (resolution,) * 3
    device = frames.images.device
    views, passed, unmeasured = (torch.zeros(shape, dtype=torch.int16, device=device) for _ in range(3))
    intrinsics = frames.depth_intrinsics.double().cpu()
    margin = _MARGIN_CELLS * 2 / resolution / scene_scale
    cells_in_views = project_cells(
        resolution, intrinsics, camera_to_grid, frames.depths.shape[1:], device, frames.lens
    )
    for depth, (column, row, distance, inside) in zip(frames.depths, cells_in_views, strict=True):
        distance = distance / scene_scale
        cells = inside.nonzero(as_tuple=True)
        measured = depth[row[cells], column[cells]].float() / 1000
        views[cells] += 1
        passed[cells] += (measured > distance[cells] + margin).to(torch.int16)
        unmeasured[cells] += (measured == 0).to(torch.int16)
    free = (passed >= _FEWEST_VIEWS) & (passed >= _FREE_SHARE * views)
    return CarvedSpace(views > 0, free, (unmeasured >= _FEWEST_VIEWS) & ~free)


def near_cameras(camera_to_grid: Tensor, reach: float, resolution: int) -> Tensor:
    """Cells ``[R, R, R]`` whose centres are nearer than ``reach``, in grid units, to a camera ``[N, 4, 4]``."""
    device = camera_to_grid.device
    axis = (torch.arange(resolution, dtype=torch.float32, device=device) + 0.5) * 2 / resolution - 1
    near = torch.zeros((resolution,) * 3, dtype=torch.bool, device=device)
    for center in camera_to_grid[:, :3, 3].float():
        x, y, z = ((axis - center[k]) ** 2 for k in range(3))
        near |= x[:, None, None] + y[None, :, None] + z[None, None, :] < reach**2
    return near


def project_cells(
    resolution: int, intrinsics: Tensor, poses: Tensor, size: tuple[int, int], device: torch.device, lens: Lens | None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Projections of all cells' centres into each of the cameras ``poses [N, 4, 4]``, one camera after the other.

    A projection is affine in homogeneous pixels, so it is a sum of one term an axis; with a lens, points in the
    camera's frame are such sums.

    Yields:
        column, row (int64), depth in grid units, and whether it is in the image, ``[R, R, R]`` each.
    """
    world_to_camera = rigid_inverse(poses.double().cpu())
    homogeneous = intrinsics if lens is None else torch.eye(3, dtype=torch.float64)
    matrices = homogeneous @ world_to_camera[:, :3, :3]
    offsets = (homogeneous @ world_to_camera[:, :3, 3:]).float().to(device)
    axis = (torch.arange(resolution, dtype=torch.float64) + 0.5) * 2 / resolution - 1
    terms = (matrices[..., None] * axis).float().to(device)
    height, width = size
    for term, offset in zip(terms, offsets, strict=True):
        x, y, z = term.unbind(1)
        u, v, depth = (
            x[k, :, None, None] + y[k, None, :, None] + (z[k, None, None, :] + offset[k]) for k in range(3)
        )
        if lens is None:
            inverse = 1 / depth
            column, row = u * inverse, v * inverse
        else:
            uv, depth = project_local(torch.stack((u, v, depth), dim=-1), intrinsics.float().to(device), lens)
            column, row = uv.unbind(-1)
        inside = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        yield column.nan_to_num(0, 0, 0).long(), row.nan_to_num(0, 0, 0).long(), depth, inside

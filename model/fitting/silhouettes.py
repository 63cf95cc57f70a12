"""The visual hull: space on the lines of sight of transparent pixels is empty."""

from __future__ import annotations

import math

import scipy  # loads its parts when they are used
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from model.fitting.carving import project_cells
from model.fitting.frames import Frames
from model.fitting.placement import Placement
from model.voxel_masks import dilate

_FEWEST_VIEWS = 2
_SEEN_SHARE = 0.5
_HULL_RESOLUTION = 64
_ROUNDS = 3


def visual_hull(frames: Frames, camera_to_grid: Tensor, resolution: int, seen_share: float = 0.0) -> Tensor:
    """Cells ``[R, R, R]`` of the grid's cube that may hold something.

    A cell is removed when two photographs show nothing but transparent pixels wherever it may project to (half its
    diagonal around its centre, so that things thinner than a cell stay), and when fewer than two show it at all.

    Args:
        frames: with ``alphas``.
        camera_to_grid: ``[N, 4, 4]``.
        resolution: cells along each axis.
        seen_share: a cell is also removed when fewer photographs show it than this share of the most that show any
            cell.
    """
    device = frames.images.device
    views, votes = (torch.zeros((resolution,) * 3, dtype=torch.int16, device=device) for _ in range(2))
    intrinsics = frames.depth_intrinsics.double().cpu()
    reach = float(intrinsics[[0, 1], [0, 1]].max()) * math.sqrt(3) / resolution
    size = frames.depths.shape[1:]
    cells_in_views = project_cells(resolution, intrinsics, camera_to_grid, size, device, frames.lens)
    for alpha, (column, row, distance, inside) in zip(frames.alphas, cells_in_views, strict=True):
        empty = adaptive_max_pool2d(alpha[None].float(), size)[0] == 0
        cells = inside.nonzero(as_tuple=True)
        to_something = _pixels_to_something(empty)[row[cells], column[cells]]
        views[cells] += 1
        votes[cells] += (to_something > reach / distance[cells] + 1).to(torch.int16)
    hull = (votes < _FEWEST_VIEWS) & (views >= _FEWEST_VIEWS)
    return hull & (views >= seen_share * (views * hull).max())


def _pixels_to_something(empty: Tensor) -> Tensor:
    """How far each pixel ``[h, w]`` is from one that is not empty; very far where all are."""
    if empty.all():
        return torch.full(empty.shape, torch.inf, device=empty.device)
    return torch.from_numpy(scipy.ndimage.distance_transform_edt(empty.cpu().numpy())).float().to(empty.device)


def shrink_to_hull(placement: Placement, frames: Frames) -> Placement:
    """The part of the box that may hold something; the box itself when the transparent pixels leave nothing.

    Space behind an object is never carved. It reaches far, but few photographs show its far end, so cells that fewer
    than half as many photographs show as the most visible one do not count here.
    """
    for _ in range(_ROUNDS):
        transform = placement.transform()
        hull = visual_hull(frames, transform.to_grid(frames.camera_to_world), _HULL_RESOLUTION, _SEEN_SHARE)
        hull &= placement.box_mask(_HULL_RESOLUTION).to(hull.device)
        cells = dilate(hull, 1).nonzero().double().cpu()
        if not len(cells):
            return placement
        lower = transform.points_from_grid(cells.amin(0) * 2 / _HULL_RESOLUTION - 1)
        upper = transform.points_from_grid((cells.amax(0) + 1) * 2 / _HULL_RESOLUTION - 1)
        placement = Placement(torch.maximum(lower, placement.lower), torch.minimum(upper, placement.upper))
    return placement

"""The initial grid of a fit."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from model.fitting.carving import carve, near_cameras
from model.fitting.frames import Frames
from model.fitting.options import FitGrid
from model.fitting.placement import Placement
from model.fitting.point_cloud import PointCloud
from model.fitting.silhouettes import visual_hull
from model.grid import PlenoxelGrid
from model.nested_grids import nest_grids, shell_mask
from model.voxel_masks import dilate, resize_mask
from utils.spherical_harmonics import SH_CHANNELS

_SH_BAND_0 = 0.28209479177387814
_CARVING_RESOLUTION = 64


def starting_grid(
    resolution: int,
    options: FitGrid,
    cloud: PointCloud | None,
    frames: Frames,
    placement: Placement,
    levels: int = 1,
    clearance: float = 0.0,
) -> PlenoxelGrid:
    """The first grid, or ``levels`` nested ones: surfaces from the point cloud, and space that may hold more.

    Unknown space has the same density everywhere, so that small voxels are the fainter.

    Args:
        clearance: metres around every camera in which no unknown space is initialised.
    """
    if levels == 1:
        return _single_grid(resolution, options, cloud, frames, placement, clearance)
    parts = []
    for level in range(levels):
        halvings = levels - 1 - level
        fainter = replace(options, unknown_opacity=options.unknown_opacity * 0.5**halvings)
        own = placement.inner(halvings) if halvings else placement
        part = _single_grid(resolution, fainter, cloud, frames, own, clearance)
        shell = shell_mask(resolution, part.device) if level else torch.ones_like(part.occupied)
        parts.append(part.select(shell.reshape(-1)[part.links_idx]))
    return nest_grids(parts)


def _single_grid(
    resolution: int,
    options: FitGrid,
    cloud: PointCloud | None,
    frames: Frames,
    placement: Placement,
    clearance: float,
) -> PlenoxelGrid:
    """One grid, whatever is around or within it.

    Args:
        resolution: voxels along each axis.
        cloud: surface points in metres; None where there are none.
        frames: training frames; their depth maps show which space is empty.
        placement: of the grid; voxels outside its box are not initialised.
    """
    shape = (resolution,) * 3
    device = frames.images.device
    transform = placement.transform()
    camera_to_grid = transform.to_grid(frames.camera_to_world)
    carved = min(resolution, _CARVING_RESOLUTION)
    space = carve(frames, camera_to_grid, transform.scene_scale, carved)
    candidates = resize_mask(space.seen if options.start == "dense" else space.unmeasured, shape)
    if frames.alphas is not None:
        hull = visual_hull(frames, camera_to_grid, carved)
        candidates &= resize_mask(dilate(hull, 1), shape)
    if clearance:
        reach = clearance * transform.scene_scale
        candidates &= ~resize_mask(near_cameras(camera_to_grid.to(device), reach, carved), shape)
    surface = torch.zeros(shape, dtype=torch.bool, device=device)
    if cloud is not None:
        cloud = PointCloud(transform.points_to_grid(cloud.points), cloud.colors)
        surface = dilate(point_mask(cloud.points, shape), options.thicken)
    occupied = surface | candidates if options.fill_unknown or options.start == "dense" else surface
    occupied &= placement.box_mask(resolution).to(device)
    density = torch.where(
        surface,
        opacity_to_density(options.surface_opacity, resolution),
        opacity_to_density(options.unknown_opacity, resolution),
    )
    sh = torch.zeros(int(occupied.sum()), SH_CHANNELS, device=device)
    if cloud is not None:
        sh[:, ::9] = (point_colors(cloud, shape, options.thicken)[occupied] - 0.5) / _SH_BAND_0
    return PlenoxelGrid.from_mask(occupied, density[occupied].float(), sh)


def opacity_to_density(opacity: float, resolution: int) -> float:
    """The density at which a voxel of a grid of radius 1 has this opacity."""
    return float(-torch.log1p(torch.tensor(-opacity, dtype=torch.float64)) * resolution / 2)


def _point_cells(points: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Flat voxel index of points in the grid's frame, and which points are inside the grid at all."""
    size = torch.tensor(shape, device=points.device)
    index = ((points + 1) / 2 * size).floor().long()
    inside = ((index >= 0) & (index < size)).all(-1)
    index = index[inside]
    return (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2], inside


def point_mask(points: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Which voxels hold at least one of the points ``[P, 3]``, bool ``[Rx, Ry, Rz]``."""
    cells, _ = _point_cells(points, shape)
    mask = torch.zeros(shape, dtype=torch.bool, device=points.device)
    mask.view(-1)[cells] = True
    return mask


def point_colors(cloud: PointCloud, shape: tuple[int, int, int], reach: int) -> Tensor:
    """Mean colour ``[Rx, Ry, Rz, 3]`` of the points in each voxel, spread ``reach`` voxels; grey farther away."""
    cells, inside = _point_cells(cloud.points, shape)
    sums = torch.zeros(4, shape[0] * shape[1] * shape[2], device=cloud.points.device)
    values = torch.cat((cloud.colors[inside], torch.ones_like(cloud.colors[inside][:, :1])), dim=-1)
    for channel in range(4):
        # One channel at a time keeps index_add_ deterministic on the CPU and its temporaries small.
        sums[channel].index_add_(0, cells, values[:, channel])
    sums = sums.view(1, 4, *shape)
    for _ in range(reach):
        spread = sums
        for kernel, padding in (((3, 1, 1), (1, 0, 0)), ((1, 3, 1), (0, 1, 0)), ((1, 1, 3), (0, 0, 1))):
            spread = avg_pool3d(spread, kernel, stride=1, padding=padding)
        sums = torch.where(sums[:, 3:] > 0, sums, spread)
    known = sums[:, 3:].clamp(min=1e-9)
    colors = torch.where(sums[:, 3:] > 0, sums[:, :3] / known, 0.5)
    return colors[0].permute(1, 2, 3, 0)

"""The grid a fit starts from."""

from __future__ import annotations

import torch
from torch import Tensor

from model.fitting.frames import Frames
from model.fitting.options import FitGrid
from model.fitting.point_cloud import PointCloud
from model.grid import EMPTY, SH_CHANNELS, PlenoxelGrid
from model.voxel_masks import dilate, resize_mask
from utils.cameras import project

_SH_BAND_0 = 0.28209479177387814
_CARVING_RESOLUTION = 96
_FREE_VIEWS = 2
_FREE_SHARE = 0.1
_FREE_MARGIN_CELLS = 1.5


def starting_grid(
    resolution: int,
    options: FitGrid,
    cloud: PointCloud | None,
    frames: Frames,
    camera_to_grid: Tensor,
    scene_scale: float,
) -> PlenoxelGrid:
    """The first level's grid: surfaces from the point cloud, and space that may hold more.

    Args:
        resolution: voxels along each axis.
        cloud: surface points in the grid's frame; None for a full grid.
        frames: training frames; their depth maps tell which space is empty.
        camera_to_grid: ``[N, 4, 4]``.
        scene_scale: grid units per metre.
    """
    shape = (resolution,) * 3
    device = frames.images.device
    seen, free = carve(frames, camera_to_grid, scene_scale, min(resolution, _CARVING_RESOLUTION))
    candidates = resize_mask(seen if options.start == "dense" else seen & ~free, shape)
    surface = torch.zeros(shape, dtype=torch.bool, device=device)
    if cloud is not None:
        surface = point_mask(cloud.points, shape)
        surface = dilate(surface, options.thicken)
    occupied = surface | candidates if options.fill_unknown or options.start == "dense" else surface
    density = torch.where(
        surface,
        opacity_to_density(options.surface_opacity, resolution),
        opacity_to_density(options.unknown_opacity, resolution),
    )
    sh = torch.zeros(int(occupied.sum()), SH_CHANNELS, device=device)
    if cloud is not None:
        sh[:, ::9] = (point_colors(cloud, shape, options.thicken)[occupied] - 0.5) / _SH_BAND_0
    links = torch.full(shape, EMPTY, dtype=torch.int32, device=device)
    links[occupied] = torch.arange(len(sh), dtype=torch.int32, device=device)
    return PlenoxelGrid(links, density[occupied].float(), sh)


def opacity_to_density(opacity: float, resolution: int) -> float:
    """The density at which a voxel of a grid of radius 1 stops this share of the light."""
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
        spread = torch.nn.functional.avg_pool3d(sums, 3, stride=1, padding=1)
        sums = torch.where(sums[:, 3:] > 0, sums, spread)
    known = sums[:, 3:].clamp(min=1e-9)
    colors = torch.where(sums[:, 3:] > 0, sums[:, :3] / known, 0.5)
    return colors[0].permute(1, 2, 3, 0)


def carve(
    frames: Frames, camera_to_grid: Tensor, scene_scale: float, resolution: int
) -> tuple[Tensor, Tensor]:
    """What depth measurements say about space.

    Returns:
        seen: bool ``[R, R, R]``; some training camera looks there.
        free: bool ``[R, R, R]``; enough depth measurements found a surface behind it.
    """
    device = frames.images.device
    axis = (torch.arange(resolution, device=device) + 0.5) * 2 / resolution - 1
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    in_view = torch.zeros(len(centers), dtype=torch.int32, device=device)
    passed = torch.zeros_like(in_view)
    height, width = frames.depths.shape[1:]
    intrinsics = frames.depth_intrinsics.float().to(device)
    margin = _FREE_MARGIN_CELLS * 2 / resolution / scene_scale
    for depth, pose in zip(frames.depths, camera_to_grid.float().to(device), strict=True):
        uv, distance = project(centers, intrinsics, pose)
        distance = distance / scene_scale
        column, row = uv[:, 0].floor().long(), uv[:, 1].floor().long()
        inside = (distance > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        measured = depth[row.clamp(0, height - 1), column.clamp(0, width - 1)].float() / 1000
        in_view += inside
        passed += inside & (measured > distance + margin)
    free = (passed >= _FREE_VIEWS) & (passed >= _FREE_SHARE * in_view)
    shape = (resolution,) * 3
    return (in_view >= _FREE_VIEWS).view(shape), free.view(shape)

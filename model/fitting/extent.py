"""The grid's extent and starting points, from what is known of a scene.

Depth and meshes say where surfaces are. Otherwise, in this order: the dataset's bounding box, sparse points, and
what cameras look at; and transparent pixels shrink the box to the visual hull. A scene from structure from motion has
no metres, so every length here is relative to the scene.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.capture import NEAR_METRES
from model.fitting.frames import Frames
from model.fitting.placement import SPACE_AROUND_CAMERAS, Placement, place
from model.fitting.point_cloud import PointCloud, depth_point_cloud, mesh_point_cloud
from model.fitting.silhouettes import shrink_to_hull
from utils.errors import UserError

if TYPE_CHECKING:
    from dataloader import Scene
    from model.fitting.options import FitBackground, FitGrid, FitOpen

logger = logging.getLogger(__name__)

_SHARE_AROUND_CAMERAS = 0.025
_SPARSE_OUTLIER_SHARE = 0.01
_FARTHEST_IN_MEDIANS = 3.0
_LOOKING_INWARDS = 0.8
_MOST_POINTS = 1 << 20
_LAYERS = 4
_NESTED = 4


def choose_start(scene: Scene, frames: Frames, start: str) -> str:
    """What "auto" means for this scene; anything else as it is.

    Raises:
        UserError: there are no data for the start that was asked for.
    """
    has = {"depth": frames.have_depth, "mesh": scene.mesh_path.exists(),
           "points": scene.points is not None, "dense": True}  # fmt: skip
    if start == "auto":
        return next(name for name, there in has.items() if there)
    if not has[start] and start != "mesh":  # loading an absent mesh names the file
        what = {"depth": "depth measurements", "points": "points of a structure from motion"}[start]
        possible = " or ".join(repr(name) for name, there in has.items() if there)
        raise UserError(f"{scene.path} has no {what}, which FitGrid.start = {start!r} needs; use {possible}, or 'auto'")
    return start


def background_layers(scene: Scene, frames: Frames, options: FitBackground, start: str) -> int:
    """Number of background sphere layers; by default some where the scene's extent is unknown, else none.

    Raises:
        UserError: layers are requested for images with transparency, whose background is known.
    """
    if frames.alphas is not None and options.layers:
        raise UserError(
            f"{scene.path} has images with transparency, which get no background layers, but FitBackground.layers = "
            f"{options.layers}; use 0 or None"
        )
    return (0 if _closed(frames, start) else _LAYERS) if options.layers is None else options.layers


def is_open(scene: Scene, frames: Frames, start: str) -> bool:
    """Whether nothing bounds the scene: no depth, mesh, transparency, or box that most cameras are outside of."""
    if _closed(frames, start):
        return False
    if scene.bounds is None:
        return True
    centers = frames.camera_to_world[:, :3, 3].double().cpu()
    within = ((centers >= scene.bounds[0]) & (centers <= scene.bounds[1])).all(-1)
    return bool(within.double().mean() >= 0.5)


def nested_grids(
    frames: Frames, cloud: PointCloud | None, options: FitOpen, grid: FitGrid, open_scene: bool
) -> int:
    """Number of nested grids: in an open scene several, unless one has smaller voxels where sparse points are.

    Raises:
        UserError: several are asked for with a resolution that they cannot have.
    """
    possible = not any(size % 4 for size in grid.resolutions)
    if (options.nested or 1) > 1 and not possible:
        raise UserError(
            f"FitOpen.nested = {options.nested} needs FitGrid.resolutions that 4 divides, found {grid.resolutions}"
        )
    if options.nested is not None:
        return options.nested
    if not (open_scene and possible):
        return 1
    return _NESTED if cloud is None or _smaller_when_nested(frames, cloud, grid.camera_space) else 1


def _smaller_when_nested(frames: Frames, cloud: PointCloud, space: float) -> bool:
    """Whether voxels at sparse points are smaller, in the geometric mean, in nested grids than in one around them.

    Within a room they are not: its walls are as far as cameras are from each other, and all that is worth resolving.
    """
    points = cloud.points[:: len(cloud.points) // _MOST_POINTS + 1].double().cpu()
    one = _around_sparse_points(points, frames.camera_to_world[:, :3, 3])
    whole = _nested_cube(frames.camera_to_world, space, _NESTED)
    half = float((whole.upper - whole.lower).max()) / 2
    distance = (points - whole.middle).abs().amax(-1).clamp(min=1e-9)
    doublings = (distance / half).log2().ceil().clamp(min=1 - _NESTED)  # beyond the outermost, as if there were more
    return float(doublings.mean()) + math.log2(half) < math.log2(float((one.upper - one.lower).max()) / 2)


def _nested_cube(camera_to_world: Tensor, space: float, nested: int) -> Placement:
    return _around_cameras(camera_to_world, space * 2 ** (nested - _NESTED + 1))


def camera_reach(camera_to_world: Tensor) -> float:
    """The cameras' largest distance from what they look at, or from their middle where they look outwards."""
    centers, target = _focus(camera_to_world)
    return max(float((centers - target).norm(dim=-1).max()), 1e-9)


def _closed(frames: Frames, start: str) -> bool:
    """Whether depth, a mesh or transparency bound the scene."""
    return frames.have_depth or start == "mesh" or frames.alphas is not None


def surface_points(scene: Scene, frames: Frames, grid: FitGrid, start: str) -> PointCloud | None:
    """Points to start from: of the mesh, of the depth maps, or sparse; None where there are none.

    Args:
        start: as :func:`choose_start` returns it. A dense start takes depth or sparse points for colours and place.
    """
    device = frames.images.device
    if start == "mesh":
        from dataloader import load_mesh

        mesh = load_mesh(scene.mesh_path)
        extent = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max())
        cloud = mesh_point_cloud(mesh.vertices, mesh.faces, mesh.colors, extent / max(grid.resolutions))
        return PointCloud(cloud.points.to(device), cloud.colors.to(device))
    if start != "points":
        cloud = depth_point_cloud(frames)
        if len(cloud.points):
            return cloud
    if scene.points is None:
        return None
    return PointCloud(scene.points.positions.to(device), scene.points.colors.to(device).float() / 255)


def place_scene(
    scene: Scene, frames: Frames, cloud: PointCloud | None, start: str, space: float, nested: int = 1
) -> Placement:
    """The box around what is to be fitted.

    Args:
        cloud: from :func:`surface_points`.
        start: from :func:`choose_start`.
        space: ``FitGrid.camera_space``.
        nested: from :func:`nested_grids`. Several are about what cameras look at, wherever sparse points or a box are.
    """
    centers = frames.camera_to_world[:, :3, 3]
    if nested > 1 and not _closed(frames, start):
        if cloud is None and scene.bounds is None:
            logger.warning(
                "%s: neither depth, points, a box nor transparency give the scene's extent; %d nested grids are about "
                "what cameras look at (FitOpen.nested, FitGrid.camera_space)", scene.name, nested,
            )
        return _nested_cube(frames.camera_to_world, space, nested)
    if start == "mesh" or frames.have_depth:
        margin = SPACE_AROUND_CAMERAS if scene.metric else _SHARE_AROUND_CAMERAS * _extent(centers)
        return place(cloud.points, centers, margin)
    if cloud is None:
        # An object with transparent pixels around it is between the cameras.
        placement = _around_cameras(frames.camera_to_world, space if frames.alphas is None else 1.0)
        if frames.alphas is None and scene.bounds is None:
            logger.warning(
                "%s: neither depth, points, a box nor transparency give the scene's extent; the grid reaches %g "
                "times as far as the cameras (FitGrid.camera_space)", scene.name, space,
            )
    else:
        placement = _around_sparse_points(cloud.points, centers)
    if scene.bounds is not None:
        placement = _within(scene.bounds, placement)
    return placement if frames.alphas is None else shrink_to_hull(placement, frames)


def camera_nearness(scene: Scene, camera_to_world: Tensor) -> float:
    """Distance within which cameras are similar: 0.1 m, or without metric scale the typical distance of neighbours."""
    if scene.metric:
        return NEAR_METRES
    centers = camera_to_world[:, :3, 3].double()
    distance = torch.cdist(centers, centers)
    distance.fill_diagonal_(torch.inf)
    return max(float(distance.amin(-1).median()), 1e-6 * _extent(centers), 1e-12)


def _extent(centers: Tensor) -> float:
    return float((centers.amax(0) - centers.amin(0)).max())


def _within(bounds: Tensor, placement: Placement) -> Placement:
    """The dataset's box clipped to the other one; instant-ngp's may be far larger than a grid can resolve."""
    lower, upper = torch.maximum(bounds[0], placement.lower), torch.minimum(bounds[1], placement.upper)
    return Placement(lower, upper) if (upper > lower).all() else Placement(bounds[0], bounds[1])


def _around_cameras(camera_to_world: Tensor, space: float) -> Placement:
    """A cube around the point that cameras look at, or around their centroid when they look outwards."""
    _, target = _focus(camera_to_world)
    radius = space * camera_reach(camera_to_world)
    return Placement(target - radius, target + radius)


def _focus(camera_to_world: Tensor) -> tuple[Tensor, Tensor]:
    """Centres ``[N, 3]``, and the point that cameras look at, or where they look outwards, their centroid."""
    poses = camera_to_world.double().cpu()
    centers, axes = poses[:, :3, 3], poses[:, :3, 2]
    middle = centers.mean(0)
    # The point nearest to all optical axes; the added unit matrix decides where parallel axes leave it open.
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    matrix = across.sum(0) + 1e-6 * torch.eye(3, dtype=torch.float64)
    focus = middle + torch.linalg.solve(matrix, (across @ (centers - middle)[..., None])[..., 0].sum(0))
    inwards = (((focus - centers) * axes).sum(-1) > 0).double().mean() >= _LOOKING_INWARDS
    return centers, focus if inwards else middle


def _around_sparse_points(points: Tensor, centers: Tensor) -> Placement:
    """The box around cameras and most points.

    Structure from motion finds points very far away, through windows and behind objects. So a hundredth on each side
    is cut off, and what is farther from the points' centre than three times the median.
    """
    points = points[:: len(points) // _MOST_POINTS + 1].double().cpu()
    middle = points.median(dim=0).values
    reach = _FARTHEST_IN_MEDIANS * (points - middle).abs().amax(-1).median()
    lower = torch.maximum(points.quantile(_SPARSE_OUTLIER_SHARE, dim=0), middle - reach)
    upper = torch.minimum(points.quantile(1 - _SPARSE_OUTLIER_SHARE, dim=0), middle + reach)
    cameras = centers.double().cpu()
    margin = _SHARE_AROUND_CAMERAS * _extent(torch.cat((cameras, lower[None], upper[None])))
    around = place(torch.empty(0, 3), cameras, margin)
    return Placement(torch.minimum(around.lower, lower), torch.maximum(around.upper, upper))

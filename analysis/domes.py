"""Candidates for cameras on a dome around an object: places, aims, roll and focal length, before anything is judged.

The world's up is +Z. Azimuth is the angle of the camera's position around the point it is aimed at, from +X towards
+Y; elevation is its angle above the horizontal plane through that point. Heights, roll and intrinsics are those of
recorded cameras, drawn one by one; so is the distance, or it is that from which the object would fill a drawn share of
the view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import gin
import numpy as np
import torch
from torch import Tensor

from analysis.instances import Instance
from analysis.surface_points import area_vectors
from dataloader import CameraList
from utils.cameras import look_at, pixel_directions
from utils.errors import check_choice
from utils.labels import label_set
from utils.lenses import Lens

_WITHIN_EDGE = 0.98  # of the image circle's radius

@gin.configurable
@dataclass(frozen=True)
class DomeOptions:
    """Where candidates are drawn.

    Attributes:
        distance: "recorded": one of the distances at which recorded cameras saw surfaces (the medians of their depth
            maps), but none so near that the object fills more than the largest share; "object": by the share.
        share: smallest and largest share of the view that the object is to fill, by half of its faces' area as seen
            from there or the spread of its points, whichever is less; right for closed convex objects, half of the
            truth for open surfaces.
        radius_limits: metres; the distance is kept within these.
        elevations: radians above the horizontal; the recorded height is given up where it would lie outside.
        spread: 0 aims at the object's centroid, 1 at points all over its surface; between, in proportion.
        aim_noise: of the image's half sides; the point aimed at is off the principal point by at most this.
        height_noise: metres that a camera's height differs from the recorded camera's at most.
    """

    distance: str = "object"
    share: Sequence[float] = (0.12, 0.6)
    radius_limits: Sequence[float] = (0.5, 4.0)
    elevations: Sequence[float] = (-0.4, 1.0)
    spread: float = 0.5
    aim_noise: float = 0.2
    height_noise: float = 0.1

    def __post_init__(self) -> None:
        check_choice("DomeOptions.distance", self.distance, ("object", "recorded"))


@dataclass(frozen=True)
class Trajectory:
    """What candidates take from the recorded cameras.

    Attributes:
        heights: float64 ``[N]``, metres above the floor.
        rolls: float64 ``[N]``, radians about the optical axis from level.
        intrinsics: float64 ``[N, 3, 3]``.
        distances: float64 ``[V]``, metres, of the surfaces that some of them saw.
        floor: the floor's height.
        image_size: (height, width).
        lens: of all of them; None for pinholes.
    """

    heights: Tensor
    rolls: Tensor
    intrinsics: Tensor
    distances: Tensor
    floor: float
    image_size: tuple[int, int]
    lens: Lens | None = None

    @staticmethod
    def of(cameras: CameraList, depth: Tensor, floor: float) -> Trajectory:
        """That of recorded cameras in a room whose floor is at ``floor``; ``depth [V, H, W]`` is of some of them."""
        poses = cameras.camera_to_world
        known = [view[view > 0] for view in depth]
        distances = torch.stack([view.double().median() for view in known if len(view)] or [torch.tensor(math.inf)])
        return Trajectory(
            poses[:, 2, 3] - floor, roll_of(poses), cameras.intrinsics, distances, floor, cameras.image_size,
            cameras.lens,
        )


@dataclass(frozen=True)
class Candidates:
    """Cameras that may be chosen; all float64.

    Attributes:
        camera_to_world: ``[M, 4, 4]``.
        intrinsics: ``[M, 3, 3]``.
        points: ``[M, 3]``, what each is aimed at.
        pixels: ``[M, 2]``, (u, v) at which that point is to appear.
    """

    camera_to_world: Tensor
    intrinsics: Tensor
    points: Tensor
    pixels: Tensor


def roll_of(
    camera_to_world: Tensor,  # float64 [..., 4, 4]
) -> Tensor:  # float64 [...]
    """Angle about the optical axis from the level camera that looks the same way to this one, radians."""
    eye = camera_to_world[..., :3, 3]
    level = look_at(eye, eye + camera_to_world[..., :3, 2])[..., :3, :3]
    turn = level.transpose(-1, -2) @ camera_to_world[..., :3, :3]
    return torch.atan2(turn[..., 1, 0], turn[..., 0, 0])


def draw_candidates(
    instance: Instance, trajectory: Trajectory, options: DomeOptions, count: int, random: np.random.Generator
) -> Candidates:
    """``count`` candidates around one object; the stream of ``random`` decides all of them."""
    uniform = random.random((count, 8))
    source = (uniform[:, 0] * len(trajectory.heights)).astype(np.int64)
    intrinsics = trajectory.intrinsics[source].double()
    points = _aimed_points(instance, options.spread, uniform[:, 1])
    azimuth = uniform[:, 2] * 2 * math.pi
    height = trajectory.floor + trajectory.heights[source].numpy() + options.height_noise * (2 * uniform[:, 3] - 1)
    share = options.share[0] + (options.share[1] - options.share[0]) * uniform[:, 4]
    if options.distance == "recorded":
        share = np.full(count, options.share[1])
    recorded = trajectory.distances[(uniform[:, 4] * len(trajectory.distances)).astype(np.int64)].numpy()
    directions = _directions(azimuth, np.zeros(count))
    for _ in range(2):  # the object's area depends on the elevation, and that on the distance
        radius = _distance(instance, directions, share, intrinsics, trajectory.image_size)
        if options.distance == "recorded":
            radius = np.maximum(radius, recorded)
        radius = radius.clip(*options.radius_limits)
        elevation = np.arcsin(((height - points[:, 2]) / radius).clip(-1, 1)).clip(*options.elevations)
        directions = _directions(azimuth, elevation)
    height, width = trajectory.image_size
    half = torch.tensor([width, height], dtype=torch.float64) / 2
    noise = torch.from_numpy(2 * uniform[:, 5:7] - 1) * options.aim_noise
    pixels = _within_lens(intrinsics[:, :2, 2] + noise * half, intrinsics, trajectory.lens)
    rolls = trajectory.rolls[(uniform[:, 7] * len(trajectory.rolls)).astype(np.int64)]
    targets = torch.from_numpy(points)
    eyes = torch.from_numpy(points + radius[:, None] * directions)
    poses = aim(eyes, targets, pixels, intrinsics, rolls, trajectory.lens)
    return Candidates(poses, intrinsics, targets, pixels)


def _within_lens(pixels: Tensor, intrinsics: Tensor, lens: Lens | None) -> Tensor:
    """Pixels ``[M, 2]``, moved towards the principal point where the lens does not see them."""
    if lens is None:
        return pixels
    center, focal = intrinsics[:, :2, 2], intrinsics[:, [0, 1], [0, 1]]
    edge = lens.distort(torch.tensor([lens.reach, 0.0], dtype=torch.float64)).norm()
    distance = ((pixels - center) / focal).norm(dim=1, keepdim=True)
    return center + (pixels - center) * (_WITHIN_EDGE * edge / distance.clamp(min=1e-9)).clamp(max=1)


def aim(
    eyes: Tensor,  # float64 [M, 3]
    points: Tensor,  # float64 [M, 3]
    pixels: Tensor,  # float64 [M, 2]
    intrinsics: Tensor,  # float64 [M, 3, 3]
    rolls: Tensor,  # float64 [M], radians about the line of sight to the point
    lens: Lens | None = None,
) -> Tensor:  # float64 [M, 4, 4]
    """Camera-to-world poses at ``eyes`` in which each of ``points`` appears at its pixel."""
    poses = look_at(eyes, points)
    direction = pixel_directions(pixels, intrinsics, lens)
    to_axis = _rotation_to_axis(direction / direction.norm(dim=1, keepdim=True))
    cosine, sine = rolls.cos(), rolls.sin()
    zero, one = torch.zeros_like(rolls), torch.ones_like(rolls)
    turn = torch.stack((cosine, -sine, zero, sine, cosine, zero, zero, zero, one), dim=1).reshape(-1, 3, 3)
    poses[:, :3, :3] = poses[:, :3, :3] @ turn @ to_axis
    return poses


def _rotation_to_axis(direction: Tensor) -> Tensor:
    """The smallest rotations ``[M, 3, 3]`` that turn unit vectors ``[M, 3]`` in front of the camera to its axis."""
    x, y, z = direction.unbind(1)
    scale = 1 / (1 + z)
    rows = (1 - x * x * scale, -x * y * scale, -x, -x * y * scale, 1 - y * y * scale, -y, x, y, z)
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def _aimed_points(instance: Instance, spread: float, uniform: np.ndarray) -> np.ndarray:
    """Points ``[M, 3]``: the centroid moved by ``spread`` of the way to points drawn from the surface by area."""
    reached = instance.surface.weight.cumsum()
    drawn = np.searchsorted(reached, uniform * reached[-1], side="right").clip(max=len(reached) - 1)
    return instance.centre + spread * (instance.surface.points[drawn] - instance.centre)


def _directions(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Unit vectors ``[M, 3]`` from a dome's centre to its cameras."""
    return np.stack(
        (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)), axis=1
    )


def _distance(
    instance: Instance, directions: np.ndarray, share: np.ndarray, intrinsics: Tensor, size: tuple[int, int]
) -> np.ndarray:
    """Metres from which the object fills ``share`` of the view, by its outline's estimated area."""
    area = np.abs(directions @ area_vectors(instance.corners).T).sum(axis=1) / 2
    area = np.minimum(area, _outline_of_spread(instance, directions))  # faces inside the object count for nothing
    focal = (intrinsics[:, 0, 0] * intrinsics[:, 1, 1]).numpy()
    return np.sqrt(area * focal / (share * size[0] * size[1]))


def _outline_of_spread(instance: Instance, directions: np.ndarray) -> np.ndarray:
    """Areas ``[M]`` of the ellipses over which points would spread as the object's do, seen along ``directions``.

    A filled ellipse has deviations of half of its semi-axes. The determinant of a covariance seen along d is
    d adj(C) d.
    """
    offsets = instance.surface.points - instance.centre
    c = (offsets * instance.surface.weight[:, None]).T @ offsets / instance.surface.weight.sum()
    adjugate = np.cross(np.roll(c, -1, axis=0), np.roll(c, -2, axis=0))
    return 4 * math.pi * np.sqrt(np.einsum("mi,ij,mj->m", directions, adjugate, directions).clip(0))


def spherical(offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Azimuth, elevation and radius, each ``[...]``, of offsets ``[..., 3]`` from a dome's centre."""
    radius = offset.norm(dim=-1)
    return torch.atan2(offset[..., 1], offset[..., 0]), torch.asin(offset[..., 2] / radius), radius


def floor_height(
    vertices: Tensor,  # float32 [Nv, 3]
    ids: Tensor | None,  # int32 [Nv], of the label set
) -> float:
    """Height of the floor: the median of the vertices of the id named "floor", else the 1st percentile of all."""
    heights = vertices[:, 2].double()
    floor = label_set().known_ids.get("floor")
    if ids is not None and floor is not None and (ids == floor).any():
        return float(heights[ids == floor].median())
    rank = max(1, round(0.01 * len(heights)))
    return float(heights.kthvalue(rank).values)

"""Cameras on a dome around a target point.

The world's up is +Z. Azimuth is the angle of the camera's position around the target, from +X towards +Y; elevation is
its angle above the horizontal plane through the target. Positions are jittered and lifted above the floor first and
cameras are aimed at the target last, so the target is at the centre of every view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import gin
import torch
from torch import Tensor

from analysis.targets import Target
from dataloader import CameraList
from utils.cameras import look_at
from utils.errors import check_choice
from utils.labels import CLASS_NAMES
from utils.seeding import generator

LAYOUTS = ("grid", "low_discrepancy")
_NYU40_FLOOR = 2
_BASES = (2, 3, 5)


@gin.configurable
@dataclass(frozen=True)
class DomeOptions:
    """The shape of the domes.

    Attributes:
        layout: "grid" (azimuths x elevations x radius_factors) or "low_discrepancy" (num_views points of a Halton
            sequence over the same ranges, even in area).
        azimuths: number of directions around the target, for "grid".
        azimuth_span: radians around the target, centred on where the original view was taken from.
        elevations: radians above the horizontal; for "low_discrepancy" the smallest and largest are the range.
        radius: metres from target to camera; 0 takes the distance of the original view.
        radius_factors: factors of the radius. Below 1, since a class that covers a quarter of the central
            window covers a sixteenth of the image, and the filter requires a fifth.
        radius_limits: metres; the radius is kept within these.
        num_views: cameras a dome, for "low_discrepancy".
        jitter: metres; each coordinate of a camera's position is moved by at most this much.
        floor_clearance: metres that a camera stays above the floor.
    """

    layout: str = "grid"
    azimuths: int = 10
    azimuth_span: float = 2 * math.pi
    elevations: Sequence[float] = (0.2, 0.55, 0.9)
    radius: float = 0.0
    radius_factors: Sequence[float] = (0.5, 0.75, 1.0)
    radius_limits: Sequence[float] = (0.6, 4.0)
    num_views: int = 30
    jitter: float = 0.1
    floor_clearance: float = 0.3

    def __post_init__(self) -> None:
        check_choice("DomeOptions.layout", self.layout, LAYOUTS)


def halton(count: int, base: int) -> Tensor:
    """The first ``count`` points of the van der Corput sequence in ``base``, float64 in (0, 1)."""
    values = []
    for index in range(1, count + 1):
        value, fraction = 0.0, 1.0
        while index:
            fraction /= base
            index, digit = divmod(index, base)
            value += digit * fraction
        values.append(value)
    return torch.tensor(values, dtype=torch.float64)


def _dome_coordinates(options: DomeOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Azimuth relative to the original view, elevation and radius factor of each camera, each float64 ``[M]``."""
    if options.layout == "grid":
        steps = (torch.arange(options.azimuths, dtype=torch.float64) + 0.5) / options.azimuths - 0.5
        axes = (
            torch.tensor(options.radius_factors, dtype=torch.float64),
            torch.tensor(options.elevations, dtype=torch.float64),
            steps * options.azimuth_span,
        )
        factor, elevation, azimuth = torch.meshgrid(*axes, indexing="ij")
        return azimuth.flatten(), elevation.flatten(), factor.flatten()
    turn, height, reach = (halton(options.num_views, base) for base in _BASES)
    low, high = math.sin(min(options.elevations)), math.sin(max(options.elevations))
    near, far = min(options.radius_factors), max(options.radius_factors)
    return (turn - 0.5) * options.azimuth_span, torch.asin(low + height * (high - low)), near + reach * (far - near)


def dome_poses(
    target: Tensor,  # float64 [3]
    source_eye: Tensor,  # float64 [3]
    options: DomeOptions,
    floor_height: float,
    random: torch.Generator,
) -> Tensor:  # float64 [M, 4, 4]
    """Camera-to-world poses on a dome around ``target``, azimuths centred on the side of ``source_eye``."""
    away = source_eye - target
    source_azimuth = torch.atan2(away[1], away[0])
    radius = options.radius or float(away.norm())
    azimuth, elevation, factor = _dome_coordinates(options)
    azimuth = azimuth + source_azimuth
    reach = (radius * factor).clamp(*options.radius_limits)
    direction = torch.stack(
        (elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()), dim=-1
    )
    jitter = (torch.rand(len(azimuth), 3, generator=random, dtype=torch.float64) * 2 - 1) * options.jitter
    eyes = target + reach[:, None] * direction + jitter
    eyes[:, 2] = eyes[:, 2].clamp(min=floor_height + options.floor_clearance)
    return look_at(eyes, target)


def spherical(offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Azimuth, elevation and radius, each ``[...]``, of offsets ``[..., 3]`` from a dome's centre."""
    radius = offset.norm(dim=-1)
    return torch.atan2(offset[..., 1], offset[..., 0]), torch.asin(offset[..., 2] / radius), radius


def dome_cameras(
    targets: Sequence[Target], cameras: CameraList, options: DomeOptions, floor_height: float, seed: int
) -> CameraList:
    """The domes of one scene's targets as one list, with the image size and intrinsics of the original views.

    ``info`` of each camera says what it was made for: target class, index, point, pixel and frame, and the camera's
    azimuth, elevation and radius after jitter.
    """
    names: list[str] = []
    info: list[dict] = []
    poses = [torch.zeros(0, 4, 4, dtype=torch.float64)]
    intrinsics = [torch.zeros(0, 3, 3, dtype=torch.float64)]
    for number, target in enumerate(targets):
        random = generator(seed, cameras.scene, number)
        dome = dome_poses(target.point, target.eye, options, floor_height, random)
        angles = torch.stack(spherical(dome[:, :3, 3] - target.point), dim=-1)
        class_name = CLASS_NAMES[target.class_index]
        names += [f"dome{number:02d}_{class_name.replace(' ', '-')}_{k:03d}" for k in range(len(dome))]
        info += [
            {
                "target": number,
                "target_class": class_name,
                "target_class_index": target.class_index,
                "target_point": target.point.tolist(),
                "source_frame": target.frame,
                "source_pixel": list(target.pixel),
                "source_coverage": round(target.coverage, 4),
                "azimuth": azimuth,
                "elevation": elevation,
                "radius": radius,
            }
            for azimuth, elevation, radius in angles.tolist()
        ]
        poses.append(dome)
        intrinsics.append(cameras.intrinsics[target.view].double().expand(len(dome), 3, 3))
    return CameraList(
        scene=cameras.scene, names=names, camera_to_world=torch.cat(poses), intrinsics=torch.cat(intrinsics),
        image_size=tuple(cameras.image_size), info=info,
    )


def floor_height(
    vertices: Tensor,  # float32 [Nv, 3]
    nyu40_labels: Tensor | None,  # int32 [Nv]
) -> float:
    """Height of the floor: the median of its labelled vertices, else the 1st percentile of all."""
    heights = vertices[:, 2].double()
    if nyu40_labels is not None and (nyu40_labels == _NYU40_FLOOR).any():
        return float(heights[nyu40_labels == _NYU40_FLOOR].median())
    rank = max(1, round(0.01 * len(heights)))
    return float(heights.kthvalue(rank).values)

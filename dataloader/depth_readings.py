"""Were depth maps written otherwise than they are read: as distances along the rays, mirrored or upside down?

Renderers and some sensors' tools write distances, which are the same as depth along the optical axis in a picture's
middle and a fifth more in its corners: rooms get bent walls, and most of what is compared roughly still agrees. For
fisheye lenses, distances are what is expected, and depth along the axis is the mistake. Depth cameras that are mounted
or read out the other way round give mirrored or turned maps beside upright photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dataloader.contradiction import Contradiction
from dataloader.depth_errors import depth_errors
from dataloader.scene import Scene
from dataloader.view_agreement import Pairs
from utils.cameras import pixel_directions, pixel_grid, project_local


class _Reading(NamedTuple):
    """What the files hold, what is expected, what to do, and the pairs that these files would then give."""

    held: str
    expected: str
    remedy: str
    read: Callable[[Pairs], Pairs]


def find_reading(scene: Scene, pairs: Pairs) -> Contradiction | None:
    """That depth maps would fit if they were read otherwise, or None."""
    given = depth_errors(pairs, scene.camera_to_world)
    tried = [(reading, depth_errors(reading.read(pairs), scene.camera_to_world)) for reading in _readings(pairs)]
    fitting = [(reading, errors) for reading, errors in tried if errors.clearly_better(given)]
    if not fitting:
        return None
    reading, errors = min(fitting, key=lambda pair: pair[1].mean)
    return Contradiction(
        f"its depth maps hold {reading.held}, and {reading.expected} is expected: they are {given.mean:.1%} off what "
        f"other cameras measured, and {errors.mean:.1%} if they are read so",
        f"write the depth maps again, {reading.remedy}",
    )  # fmt: skip


def _readings(pairs: Pairs) -> list[_Reading]:
    rays, axis = "distances along the rays", "depth along the optical axis"
    measured = _Reading(axis, rays, "each pixel divided by the cosine of its ray's angle", _from_axis) \
        if pairs.is_fisheye else \
        _Reading(rays, axis, "each pixel divided by sqrt(1 + ((u - cx) / fx)^2 + ((v - cy) / fy)^2)", _from_rays)
    turned = (((1,), "mirrored pictures", "mirrored from left to right"),
              ((0,), "mirrored pictures", "mirrored from top to bottom"),
              ((0, 1), "pictures that are upside down", "turned by 180 degrees"))  # fmt: skip
    return [measured, *(
        _Reading(held, "depth of the photographs' pixels", remedy, partial(_flipped, axes=axes))
        for axes, held, remedy in turned
    )]  # fmt: skip


def _cosines(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Of the rays' angles to the optical axis: of the points ``[P, K, 1]``, and of pixels ``[h, w]``."""
    height, width = pairs.depths.shape[1:]
    directions = pixel_directions(pixel_grid(height, width, dtype=torch.float64), pairs.intrinsics, pairs.lens)
    return pairs.points[..., 2:] / pairs.points.norm(dim=-1, keepdim=True), directions[..., 2] / directions.norm(dim=-1)


def _from_rays(pairs: Pairs) -> Pairs:
    points, pixels = _cosines(pairs)
    return pairs._replace(points=pairs.points * points, depths=(pairs.depths * pixels).float())


def _from_axis(pairs: Pairs) -> Pairs:
    """The axis says nothing of what is beside or behind the camera."""
    points, pixels = _cosines(pairs)
    points = torch.where(points > 1e-3, pairs.points / points, torch.nan)
    return pairs._replace(points=points, depths=torch.where(pixels > 1e-3, pairs.depths / pixels, 0).float())


def _flipped(pairs: Pairs, axes: tuple[int, ...]) -> Pairs:
    """Pictures with their rows (axis 0), columns (1) or both in the other order."""
    sides = pairs.depths.shape[1:]
    uv, depth = project_local(pairs.points.nan_to_num(1.0), pairs.intrinsics, pairs.lens)
    u, v = uv.unbind(-1)
    uv = torch.stack((sides[1] - u if 1 in axes else u, sides[0] - v if 0 in axes else v), dim=-1)
    points = pixel_directions(uv, pairs.intrinsics, pairs.lens) * depth[..., None]
    points = torch.where(torch.isfinite(pairs.points), points, torch.nan)
    return pairs._replace(points=points, depths=pairs.depths.flip([1 + axis for axis in axes]))

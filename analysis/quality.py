"""How far a rendered pixel of a novel view can be trusted, from how the scene was observed.

The paper asks for "a metric that measures the render quality in various areas of the images". A radiance field is
right where it was seen: a pixel's surface point is projected into the original views, and each view that saw it
(its own depth there agrees) supports it, the more the smaller the angle between the two viewing directions and the
nearer that view was. Support saturates: quality_observed = 1 - exp(-support). It is multiplied with the field's
opacity and with how well the field's depth agrees with the mesh's, where there is one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import gin
import numpy as np
import torch
from torch import Tensor

from analysis.identity import store_identity
from dataloader import CameraList, ViewStore, add_channel
from utils.cameras import pixel_grid, project, unproject
from utils.errors import UserError
from utils.progress import progress


@gin.configurable
@dataclass(frozen=True)
class QualityOptions:
    """What counts as observed.

    Attributes:
        max_views: original views used, spread evenly over the trajectory.
        angle_scale: radians; a view from this angle beside the novel one supports a point 1/e as much.
        depth_tolerance: relative; a view saw a point when its depth there agrees to this share of the distance.
        consistency_scale: relative; quality falls to 1/e when field and mesh differ in depth by this share.
    """

    max_views: int = 200
    angle_scale: float = 0.35
    depth_tolerance: float = 0.05
    consistency_scale: float = 0.1


@dataclass(frozen=True)
class Observers:
    """The views that the field was fitted to, with their depth."""

    camera_to_world: Tensor  # float32 [K, 4, 4]
    intrinsics: Tensor  # float32 [K, 3, 3]
    depth: Tensor  # float32 [K, H, W], metres along the optical axis, 0 = unknown

    @staticmethod
    def from_store(path: str | Path, max_views: int, exclude: frozenset[str] = frozenset()) -> Observers:
        """At most ``max_views`` views of a store, evenly spread, without the frames named in ``exclude``.

        Raises:
            UserError: the store has no depth, or no view is left.
        """
        store = ViewStore.open(path)
        channel = depth_channel(store)
        views = [index for index, name in enumerate(store.cameras.names) if name not in exclude]
        if not views:
            raise UserError(f"{path} has no views to take observations from")
        spread = torch.linspace(0, len(views) - 1, min(max_views, len(views))).round().long().unique()
        chosen = [views[k] for k in spread.tolist()]
        return Observers(
            camera_to_world=store.cameras.camera_to_world[chosen].float(),
            intrinsics=store.cameras.intrinsics[chosen].float(),
            depth=torch.stack([store.read(channel, index) for index in chosen]),
        )


def depth_channel(store: ViewStore) -> str:
    """Name of the depth to trust: the mesh's where the store has it, else the field's."""
    return "depth_mesh" if "depth_mesh" in store.channels else "depth"


def observation_support(
    points: Tensor,  # float32 [P, 3]
    eye: Tensor,  # float32 [3]
    observers: Observers,
    options: QualityOptions,
) -> Tensor:  # float32 [P]
    """How much the observers support what ``eye`` sees at ``points``; 1 for one view from the same place.

    Each view that saw the point adds exp(-(angle / angle_scale)^2), times (d / d')^2 when it stood at distance
    d' farther than the eye's d: a surface seen from afar has fewer of its pixels.
    """
    offset = eye - points
    distance = offset.norm(dim=-1).clamp(min=1e-6)
    support = torch.zeros_like(distance)
    for pose, intrinsics, depth in zip(observers.camera_to_world, observers.intrinsics, observers.depth, strict=True):
        seen = _was_seen(points, pose, intrinsics, depth, options.depth_tolerance)
        toward = pose[:3, 3] - points
        reach = toward.norm(dim=-1).clamp(min=1e-6)
        angle = torch.acos(((toward * offset).sum(-1) / (reach * distance)).clamp(-1, 1))
        weight = torch.exp(-((angle / options.angle_scale) ** 2)) * (distance / reach).clamp(max=1) ** 2
        support += torch.where(seen, weight, 0.0)
    return support


def _was_seen(points: Tensor, pose: Tensor, intrinsics: Tensor, depth: Tensor, tolerance: float) -> Tensor:
    """Whether each of ``points [P, 3]`` is the surface that a view's ``depth [H, W]`` shows at its pixel."""
    height, width = depth.shape
    uv, point_depth = project(points, intrinsics, pose)
    column, row = uv[:, 0].floor(), uv[:, 1].floor()
    inside = (point_depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.where(inside, row * width + column, 0.0).long()
    surface = depth.flatten()[index]
    return inside & (surface > 0) & ((point_depth - surface).abs() <= tolerance * surface)


def estimate_quality(
    depth: Tensor,  # float32 [H, W], metres along the optical axis, 0 = no surface
    intrinsics: Tensor,  # float32 [3, 3]
    camera_to_world: Tensor,  # float32 [4, 4]
    observers: Observers,
    options: QualityOptions,
    alpha: Tensor | None = None,  # float32 [H, W]
    field_depth: Tensor | None = None,  # float32 [H, W], the field's, to compare with a ``depth`` that is the mesh's
) -> Tensor:  # float32 [H, W] in 0..1
    """Estimated render quality of every pixel of one view; 0 where there is no surface."""
    surface = depth > 0
    uv = pixel_grid(*depth.shape)[surface]
    points = unproject(uv, depth[surface], intrinsics, camera_to_world)
    support = observation_support(points, camera_to_world[:3, 3], observers, options)
    quality = torch.zeros_like(depth)
    quality[surface] = 1 - torch.exp(-support)
    if alpha is not None:
        quality = quality * alpha
    if field_depth is not None:
        difference = (field_depth - depth).abs() / depth.clamp(min=1e-6)
        quality = quality * torch.exp(-difference / options.consistency_scale)
    return quality


def view_quality(store: ViewStore, view: int, channel: str, observers: Observers, options: QualityOptions) -> Tensor:
    """Quality ``[H, W]`` of one stored view, with whatever of alpha and the two depths the store has."""
    cameras: CameraList = store.cameras
    both_depths = channel == "depth_mesh" and "depth" in store.channels
    return estimate_quality(
        store.read(channel, view),
        cameras.intrinsics[view].float(),
        cameras.camera_to_world[view].float(),
        observers,
        options,
        alpha=store.read("alpha", view) if "alpha" in store.channels else None,
        field_depth=store.read("depth", view) if both_depths else None,
    )


def add_quality(
    novel_store: str | Path,
    original_store: str | Path,
    options: QualityOptions,
    exclude: frozenset[str] = frozenset(),
    overwrite: bool = False,
) -> bool:
    """Add the channel ``quality`` to a store of rendered views.

    Args:
        novel_store: the store to rate; it needs depth.
        original_store: the same scene's views that the field was fitted to.
        exclude: frames of ``original_store`` that were held out of the fit.
        overwrite: replace a channel that was made with other settings.

    Returns:
        False when the channel is there already.

    Raises:
        UserError: it is there with other settings, or a store has no depth.
    """
    store = ViewStore.open(novel_store)
    channel = depth_channel(store)
    depths = ("depth", "depth_mesh")
    settings = {
        "options": asdict(options),
        "views": store_identity(novel_store, (*depths, "alpha")),
        "observers": store_identity(original_store, depths),
        "exclude": sorted(exclude),
    }

    def fill(quality: np.ndarray) -> None:
        observers = Observers.from_store(original_store, options.max_views, exclude)
        for view in progress(range(len(store)), f"quality of {store.scene}", unit="view"):
            quality[view] = (view_quality(store, view, channel, observers, options) * 255).round().byte().numpy()

    return add_channel(novel_store, "quality", fill, settings, overwrite)

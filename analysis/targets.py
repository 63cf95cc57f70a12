"""Targets of novel views: objects of rare classes on the labelled mesh that original views see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import gin
import numpy as np
import torch
from torch import Tensor

from analysis.instances import Instance, find_instances
from analysis.surface import surface_depth
from dataloader import CameraList, Mesh, ViewStore
from dataloader.hold_out import held_out_views
from model.visibility import was_seen
from utils.cameras import scale_intrinsics
from utils.errors import UserError

_LEAST_MERGE_DISTANCE = 0.005
_MAX_POINTS = 400  # of an object's surface that are looked for in the original views


@gin.configurable
@dataclass(frozen=True)
class TargetOptions:
    """Which objects become targets.

    Attributes:
        min_area: square metres; smaller objects are left out.
        merge_distance: metres; parts of one class that are nearer than this are one object.
        max_per_class: most targets of one class in one scene, the largest first; 0 is no limit.
        min_views: original views that must see an object; what none saw, no field can show.
        min_seen: share of an object's surface that a view must show to count.
        depth_tolerance: relative; a view whose depth agrees to this share of the distance sees the point.
        held_out: whether frames that were held out of the field count as views that see an object, and give heights,
            roll and focal lengths, as is right where whole scenes train or test; with False, what they show does not
            decide where the new cameras look.
    """

    min_area: float = 0.05
    merge_distance: float = 0.06
    max_per_class: int = 6
    min_views: int = 1
    min_seen: float = 0.1
    depth_tolerance: float = 0.05
    held_out: bool = True

    def __post_init__(self) -> None:
        if self.merge_distance < _LEAST_MERGE_DISTANCE:
            raise UserError(f"TargetOptions.merge_distance = {self.merge_distance}: expected at least "
                            f"{_LEAST_MERGE_DISTANCE} m; surfaces are searched by points that lie half as far apart")


@dataclass(frozen=True)
class Target:
    """An object, and the original view that shows most of it."""

    instance: Instance
    number: int  # among the targets of its class in the scene, from 0
    frame: str
    views: int  # original views that see it


def check_targets(store: ViewStore, options: TargetOptions) -> None:
    """Raise :class:`UserError` when a store lacks what :func:`find_targets` needs of it."""
    if "depth_mesh" not in store.channels:
        store.check_channel("depth")
    usable_views(store, options)


def usable_views(store: ViewStore, options: TargetOptions) -> list[int]:
    """The original views that may decide where new cameras look.

    Raises:
        UserError: held-out views are to be left out, and the store does not say which are.
    """
    left_out = set() if options.held_out else set(held_out_views(store))
    return [view for view in range(len(store.cameras)) if view not in left_out]


def find_targets(mesh: Mesh, store: ViewStore, classes: Sequence[int], options: TargetOptions) -> list[Target]:
    """Objects of the given classes that original views see, in the classes' order, the largest of a class first.

    Args:
        mesh: with labels.
        store: the scene's original views, with depth (see :func:`analysis.surface.surface_depth`).
        classes: class indices by priority.
        options: which objects count.

    Raises:
        UserError: a channel is missing, or the mesh has no labels.
    """
    if mesh.labels is None:
        raise UserError(f"the mesh of {store.scene} has no labels; give the scene's labelled mesh")
    views = usable_views(store, options)
    depths = (surface_depth(store, view) for view in views)
    return targets_seen(mesh, store.cameras.select(views), depths, classes, options)


def targets_seen(
    mesh: Mesh, cameras: CameraList, depths: Iterable[Tensor], classes: Sequence[int], options: TargetOptions
) -> list[Target]:
    """As :func:`find_targets`, of objects that these cameras see.

    Args:
        mesh: with labels.
        depths: float32 ``[H, W]`` of each camera, metres along the optical axis, 0 = unknown; of any size.
    """
    instances = find_instances(mesh, classes, options.merge_distance, options.min_area)
    shares = _seen_shares(cameras, depths, [_some_points(instance) for instance in instances], options.depth_tolerance)
    targets: list[Target] = []
    for instance, seen in zip(instances, shares, strict=True):
        number = sum(target.instance.class_index == instance.class_index for target in targets)
        count = int((seen >= options.min_seen).sum())
        if count >= options.min_views and not (options.max_per_class and number >= options.max_per_class):
            best = cameras.names[int(seen.argmax())] if len(cameras) else ""
            targets.append(Target(instance, number, best, count))
    return targets


def _some_points(instance: Instance) -> Tensor:
    """Up to 400 points of an object's surface, evenly spread by area; float32 ``[P, 3]``."""
    reached = instance.surface.weight.cumsum() / instance.surface.weight.sum()
    wanted = (np.arange(min(_MAX_POINTS, len(reached))) + 0.5) / min(_MAX_POINTS, len(reached))
    return torch.from_numpy(instance.surface.points[np.searchsorted(reached, wanted)]).float()


def _seen_shares(
    cameras: CameraList, depths: Iterable[Tensor], objects: Sequence[Tensor], tolerance: float
) -> Tensor:  # float32 [objects, views]
    """Share of each object's points that each view shows."""
    shares = torch.zeros(len(objects), len(cameras))
    for column, depth in enumerate(depths if objects else ()):
        size = tuple(depth.shape)
        pose = cameras.camera_to_world[column].float()
        intrinsics = scale_intrinsics(cameras.intrinsics[column], cameras.image_size, size).float()
        for row, points in enumerate(objects):
            seen = was_seen(points, pose, intrinsics, depth, tolerance, cameras.lens)
            shares[row, column] = seen.float().mean()
    return shares

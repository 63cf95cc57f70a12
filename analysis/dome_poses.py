"""Poses around objects of rare classes that are new in every epoch, with the quality of what is rendered from there.

Where a camera can stand is searched once a scene, as 'sample' does, but on the mesh alone and without stores: the
recorded cameras' depth is that of the mesh. Every time a view is drawn, one of these places is moved by less than the
space that is free around it, and aimed anew. Its pixels are weighted by their estimated render quality
(docs/quality.md), without photographs' evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import gin
import torch
from torch import Tensor

from analysis.dome_selection import DomeSelector, SelectionOptions
from analysis.domes import DomeOptions, aim, floor_height, roll_of
from analysis.filtering import FilterOptions
from analysis.observers import Observers
from analysis.quality import QualityEstimator, QualityOptions, View
from analysis.room_space import RoomSpace, SpaceOptions
from analysis.targets import TargetOptions, targets_seen
from dataloader import CameraList, Mesh
from enet.fresh_poses import FreshPoses, Poses, ScenePoses, directions_of
from model.annotated_field import AnnotatedViews
from model.annotation import annotate_views
from model.radiance_field import RadianceField
from utils.cameras import opaque_depth
from utils.errors import UserError
from utils.labels import class_index, label_set

_OPTIONS = {
    "domes": DomeOptions, "selection": SelectionOptions, "space": SpaceOptions, "targets": TargetOptions,
    "filter": FilterOptions, "quality": QualityOptions,
}  # fmt: skip
_SMALL = 2  # the recorded cameras' depth is looked at in images of half the views' sides


@gin.configurable
@dataclass(frozen=True)
class DomePoses(FreshPoses):
    """New poses around objects of rare classes, in every epoch others.

    The groups of 'sample' and 'rate' say where cameras stand and what is seen: DomeOptions, SelectionOptions,
    SpaceOptions, TargetOptions, FilterOptions, QualityOptions.

    Attributes:
        classes: "paper" (the paper's list of rare classes), or a list of class names.
        share: of the views that are drawn so; the others keep their recorded poses, and so do all of a scene without
            such an object.
        places: most places of each object, searched when a scene is first needed.
        metres: a place is moved by up to this each time; less than SpaceOptions.clearance.
        observers: recorded cameras, evenly spread, that are asked what was observed.
        seed: of the search.
    """

    classes: str | Sequence[str] = "paper"
    share: float = 0.3
    places: int = 16
    metres: float = 0.15
    observers: int = 32
    seed: int = 0

    num_draws = 8  # whether; which place; the shift's direction and length; the aim's pixel; whose roll
    rates = True

    def __post_init__(self) -> None:
        clearance = SpaceOptions().clearance
        if not 0 <= self.metres < clearance:
            raise UserError(f"DomePoses.metres = {self.metres}: expected less than SpaceOptions.clearance = {clearance}"
                            ", so that no camera is moved into a surface")
        if not 0 <= self.share <= 1 or self.places < 1 or self.observers < 1:
            raise UserError(f"DomePoses.share = {self.share}, places = {self.places}, observers = {self.observers}: "
                            "expected a share from 0 to 1, and at least one place and one observer")
        if isinstance(self.classes, str) and self.classes != "paper":
            raise UserError(f"DomePoses.classes = {self.classes!r} is unknown; use 'paper' or a list of class names")

    def identity(self) -> dict[str, Any]:
        groups = {name: asdict(options()) for name, options in _OPTIONS.items()}
        return {"domes": {**asdict(self), "classes": self.class_indices()}, **groups}

    def class_indices(self) -> list[int]:
        """The classes; raises :class:`UserError` for an unknown name."""
        if self.classes == "paper":
            return list(label_set().tail)
        try:
            return [class_index(name) for name in self.classes]
        except ValueError as error:
            raise UserError(f"DomePoses.classes: {error}") from None

    def of_scene(self, scene: str, load_mesh: Callable[[], Mesh], cameras: CameraList) -> SceneDomes:
        return SceneDomes(self, find_places(self, load_mesh(), cameras), cameras)


class Places(NamedTuple):
    """Where cameras can stand, and what they look at there; all float64.

    poses ``[M, 4, 4]``; intrinsics ``[M, 3, 3]``; points ``[M, 3]``, aimed at.
    """

    poses: Tensor
    intrinsics: Tensor
    points: Tensor


def find_places(options: DomePoses, mesh: Mesh, cameras: CameraList) -> Places:
    """Places around the scene's objects of the wanted classes that ``cameras`` see; none where it has none."""
    quality, targeted = QualityOptions(), TargetOptions()
    spread = torch.linspace(0, len(cameras) - 1, min(quality.max_views, len(cameras))).round().long().unique()
    some = cameras.select(spread)
    small = some.resized(tuple(max(1, side // _SMALL) for side in some.image_size))
    depth = annotate_views(mesh, small).depth
    targets = targets_seen(mesh, small, depth, options.class_indices(), targeted)
    none = Places(torch.zeros(0, 4, 4).double(), torch.zeros(0, 3, 3).double(), torch.zeros(0, 3).double())
    if not targets:
        return none
    space = RoomSpace(mesh, some.camera_to_world[:, :3, 3].numpy(), SpaceOptions())
    seen = Observers(small.camera_to_world.float(), small.intrinsics.float(), depth)
    floor = floor_height(mesh.vertices, mesh.labels)
    selector = DomeSelector(mesh, some, seen, space, floor, options.seed, SelectionOptions())
    found = selector.choose(targets, options.places)
    parts = [none]
    for poses, intrinsics, info in zip(found.poses, found.intrinsics, found.info, strict=True):
        points = torch.tensor([entry["target_point"] for entry in info], dtype=torch.float64).reshape(-1, 3)
        parts.append(Places(*(torch.stack(values) for values in (poses, intrinsics)), points) if poses else none)
    return Places(*(torch.cat(values) for values in zip(*parts, strict=True)))


@dataclass(frozen=True)
class SceneDomes(ScenePoses):
    """The places of one scene.

    Attributes:
        options: how often and how far from them.
        places: may be none.
        cameras: the recorded ones.
    """

    options: DomePoses
    places: Places
    cameras: CameraList
    _estimators: dict[torch.device, QualityEstimator] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_estimators": {}}  # another process has its own device

    @cached_property
    def _rolls(self) -> Tensor:
        return roll_of(self.cameras.camera_to_world)

    def draw(self, recorded: Poses, draws: Tensor) -> tuple[Poses, Tensor]:
        count = len(self.places.poses)
        if not count:
            return recorded, torch.zeros(len(draws), dtype=torch.bool)
        draws = draws.double()
        chosen = draws[:, 0] < self.options.share
        place = (draws[:, 1] * count).long().clamp(max=count - 1)
        intrinsics = self.places.intrinsics[place]
        shift = self.options.metres * draws[:, 4, None] ** (1 / 3) * directions_of(draws[:, 2:4])
        height, width = self.cameras.image_size
        half = torch.tensor([width, height], dtype=torch.float64) / 2
        pixels = intrinsics[:, :2, 2] + DomeOptions().aim_noise * (2 * draws[:, 5:7] - 1) * half
        rolls = self._rolls[(draws[:, 7] * len(self._rolls)).long().clamp(max=len(self._rolls) - 1)]
        poses = aim(self.places.poses[place, :3, 3] + shift, self.places.points[place], pixels, intrinsics, rolls)
        return Poses(
            torch.where(chosen[:, None, None], poses, recorded.camera_to_world),
            torch.where(chosen[:, None, None], intrinsics, recorded.intrinsics),
        ), chosen

    def quality(self, views: AnnotatedViews, poses: Poses, field: RadianceField) -> Tensor:
        device = views.alpha.device
        if device not in self._estimators:
            self._estimators[device] = QualityEstimator(self._observers(field), QualityOptions())
        camera_to_world, intrinsics = (values.float().to(device, non_blocking=True) for values in poses)
        view = View(views.rgb, views.alpha, opaque_depth(views.depth, views.alpha), views.surface, camera_to_world,
                    intrinsics)  # fmt: skip
        return self._estimators[device].estimate(view)

    def _observers(self, field: RadianceField) -> Observers:
        """Recorded cameras with the field's depth, on its device; each stands for as many as were left out."""
        all_views, count = len(self.cameras), min(self.options.observers, len(self.cameras))
        chosen = torch.linspace(0, all_views - 1, count).round().long().unique()
        cameras = self.cameras.select(chosen)
        parts = field.render_cameras(cameras, outputs=("depth", "alpha"))
        depth = torch.cat([opaque_depth(views.depth, views.alpha) for _, views in parts])
        each = min(all_views, QualityOptions().max_views) / len(chosen)
        poses = (values.float().to(depth.device) for values in (cameras.camera_to_world, cameras.intrinsics))
        return Observers(*poses, depth, each)

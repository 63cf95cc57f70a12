"""The cameras of live views: computed on the CPU, in double precision, and brought to the device once a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dataloader import SceneTransform
from dataloader.label_mesh import load_label_mesh
from dataloader.perfception import TRANSFORM_FILE
from enet.draws import NUM_DRAWS
from enet.fresh_poses import FreshPoses, Poses, ScenePoses
from enet.geometry import pixel_to_gravity
from enet.live_scenes import LiveScene
from enet.sh_frames import sh_matrices
from enet.view_source import Step
from model.annotated_field import SceneCameras
from model.capture import CaptureModel
from model.radiance_field import PlacedViews, place_views
from utils.cameras import rigid_inverse
from utils.cores import usable_cores
from utils.progress import progress
from utils.threads import ordered_map

_RAYS_AT_ONCE = 1 << 22  # of all scenes of a batch, which saves a GPU many small kernels; more are made scene by scene


class LiveCameras:
    """The recorded cameras of all scenes, numbered through, and what draws new poses.

    Args:
        scenes: with their cameras, of one image size.
        fresh: draws new poses for views with random numbers; None leaves the recorded ones.
        sh_frame: axes that SH are given in where they are turned or mirrored; None where they are not.
        with_geometry: whether geometry is made of the views.

    Attributes:
        scene: int64 [N], number of each view's scene.
        fresh: as given.
    """

    def __init__(
        self, scenes: Sequence[LiveScene], fresh: FreshPoses | None, sh_frame: str | None, with_geometry: bool
    ):
        self._scenes, self.fresh = scenes, fresh
        self._sh_frame, self._with_geometry = sh_frame, with_geometry
        counts = torch.tensor([len(scene.cameras) for scene in scenes])
        self.scene = torch.repeat_interleave(counts)
        self._first = counts.cumsum(0) - counts
        self._recorded = Poses(
            torch.cat([scene.cameras.camera_to_world for scene in scenes]),
            torch.cat([scene.cameras.intrinsics for scene in scenes]),
        )
        self._placements: dict[int, _Placement] = {}
        self._drawers: dict[int, ScenePoses] = {}

    def __len__(self) -> int:
        return len(self.scene)

    def describe(self, view: int) -> str:
        """Which view a number is, for people."""
        number = int(self.scene[view])
        scene = self._scenes[number]
        return f"view {scene.cameras.names[view - int(self._first[number])]} of {scene.name}"

    def drawer(self, scene: int) -> ScenePoses:
        """What draws poses of a scene, made when it is first asked for."""
        if scene not in self._drawers:
            files = self._scenes[scene]
            self._drawers[scene] = self.fresh.of_scene(files.name, lambda: load_label_mesh(files.scan), files.cameras)
        return self._drawers[scene]

    def prepare(self) -> None:
        """Make what draws poses in each scene, several scenes at a time, each on one core.

        Raises:
            UserError: a mesh cannot be read.
        """
        if self.fresh is None:
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # of those that ordered_map starts
        try:
            made = ordered_map(self.drawer, range(len(self._scenes)), usable_cores())
            for _ in progress(made, "places of new poses", len(self._scenes), "scene"):
                pass
        finally:
            torch.set_num_threads(threads)

    def of_step(self, step: Step) -> BatchCameras:
        """Of a step's views; new ones where it has random numbers and something draws them.

        Raises:
            UserError: a field's placement, or a mesh that poses are drawn by, cannot be read.
        """
        scene = self.scene[step.views]
        order = scene.argsort(stable=True)
        ordered = step.views[order]
        poses = Poses(self._recorded.camera_to_world[ordered], self._recorded.intrinsics[ordered])
        drawn = torch.zeros(len(ordered), dtype=torch.bool)
        by_scene = _runs(scene[order])
        if step.draws is not None and self.fresh is not None:
            draws = step.draws[order, NUM_DRAWS:]
            parts = [self.drawer(number).draw(_cut(poses, rows), draws[rows]) for number, rows in by_scene]
            poses = Poses(*(torch.cat(values) for values in zip(*(part for part, _ in parts), strict=True)))
            drawn = torch.cat([new for _, new in parts])
        placements = [self._placement(number) for number, _ in by_scene]
        placed = [place_views(placement.transform, placement.capture, *_cut(poses, rows))
                  for placement, (_, rows) in zip(placements, by_scene, strict=True)]  # fmt: skip
        matrices = None
        if self._sh_frame is not None:
            rotations = torch.cat([placement.transform.rotation.expand(rows.stop - rows.start, 3, 3)
                                   for placement, (_, rows) in zip(placements, by_scene, strict=True)])  # fmt: skip
            matrices = sh_matrices(self._sh_frame, poses.camera_to_world[:, :3, :3], rotations)
        to_gravity = pixel_to_gravity(*poses) if self._with_geometry else None
        return BatchCameras(order, by_scene, poses, drawn, _joined(placed), matrices, to_gravity)

    def _placement(self, scene: int) -> _Placement:
        if scene not in self._placements:
            folder = self._scenes[scene].field
            transform = SceneTransform.load(Path(folder) / TRANSFORM_FILE)
            self._placements[scene] = _Placement(transform, CaptureModel.load(folder))
        return self._placements[scene]


class _Placement(NamedTuple):
    transform: SceneTransform
    capture: CaptureModel | None


@dataclass(frozen=True)
class BatchCameras:
    """Cameras of a batch's B views on the CPU, scene by scene.

    Attributes:
        order: int64 [B], the place in the batch of each.
        by_scene: numbers of the scenes, and which of the cameras are theirs.
        poses: in the world.
        drawn: bool [B], which of them are new.
        placed: in the fields' frames.
        sh_matrices, to_gravity: of :class:`enet.decoding.ViewImages`, or None.
    """

    order: Tensor
    by_scene: list[tuple[int, slice]]
    poses: Poses
    drawn: Tensor
    placed: PlacedViews
    sh_matrices: Tensor | None
    to_gravity: Tensor | None

    def poses_of(self, rows: slice) -> Poses:
        """A scene's part of the poses."""
        return _cut(self.poses, rows)

    def to(self, device: torch.device, size: tuple[int, int]) -> DeviceCameras:
        """The same on a device, in one copy that the host does not wait for, with rays of views of ``size``."""
        place = self.order.argsort()  # of each view of the batch among these
        in_batch = (None if values is None else values[place] for values in (self.sh_matrices, self.to_gravity))
        values = (*self.placed, rigid_inverse(self.poses.camera_to_world), *in_batch)
        *placed, world_to_camera, sh, to_gravity, place_there = _copied((*values, place), device)
        sh, to_gravity = (None if value is None else value.float() for value in (sh, to_gravity))
        pose, intrinsics, gain, offset = placed
        exposure = (None, None) if gain is None else (gain.float(), offset.float())
        in_order = bool((place[1:] > place[:-1]).all())
        views = PlacedViews(pose, intrinsics, *exposure)
        at_once = len(place) * size[0] * size[1] <= _RAYS_AT_ONCE
        return DeviceCameras(
            SceneCameras(views, world_to_camera, views.rays(size) if at_once else None),
            None if in_order else place_there.long(), sh, to_gravity,
        )  # fmt: skip


class DeviceCameras(NamedTuple):
    """Cameras of a batch's views on the device, scene by scene; order: int64 [B], where each of the batch's views is
    among them, None where they are in the batch's order; the others are of the batch's views in its order."""

    cameras: SceneCameras
    order: Tensor | None
    sh_matrices: Tensor | None
    to_gravity: Tensor | None

    def of(self, rows: slice) -> SceneCameras:
        """A scene's part."""
        placed = PlacedViews(*(None if values is None else values[rows] for values in self.cameras.placed))
        rays = None if self.cameras.rays is None else tuple(values[rows] for values in self.cameras.rays)
        return SceneCameras(placed, self.cameras.world_to_camera[rows], rays)


def _runs(scene: Tensor) -> list[tuple[int, slice]]:
    """Numbers that follow each other, and where they stand."""
    numbers, counts = scene.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0).tolist()
    return [(number, slice(end - count, end)) for number, count, end in
            zip(numbers.tolist(), counts.tolist(), ends, strict=True)]  # fmt: skip


def _cut(poses: Poses, rows: slice) -> Poses:
    return Poses(*(values[rows] for values in poses))


def _joined(placed: Sequence[PlacedViews]) -> PlacedViews:
    """Of all scenes; where some have exposures, the others have those that change nothing."""
    poses, intrinsics = (torch.cat(values) for values in list(zip(*placed, strict=True))[:2])
    if all(part.gain is None for part in placed):
        return PlacedViews(poses, intrinsics, None, None)
    gains = [torch.ones(len(part.pose), 3) if part.gain is None else part.gain for part in placed]
    offsets = [torch.zeros(len(part.pose), 3) if part.offset is None else part.offset for part in placed]
    return PlacedViews(poses, intrinsics, torch.cat(gains), torch.cat(offsets))


def _copied(tensors: Sequence[Tensor | None], device: torch.device) -> list[Tensor | None]:
    """Tensors ``[B, ...]`` on a device as float64, which holds their numbers exactly; in one copy."""
    given = [values for values in tensors if values is not None]
    packed = torch.cat([values.flatten().double() for values in given])
    if device.type == "cuda":
        packed = packed.pin_memory()
    packed = packed.to(device, non_blocking=True)
    parts = iter(zip(packed.split([values.numel() for values in given]), given, strict=True))
    shaped = (part.view(values.shape) for part, values in parts)
    return [None if values is None else next(shaped) for values in tensors]

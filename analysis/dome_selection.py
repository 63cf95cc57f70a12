"""From candidates to cameras: what cannot stand, does not see its target or is there already is refused.

Candidates of a target are drawn in batches from a stream of their own, which the seed, the scene, the target's class
and its number decide. The chosen ones are in the stream's order, so a smaller budget takes the first of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gin
import numpy as np
import torch
from torch import Tensor

from analysis.domes import Candidates, DomeOptions, Trajectory, draw_candidates, spherical
from analysis.filtering import FilterOptions, judge_views
from analysis.observers import Observers
from analysis.quality import QualityOptions
from analysis.room_space import PLACE_REASONS, RoomSpace
from analysis.targets import Target
from dataloader import CameraList, Mesh
from lib.raster import rasterize
from model.annotation import face_labels, vertex_labels
from utils.cameras import rigid_inverse
from utils.labels import label_set
from utils.seeding import numpy_generator

CANDIDATE_REASONS = {
    **PLACE_REASONS,
    "target_hidden": "the object itself shows too little in the view",
    "unobserved": "recorded cameras saw too little of what the view shows, or from too far around",
    "duplicate": "a recorded or chosen camera is near and looks the same way",
}


@gin.configurable
@dataclass(frozen=True)
class SelectionOptions:
    """How candidates are tried and judged.

    Attributes:
        candidates: most that are drawn for a target.
        batch: candidates drawn at a time.
        size: height and width of the small images of the mesh in which candidates are judged.
        coverage_margin: added to FilterOptions.min_coverage, since a small image is coarse.
        min_target_share: share of a view's pixels that must show the very object, not only its class.
        min_observed: mean support of a view's pixels by recorded cameras, 0 to 1, from how near to the view's own
            directions these saw the same surface (:mod:`analysis.observers`); the field is not asked.
        at_least: cameras of a target that are taken though they are less observed, the most observed ones, where fewer
            are found, so that no target ends without any for that reason.
        duplicate_distance: metres; cameras nearer than this are duplicates if they also look the same way.
        duplicate_angle: radians between the optical axes of duplicates.
    """

    candidates: int = 512
    batch: int = 64
    size: Sequence[int] = (31, 31)
    coverage_margin: float = 0.02
    min_target_share: float = 0.1
    min_observed: float = 0.25
    at_least: int = 2
    duplicate_distance: float = 0.15
    duplicate_angle: float = 0.2


@dataclass
class Selection:
    """The cameras chosen for the targets of one scene, and what became of the other candidates.

    Attributes:
        poses, intrinsics: of each target's chosen cameras, float64 ``[M, 4, 4]`` and ``[M, 3, 3]``.
        info: of each target's chosen cameras.
        reasons: refused candidates of each target by reason.
        refused: places ``[3]`` of refused candidates with their reason.
    """

    poses: list[list[Tensor]] = field(default_factory=list)
    intrinsics: list[list[Tensor]] = field(default_factory=list)
    info: list[list[dict[str, Any]]] = field(default_factory=list)
    reasons: list[Counter] = field(default_factory=list)
    refused: list[tuple[list[float], str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Judged:
    """A candidate, what it was made for and shows where it can stand, and what is against it."""

    pose: Tensor  # float64 [4, 4]
    intrinsics: Tensor  # float64 [3, 3]
    info: dict[str, Any]
    reason: str


class DomeSelector:
    """Chooses cameras around the targets of one scene.

    Args:
        mesh: with labels.
        originals: recorded cameras.
        observers: those of them that the field was fitted to, with their depth.
        space: where a camera can stand.
        floor: the floor's height.
        seed: of all draws.
        options: how candidates are tried.
    """

    def __init__(
        self, mesh: Mesh, originals: CameraList, observers: Observers, space: RoomSpace, floor: float, seed: int,
        options: SelectionOptions,
    ):  # fmt: skip
        self._mesh, self._originals, self._space, self._seed = mesh, originals, space, seed
        self._observers, self._quality = observers, QualityOptions()
        self._domes, self._selection, self._filter = DomeOptions(), options, FilterOptions()
        self._filter = replace(
            self._filter, min_coverage=self._filter.min_coverage + self._selection.coverage_margin, min_quality=0.0
        )
        self._trajectory = Trajectory.of(originals, observers.depth, floor)
        self._labels = face_labels(vertex_labels(mesh.labels), mesh.faces)
        self._eyes = originals.camera_to_world[:, :3, 3]
        self._axes = originals.camera_to_world[:, :3, 2]

    def choose(self, targets: Sequence[Target], most: int) -> Selection:
        """Up to ``most`` cameras of every target."""
        selection = Selection()
        for target in targets:
            selection.reasons.append(Counter())
            chosen = self._choose_for(target, most, selection)
            selection.poses.append([candidate.pose for candidate in chosen])
            selection.intrinsics.append([candidate.intrinsics for candidate in chosen])
            selection.info.append([candidate.info for candidate in chosen])
        return selection

    def _choose_for(self, target: Target, most: int, selection: Selection) -> list[_Judged]:
        name = label_set().names[target.instance.class_index]
        random = numpy_generator(self._seed, "domes", self._originals.scene, name, target.number)
        chosen: list[_Judged] = []
        unobserved: list[_Judged] = []
        for _ in range(0, self._selection.candidates, self._selection.batch):
            batch = draw_candidates(target.instance, self._trajectory, self._domes, self._selection.batch, random)
            for candidate in self._judge(batch, target):
                if len(chosen) == most:
                    return chosen
                if candidate.reason == "unobserved":
                    unobserved.append(candidate)
                else:
                    self._take_or_refuse(candidate, chosen, selection)
        for candidate in sorted(unobserved, key=lambda candidate: -candidate.info["observed"]):
            reason = "" if len(chosen) < min(self._selection.at_least, most) else "unobserved"
            self._take_or_refuse(replace(candidate, reason=reason), chosen, selection)
        return chosen

    def _take_or_refuse(self, candidate: _Judged, chosen: list[_Judged], selection: Selection) -> None:
        """Add a candidate to the chosen ones, or count why not."""
        pose = candidate.pose
        reason = candidate.reason or ("duplicate" if self._is_duplicate(pose) else "")
        if reason:
            selection.reasons[-1][reason] += 1
            selection.refused.append((pose[:3, 3].tolist(), reason))
            return
        self._eyes = torch.cat((self._eyes, pose[None, :3, 3]))
        self._axes = torch.cat((self._axes, pose[None, :3, 2]))
        chosen.append(candidate)

    def _is_duplicate(self, pose: Tensor) -> bool:
        near = (self._eyes - pose[:3, 3]).norm(dim=1) < self._selection.duplicate_distance
        angle = torch.acos((self._axes @ pose[:3, 2]).clamp(-1, 1))
        return bool((near & (angle < self._selection.duplicate_angle)).any())

    def _judge(self, batch: Candidates, target: Target) -> list[_Judged]:
        """All candidates of a batch in their order, with what is against them but duplicates."""
        places = self._space.refuse(batch.camera_to_world[:, :3, 3].numpy())
        standing = [index for index, reason in enumerate(places) if not reason]
        verdicts = dict(zip(standing, self._verdicts(self._cameras(batch, standing, target), target), strict=True))
        judged = []
        for index, place in enumerate(places):
            info, reason = verdicts.get(index, ({}, place))
            judged.append(_Judged(batch.camera_to_world[index], batch.intrinsics[index], info, reason))
        return judged

    def _verdicts(self, cameras: CameraList, target: Target) -> list[tuple[dict[str, Any], str]]:
        """``info`` of cameras that can stand, and why their views are not good, by small images of the mesh."""
        if not len(cameras):
            return []
        small = cameras.resized(tuple(self._selection.size))
        fragments = rasterize(
            self._mesh.vertices, self._mesh.faces, rigid_inverse(small.camera_to_world), small.intrinsics,
            *small.image_size, outputs=("face", "depth"), lens=small.lens,
            tree=self._mesh.ray_tree() if small.lens else None,
        )  # fmt: skip
        own = torch.zeros(len(self._labels) + 1, dtype=torch.bool)  # the last one is for face -1
        own[torch.from_numpy(target.instance.faces)] = True
        labels = torch.cat((self._labels, self._labels.new_zeros(1)))
        judged = judge_views(labels[fragments.face.long()], fragments.depth, small, self._filter)
        shares = own[fragments.face.long()].flatten(1).float().mean(1).tolist()
        verdicts = []
        for view, (info, verdict, share) in enumerate(zip(cameras.info, judged, shares, strict=True)):
            reason = verdict["reason"]
            if not reason and share < self._selection.min_target_share:
                reason = "target_hidden"
            info = {**info, "target_share": round(share, 4)}
            if not reason:
                observed = self._observers.observed_share(
                    fragments.depth[view], small.intrinsics[view].float(), small.camera_to_world[view].float(),
                    self._quality.angle_scale, self._quality.depth_tolerance, small.lens,
                )  # fmt: skip
                info["observed"] = round(observed, 4)
                reason = "unobserved" if observed < self._selection.min_observed else ""
            verdicts.append((info, reason))
        return verdicts

    def _cameras(self, batch: Candidates, chosen: Sequence[int], target: Target) -> CameraList:
        """Candidates as cameras that know what they were made for."""
        poses, points = batch.camera_to_world[chosen], batch.points[chosen]
        angles = torch.stack(spherical(poses[:, :3, 3] - points), dim=-1).tolist()
        common = {
            "target_class": label_set().names[target.instance.class_index],
            "target_class_index": target.instance.class_index,
            "target_number": target.number,
            "target_area": round(target.instance.area, 4),
            "source_frame": target.frame,
        }
        info = [
            {**common, "target_point": point, "target_pixel": pixel, "azimuth": azimuth, "elevation": elevation,
             "radius": radius}
            for point, pixel, (azimuth, elevation, radius) in zip(
                points.tolist(), batch.pixels[chosen].tolist(), angles, strict=True)
        ]  # fmt: skip
        return CameraList(
            scene=self._originals.scene, names=[str(index) for index in chosen], camera_to_world=poses,
            intrinsics=batch.intrinsics[chosen], image_size=self._trajectory.image_size, info=info,
            lens=self._trajectory.lens,
        )  # fmt: skip


def selected_cameras(
    selection: Selection, counts: Sequence[int], targets: Sequence[Target], originals: CameraList
) -> CameraList:
    """The first ``counts`` cameras of each target as one list; ``info`` says what each was made for."""
    names: list[str] = []
    info: list[dict[str, Any]] = []
    poses, intrinsics = [torch.zeros(0, 4, 4, dtype=torch.float64)], [torch.zeros(0, 3, 3, dtype=torch.float64)]
    for number, (target, count) in enumerate(zip(targets, counts, strict=True)):
        class_name = label_set().names[target.instance.class_index].replace(" ", "-")
        names += [f"dome{number:02d}_{class_name}_{k:03d}" for k in range(count)]
        info += [
            {"target": number, **entry} for entry in selection.info[number][:count]
        ]
        poses += [pose[None] for pose in selection.poses[number][:count]]
        intrinsics += [matrix[None] for matrix in selection.intrinsics[number][:count]]
    return CameraList(
        scene=originals.scene, names=names, camera_to_world=torch.cat(poses), intrinsics=torch.cat(intrinsics),
        image_size=originals.image_size, info=info, lens=originals.lens,
    )  # fmt: skip


def refused_by_reason(selection: Selection) -> Counter:
    """Refused candidates of all targets by reason."""
    return sum(selection.reasons, Counter())


def refused_places(selection: Selection) -> dict[str, np.ndarray]:
    """Places ``[K, 3]`` of refused candidates by reason."""
    return {
        reason: np.array([place for place, why in selection.refused if why == reason])
        for reason in refused_by_reason(selection)
    }

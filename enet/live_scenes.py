"""Which scenes and poses are rendered live: what is missing is refused by name or left out, and frames that are held
out are not trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataloader import CameraList, Scene, load_scene
from dataloader.hold_out import held_out_frames, load_held_out
from dataloader.label_mesh import has_labels, label_files, unread_labels
from dataloader.perfception import FIELD_PREFIX
from enet.live_options import DataOptions
from enet.options import SplitOptions
from enet.splits import choose_scenes
from model.annotated_field import needed_bytes
from utils.errors import UserError
from utils.identity import FileSet, field_inputs, tensor_identity, value_identity
from utils.threads import ordered_map

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveScene:
    """One scene's files, and the recorded poses that are used.

    Attributes:
        name: its name.
        field: the field's folder.
        scan: the scene's folder, without its frames.
        cameras: poses, at the size of the views.
        nbytes: what field and mesh take on a device, nearly.
    """

    name: str
    field: Path
    scan: Scene
    cameras: CameraList
    nbytes: int

    def identity(self) -> dict[str, Any]:
        """What its views are made from; JSON-able but for :class:`utils.identity.FileSet`."""
        poses = tensor_identity(self.cameras.camera_to_world, self.cameras.intrinsics)
        return {
            "scene": self.name, "field": field_inputs(self.field), "mesh": FileSet(label_files(self.scan)),
            "cameras": value_identity([self.cameras.names, poses]),
        }  # fmt: skip


@dataclass(frozen=True)
class LiveSelection:
    """What is trained and validated on.

    Attributes:
        training, validation: scenes with their poses.
        left_out: why scenes were left out, by their names.
    """

    training: list[LiveScene]
    validation: list[LiveScene]
    left_out: dict[str, str]


def choose_live(data: DataOptions, split: SplitOptions, seed: int) -> LiveSelection:
    """Training and validation scenes and poses, as :class:`SplitOptions` describes them.

    Raises:
        UserError: a scene lacks something under data.on_missing = "refuse", none is left, or splits share a room.
    """
    training, validation = choose_scenes(split, seed, data.fields_dir, FIELD_PREFIX)
    names = [*training, *(validation or ())]
    found, left_out = _open_scenes(names, data)
    train, validate = ([found[name] for name in listed if name in found] for listed in (training, validation or ()))
    if validation is None:
        train, validate = _split_frames(train, split.val_every)
    for purpose, scenes in (("train", train), ("validate", validate)):
        if not scenes:
            reasons = next(iter(left_out.values()), "")
            raise UserError(f"no scene is left to {purpose} on: {len(left_out)} of {len(names)} are left out; the "
                            f"first: {reasons}")
    return LiveSelection(train, validate, left_out)


def _open_scenes(names: Sequence[str], data: DataOptions) -> tuple[dict[str, LiveScene], dict[str, str]]:
    found: dict[str, LiveScene] = {}
    left_out: dict[str, str] = {}
    for name, outcome in zip(names, ordered_map(lambda name: _try_open(name, data), names), strict=True):
        if isinstance(outcome, LiveScene):
            found[name] = outcome
        elif data.on_missing == "refuse":
            raise UserError(f"{outcome} (data.on_missing = 'skip' leaves such scenes out)")
        else:
            logger.warning("%s is left out: %s", name, outcome)
            left_out[name] = str(outcome)
    return found, left_out


def _try_open(name: str, data: DataOptions) -> LiveScene | UserError:
    try:
        return _open_scene(name, data)
    except UserError as error:
        return error


def _open_scene(name: str, data: DataOptions) -> LiveScene:
    """One scene; raises :class:`UserError` that names what it lacks."""
    field, folder = data.fields_dir / f"{FIELD_PREFIX}{name}", data.scans_dir / name
    if not field_inputs(field).files:
        raise UserError(f"{name} has no field: {field} is absent or empty; run 'fit', or download the scene")
    if not folder.is_dir():
        raise UserError(f"{name} has no poses and no mesh: {folder} is absent; copy the scan there")
    scan = load_scene(folder)
    if not len(scan):
        raise UserError(f"{name} has no poses: no frame of {folder} has one; check it with 'verify'")
    if not has_labels(scan):
        files = ", ".join(str(path) for path in label_files(scan).values() if not path.is_file())
        raise UserError(f"{name} has no labelled mesh: {unread_labels(scan) or f'{files} is absent; download it'}")
    if scan.lens is not None:
        raise UserError(f"{name} was photographed through a lens, and views that are rendered live are pinholes': set "
                        "LensOptions.keep = 'none', or train on its view store, which keeps the lens")
    cameras = scan.cameras(data.size, range(0, len(scan), data.every))
    mesh = next(iter(label_files(scan).values()))
    return LiveScene(name, field, _without_frames(scan), cameras, needed_bytes(field, mesh))


def _without_frames(scan: Scene) -> Scene:
    """A thousand scenes' lists of files would take gigabytes."""
    return replace(
        scan, frames=[], color_paths=[], depth_paths=[], mask_paths=None, confidence_paths=None, resampled_from=None,
        splits=None, points=None, camera_to_world=scan.camera_to_world[:0], skipped={},
    )  # fmt: skip


def _split_frames(scenes: Sequence[LiveScene], every: int) -> tuple[list[LiveScene], list[LiveScene]]:
    """The scenes with the frames that train, and with those that are held out, see
    :func:`dataloader.hold_out.held_out_frames`."""
    training, validation = [], []
    for scene in scenes:
        names = scene.cameras.names
        held_out = held_out_frames(names, load_held_out(scene.field), every, scene.field)
        others = [index for index in range(len(names)) if index not in set(held_out)]
        training.append(replace(scene, cameras=scene.cameras.select(others)))
        validation.append(replace(scene, cameras=scene.cameras.select(held_out)))
    return training, validation

"""Task ``estimate``: what the stages from scans to statistics have left to do, and what that takes in time and disk."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin
import numpy as np

from dataloader import load_scene
from dataloader.perfception import FIELD_PREFIX
from dataloader.view_channels import CHANNEL_KINDS
from utils.errors import UserError, reading
from utils.files import read_json
from utils.plans import Plan
from utils.progress import duration
from utils.scenes import resolve_scenes
from utils.tasks import task

_MOST_OPENED = 10  # scenes whose frames are counted
_RENDERED = ("rgb", "sh", "depth", "alpha", "photo")


@dataclass(frozen=True)
class StageEstimate:
    """What one stage has left.

    Attributes:
        name: of the stage.
        done, left: scenes.
        disk: bytes that the scenes left will take; None where that is not known before one is made.
        seconds: that they will take at the rate of those that are done; None where none is.
    """

    name: str
    done: int
    left: int
    disk: float | None
    seconds: float | None

    def __str__(self) -> str:
        if not self.left:
            return f"{self.name}: all {self.done} scenes are done"
        disk = "disk not known before one is done" if self.disk is None else f"{_gigabytes(self.disk)}"
        time = "time not known before one is done" if self.seconds is None else f"{duration(self.seconds)}"
        return f"{self.name}: {self.done} scenes done, {self.left} left: {time}, {disk}"


@task(summary="what fit, render, annotate and analyze have left, and what it takes", inputs=("scans_dir",))
def estimate(
    scans_dir: str = gin.REQUIRED,
    fields_dir: str = gin.REQUIRED,
    views_dir: str = gin.REQUIRED,
    analysis_dir: str = gin.REQUIRED,
    scenes: str | list[str] = "all",
    unlabelled: str | Sequence[str] = (),
    size: tuple[int, int] = (124, 124),
    every: int = 1,
    sh_dtype: str = "uint8",
) -> Plan:
    """Print, for each stage, scenes that are done and left, and their time and disk.

    Disk of views follows from their size and the frames of some scenes. All else is reckoned from the scenes that are
    done: their folders, and the time that the stage's runs took so far (on these machines, with these workers).

    Args:
        scans_dir: folder of scenes.
        fields_dir: where 'fit' writes.
        views_dir: where 'render' writes.
        analysis_dir: where 'analyze' writes.
        scenes: "all", a list of names, or a text file of names.
        unlabelled: scenes that have no labels: a list of names, or a text file.
        size: (height, width) of the views.
        every: as for render.every.
        sh_dtype: as for render.sh_dtype.
    """
    names = resolve_scenes(scenes, scans_dir)
    without = set(resolve_scenes(unlabelled)) if unlabelled else set()
    labelled = [name for name in names if name not in without]
    views = _frames(Path(scans_dir), names) / every
    stores = Path(views_dir)
    stages = [
        _stage("fit", names, Path(fields_dir), Path(fields_dir) / "run", f"{FIELD_PREFIX}{{}}", None),
        _stage("render", names, stores, stores / "run", "{}/meta.json",
               views * _view_bytes(_RENDERED, size, {"sh": sh_dtype})),
        _stage("annotate", labelled, stores, stores / "run" / "annotate", "{}/label*.npy",
               views * _view_bytes(("label",), size)),
        _stage("analyze", labelled, Path(analysis_dir) / "scenes", Path(analysis_dir) / "run", "{}", None),
    ]  # fmt: skip
    notes = [f"{len(names)} scenes of about {views:.0f} views", *map(str, stages)]
    needed = sum(stage.disk or 0 for stage in stages)
    free = shutil.disk_usage(_existing(Path(views_dir))).free
    notes.append(f"{_gigabytes(needed)} at least are needed, {_gigabytes(free)} are free"
                 + (": not enough" if needed > free else ""))
    metrics: dict[str, Any] = {
        stage.name: {"done": stage.done, "left": stage.left, "bytes": stage.disk, "seconds": stage.seconds}
        for stage in stages
    }
    return Plan(lambda: metrics, notes=notes)


def _frames(scans: Path, names: list[str]) -> float:
    """Frames of a scene, the mean of some."""
    counts = []
    for name in names[:: -(-len(names) // _MOST_OPENED)]:
        try:
            counts.append(len(load_scene(scans / name)))
        except UserError:  # which 'verify' tells of
            continue
    if not counts:
        raise UserError(f"none of {scans}'s scenes that were looked at can be read; run 'verify'")
    return sum(counts) / len(counts)


def _stage(
    name: str, scenes: list[str], folder: Path, records: Path, pattern: str, scene_bytes: float | None
) -> StageEstimate:
    """Of scenes whose output is what ``pattern`` says; ``scene_bytes`` None takes the mean of what is there."""
    done = [scene for scene in scenes if any(folder.glob(pattern.format(scene)))]
    left = len(scenes) - len(done)
    if scene_bytes is None and done:
        measured = done[:: -(-len(done) // _MOST_OPENED)]
        scene_bytes = sum(_folder_bytes(folder / pattern.format(scene)) for scene in measured) / len(measured)
    spent = _seconds_spent(records / "run.json")
    return StageEstimate(name, len(done), left, None if scene_bytes is None else scene_bytes * left,
                         spent / len(done) * left if spent and done else None)


def _view_bytes(channels: Sequence[str], size: tuple[int, int], dtypes: dict[str, str] | None = None) -> int:
    kinds = {name: CHANNEL_KINDS[name] for name in channels}
    return sum(np.dtype((dtypes or {}).get(name, kind.dtypes[0])).itemsize * math.prod(kind.shape(size))
               for name, kind in kinds.items())  # fmt: skip


def _seconds_spent(record: Path) -> float:
    """By the runs that made something."""
    if not record.is_file():
        return 0.0
    runs = read_json(record, kind=list)
    with reading(record, "the record of earlier runs", "delete it"):
        return sum(float(run["seconds"]) for run in runs)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"

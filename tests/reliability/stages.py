"""Small runs of each stage, as processes of their own, and what they write."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.paths import PROJECT

SIZES = [
    "RoomOptions.edge = 0.12", "RoomOptions.types = ('bathroom',)", "PictureOptions.frames = 16",
    "PictureOptions.size = (72, 96)", "synthesize.rooms = 3", "FitGrid.resolutions = (24, 48)",
    "FitOptimization.steps = (40, 160)", "FitOptimization.rays_per_step = (1500,)", "FitPoses.rounds = 1",
    "FitRegularization.tv_density = (1e-4, 1e-4)", "fit.checkpoint_seconds = 0.2", "SIZE = (60, 80)",
    "TRAIN_SCENES = ['scene9000_00']", "VAL_SCENES = ['scene9001_00']", "TEST_SCENES = ['scene9002_00']",
    "train.epochs = 6", "train.batch_size = 4", "train.epoch_views = 16", "DEVICE = 'cpu'", "ROW = 'r'",
    "search.trials = 2", "search.space = {'OptimizerOptions.learning_rate': ('log', 1e-4, 1e-2)}",
]  # fmt: skip
NEEDS = {"fit": (), "render": ("fields",), "annotate": ("fields", "views"), "train": ("views",),
         "test": ("views", "runs"), "search": ("views",)}  # fmt: skip
STAGES = tuple(NEEDS)
CONFIGS = {"train": ["train"], "test": ["train", "test"], "search": ["search"]}


@dataclass(frozen=True)
class Bench:
    """Where runs happen: generated rooms, and the outputs of undisturbed stages to start from."""

    root: Path

    @property
    def data(self) -> Path:
        """The rooms."""
        return self.root / "data"

    def prepare(self, stages: Sequence[str] = STAGES) -> None:
        """Make rooms and one undisturbed run of each of some stages, on what the stages before it make."""
        work = self.root / "ready"
        self.finish("synthesize", work)
        for stage in STAGES[: max(map(STAGES.index, stages)) + 1]:
            work.mkdir(exist_ok=True)
            self.finish(stage, work)
            if stage in stages:
                self.finish(stage, self.start_of(stage, self.root / "undisturbed" / stage))

    def start_of(self, stage: str, folder: Path) -> Path:
        """A fresh folder with what ``stage`` needs."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in NEEDS[stage]:
            shutil.copytree(self.root / "ready" / name, folder / name)
        if stage == "annotate":
            shutil.rmtree(folder / "views")
            self.finish("render", folder)
        return folder

    def command(self, stage: str, work: Path, resume: bool = False, extra: Sequence[str] = ()) -> list[str]:
        """A run of the stage, with ``extra`` bindings."""
        command = [sys.executable, str(PROJECT / "run.py"), stage, *(["--resume"] if resume else [])]
        for name in CONFIGS.get(stage, [stage]):
            command += ["--ginc", str(PROJECT / "configs" / "stage" / f"{name}.gin")]
        known = [binding for binding in SIZES if _belongs(binding, stage)]
        for binding in [f"DATA = '{self.data}'", f"WORK = '{work}'", *known, *extra]:
            command += ["--ginb", binding]
        return command

    def start(
        self, stage: str, work: Path, log: Path, resume: bool = False, extra: Sequence[str] = ()
    ) -> subprocess.Popen:
        """The run as a process group of its own, its output in ``log``."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a") as file:
            command = self.command(stage, work, resume, extra)
            return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def finish(self, stage: str, work: Path) -> None:
        """Run to the end; raises :class:`SystemExit` with the output where that fails."""
        log = self.root / "logs" / f"{stage}.log"
        if self.start(stage, work, log).wait():
            sys.exit(f"{stage} failed without being disturbed:\n{log.read_text()[-2000:]}")


def _belongs(binding: str, stage: str) -> bool:
    """Whether a stage's configs know what is bound."""
    name = binding.split(" ")[0]
    group = name.split(".")[0]
    if "." not in name:
        macros = {"TRAIN_SCENES": ("train", "test", "search"), "VAL_SCENES": ("train", "test", "search"),
                  "TEST_SCENES": ("train", "test", "search"), "ROW": ("train", "test", "search")}  # fmt: skip
        return stage in macros.get(name, (stage,)) and (stage != "synthesize" or name == "SIZE")
    users = {"RoomOptions": "synthesize", "PictureOptions": "synthesize"}
    if group.startswith("Fit"):
        return stage == "fit"
    if group == "train":
        return stage in ("train", "search", "test")
    return stage == users.get(group, group)

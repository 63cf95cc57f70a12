"""Training runs and their scores, grouped into the rows of the paper's table."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import reading
from utils.files import read_json
from utils.labels import CLASS_NAMES


@dataclass(frozen=True)
class Row:
    """One row of the paper's table."""

    title: str
    color: str  # "photo" or "rgb"
    uses_sh: bool
    novel_views: bool
    paper_mean_iou: float  # on ScanNet, per cent


PAPER_ROWS = (
    Row("camera RGB", "photo", False, False, 41.2),
    Row("rendered RGB", "rgb", False, False, 40.0),
    Row("rendered RGB + SH", "rgb", True, False, 41.0),
    Row("RGB, with novel views", "rgb", False, True, 39.5),
    Row("RGB + SH, with novel views", "rgb", True, True, 39.0),
)
PAPER_FUSION = {"concat": 39.6, "conv_concat": 40.6, "conv_sum": 41.0}


@dataclass(frozen=True)
class Run:
    """A finished training run and its scores on the test views, or on the validation views if it was not tested."""

    name: str
    folder: Path
    settings: dict[str, Any]
    training: dict[str, Any]
    scores: dict[str, Any]
    tested: bool

    @property
    def stem(self) -> str:
        """How the network takes in SH: "rgb" for not at all."""
        return self.settings["network"]["stem"]

    @property
    def color(self) -> str:
        """"photo" or "rgb" (rendered)."""
        return self.settings["views"]["color"]

    @property
    def novel_views(self) -> bool:
        """Whether stores of more than one folder were trained on."""
        return len({entry["folder"] for entry in self.settings["training"]}) > 1

    @property
    def sample_folder(self) -> Path:
        """Pictures of image, truth and prediction."""
        return self.folder / ("test/scores/samples" if self.tested else "training/samples")

    def check(self) -> None:
        """Raise an exception of any kind where its files lack what a report reads; see :mod:`utils.errors`."""
        for value in (self.scores["mean_iou"], self.scores["pixel_accuracy"], *self.scores["class_iou"].values()):
            if value is not None:
                float(value)
        if not all(isinstance(text, str) for text in (self.setup(), self.stem, self.color)):
            raise TypeError("its stem or colour is no text")

    def setup(self) -> str:
        """A key that runs share when they differ only in their seed."""
        kept = {name: value for name, value in self.settings.items() if name not in ("training", "validation")}
        kept["budget"] = {name: value for name, value in kept.get("budget", {}).items() if name != "seed"}
        return json.dumps({**kept, "novel_views": self.novel_views}, sort_keys=True)


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seed."""

    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """The run that represents the group."""
        return self.runs[0]

    @property
    def mean_iou(self) -> tuple[float, float | None]:
        """Mean over seeds and sample standard deviation (None for one seed) of mIoU, 0..1."""
        return _mean_and_deviation([run.scores["mean_iou"] for run in self.runs])

    def class_iou(self, name: str) -> tuple[float, float | None] | None:
        """The same for one class; None where the class never occurs."""
        values = [run.scores["class_iou"].get(name) for run in self.runs]
        known = [value for value in values if value is not None]
        return _mean_and_deviation(known) if known else None


def _mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def find_runs(runs_dir: str | Path) -> list[Run]:
    """All finished runs in ``runs_dir``, by name."""
    runs = []
    for results in sorted(Path(runs_dir).glob("*/training/results.json")):
        folder = results.parent.parent
        training = read_json(results)
        tested = folder / "test" / "scores" / "results.json"
        settings = read_json(folder / "training" / "settings.json")
        with reading(results, "the results of a training", "train again, or remove the run's folder"):
            scores = read_json(tested) if tested.exists() else training["validation"]
            run = Run(folder.name, folder, settings, training, scores, tested.exists())
            if scores.get("mean_iou") is not None:
                run.check()
                runs.append(run)
    return runs


def group_runs(runs: list[Run]) -> list[RunGroup]:
    """Runs with equal settings together, in the order in which the settings first occur."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setup(), []).append(run)
    return [RunGroup(tuple(members)) for members in groups.values()]


def paper_table(groups: list[RunGroup]) -> list[tuple[Row, RunGroup]]:
    """The groups of the paper's rows, in its order; a row may occur with several settings or not at all."""
    return [(row, group) for row in PAPER_ROWS for group in groups if _belongs(group.first, row)]


def _belongs(run: Run, row: Row) -> bool:
    uses_sh = run.stem != "rgb"
    return (run.color, uses_sh, run.novel_views) == (row.color, row.uses_sh, row.novel_views)


def fusion_table(groups: list[RunGroup]) -> list[RunGroup]:
    """Groups on rendered views without novel ones, when they have two or more different SH stems."""
    chosen = [group for group in groups if group.first.color == "rgb" and not group.first.novel_views]
    stems = {group.first.stem for group in chosen} - {"rgb"}
    return sorted(chosen, key=lambda group: group.first.stem) if len(stems) > 1 else []


def unequal_budgets(groups: list[RunGroup]) -> list[str]:
    """Fields of the budget (and precision, loss, optimizer) in which groups differ, so that rows are not comparable."""
    differing = []
    for part in ("budget", "loss", "optimizer", "augmentation"):
        settings = [group.first.settings.get(part, {}) for group in groups]
        names = {name for entry in settings for name in entry} - {"seed", "devices"}
        differing += [
            f"{part}.{name}" for name in sorted(names)
            if len({json.dumps(entry.get(name), sort_keys=True) for entry in settings}) > 1
        ]
    return differing


def known_classes(groups: list[RunGroup]) -> list[str]:
    """Benchmark classes that occur in any group's scores, in class order."""
    return [name for name in CLASS_NAMES[1:] if any(group.class_iou(name) is not None for group in groups)]

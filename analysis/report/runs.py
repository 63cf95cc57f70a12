"""Training runs and their scores, grouped into the rows of an experiment."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.rows import fused_row, fused_scores, row_of, why_not_one_row
from utils.errors import reading
from utils.files import read_json
from utils.labels import label_set
from utils.outputs import partial_path


@dataclass(frozen=True)
class Row:
    """One row of the paper's tables.

    Attributes:
        name: of its file in configs/exp, and so of its runs.
        title: as the paper says it.
        color: "photo" or "rgb", what its networks see.
        stem: how they take in SH; "rgb" for not at all.
        novel_views: whether they are trained on those too.
        paper_mean_iou: on ScanNet, per cent.
    """

    name: str
    title: str
    color: str
    stem: str
    novel_views: bool
    paper_mean_iou: float

    def differs(self, run: Run) -> str | None:
        """In what a run that is called like this row is not of it; None where it is."""
        for what, wanted, found in (
            ("colour", self.color, run.color), ("stem", self.stem, run.stem), ("inputs", ["sh"], run.inputs),
            ("novel views", self.novel_views, run.novel_views),
        ):  # fmt: skip
            if wanted != found:
                return f"{what} {found!r} instead of {wanted!r}"
        return None


PAPER_ROWS = (
    Row("camera_rgb", "camera RGB", "photo", "rgb", False, 41.2),
    Row("rendered_rgb", "rendered RGB", "rgb", "rgb", False, 40.0),
    Row("rendered_rgb_sh", "rendered RGB + SH", "rgb", "conv_sum", False, 41.0),
    Row("novel_rgb", "RGB, with novel views", "rgb", "rgb", True, 39.5),
    Row("novel_rgb_sh", "RGB + SH, with novel views", "rgb", "conv_sum", True, 39.0),
)
FUSION_ROWS = (
    Row("rendered_rgb_sh_concat", "rendered RGB + SH (concat)", "rgb", "concat", False, 39.6),
    Row("rendered_rgb_sh_conv_concat", "rendered RGB + SH (conv_concat)", "rgb", "conv_concat", False, 40.6),
)
_ROWS = {row.name: row for row in (*PAPER_ROWS, *FUSION_ROWS)}


@dataclass(frozen=True)
class Run:
    """A finished training run and its scores on the test views, or on the validation views if it was not tested.

    ``fused``: scores of its predictions fused in the tested scenes' fields, where there are some; ``is_fused``: whether
    ``scores`` are those.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    training: dict[str, Any]
    scores: dict[str, Any]
    tested: bool
    fused: dict[str, Any] | None = None
    is_fused: bool = False

    @property
    def stem(self) -> str:
        """How the network takes in SH: "rgb" for not at all."""
        return self.settings["network"]["stem"]

    @property
    def inputs(self) -> list[str]:
        """What a stem other than "rgb" takes beside the colour; SH alone in runs of versions that had nothing else."""
        return list(self.settings["network"].get("inputs", ["sh"]))

    @property
    def color(self) -> str:
        """"photo" or "rgb" (rendered)."""
        return self.settings["views"]["color"]

    @property
    def novel_views(self) -> bool:
        """Whether it was trained on stores of several folders, or on views rendered live at poses not recorded."""
        training = self.settings["training"]
        if self.is_live:
            return training["poses"] is not None
        return len({entry["folder"] for entry in training}) > 1

    @property
    def is_live(self) -> bool:
        """Whether views were rendered while it was trained."""
        return isinstance(self.settings["training"], dict)

    @property
    def training_scenes(self) -> set[str]:
        """Names of the scenes that it was trained on."""
        training = self.settings["training"]
        return {entry["scene"] for entry in (training["live"] if self.is_live else training)}

    @property
    def sample_folder(self) -> Path:
        """Pictures of image, truth and prediction."""
        if self.is_fused:
            return self.folder / "test/fused/samples"
        return self.folder / ("test/scores/samples" if self.tested else "training/samples")

    def as_fused(self) -> Run:
        """The same run with its fused scores."""
        views = {name: self.scores[name] for name in ("views", "scenes") if name in self.scores}
        return replace(self, name=fused_row(self.name), scores={**views, **self.fused}, is_fused=True)

    def check(self) -> None:
        """Raise an exception of any kind where its files lack what a report reads; see :mod:`utils.errors`."""
        for value in (self.scores["mean_iou"], self.scores["pixel_accuracy"], *self.scores["class_iou"].values()):
            if value is not None:
                float(value)
        if other := sorted(set(self.scores["class_iou"]) - set(label_set().names)):
            raise ValueError(f"it was scored on classes that {label_set().path} does not have, such as {other[0]!r}; "
                             "set label_set.table to the table that it was trained with")
        if not all(isinstance(text, str) for text in (self.stem, self.color)):
            raise TypeError("its stem or colour is no text")
        if not isinstance(self.seed, int) or not isinstance(self.novel_views, bool):
            raise TypeError("its seed is no whole number")
        if not all(isinstance(scene, str) for scene in self.training_scenes):
            raise TypeError("its training scenes are no names")

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.settings["budget"]["seed"]

    @property
    def row(self) -> str:
        """Name of the row that it is a run of."""
        return row_of(self.name, self.seed)


@dataclass(frozen=True)
class RunGroup:
    """The runs of one row, which differ only in their seed.

    Attributes:
        name: of the row; of the only run, where runs of the row are not alike.
        runs: by seed.
        paper: the paper's row of that name.
    """

    name: str
    runs: tuple[Run, ...]
    paper: Row | None = None

    @property
    def title(self) -> str:
        """For people."""
        return self.paper.title if self.paper else self.name

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


def with_fused(groups: Sequence[RunGroup]) -> tuple[list[RunGroup], list[str]]:
    """The groups, after each whose runs all have fused scores the group of these; and where only some runs have."""
    found, remarks = [], []
    for group in groups:
        found.append(group)
        missing = [run.name for run in group.runs if run.fused is None]
        if not missing:
            found.append(RunGroup(fused_row(group.title), tuple(run.as_fused() for run in group.runs)))
        elif len(missing) < len(group.runs):
            remarks.append(f"Fused scores of {group.title} are left out: {', '.join(missing)} has none; test it with "
                           "test.fused = True.")
    return found, remarks


def _mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def find_runs(runs_dir: str | Path) -> tuple[list[Run], list[str]]:
    """All finished runs in ``runs_dir``, by name, and one line about each that is left out."""
    runs, left_out = [], []
    folders = {path.parent for pattern in ("*/training", "*/training.partial") for path in Path(runs_dir).glob(pattern)}
    for folder in sorted(folders):
        results = folder / "training" / "results.json"
        if not results.exists():
            state = "not finished" if partial_path(folder / "training").exists() else "without results"
            left_out.append(f"Run {folder.name} is left out: its training is {state}; run 'train' again.")
            continue
        training = read_json(results)
        tested = folder / "test" / "scores" / "results.json"
        settings = read_json(folder / "training" / "settings.json")
        with reading(results, "the results of a training", "train again, or remove the run's folder"):
            scores = read_json(tested) if tested.exists() else training["validation"]
            fused, other = fused_scores(folder / "test")
            if other is not None:
                left_out.append(f"Fused scores of {folder.name} are left out: they are of another {other} than those "
                                "of single views; test again with test.fused = True.")
                fused = None
            run = Run(folder.name, folder, settings, training, scores, tested.exists(), fused)
            if scores.get("mean_iou") is None:
                left_out.append(f"Run {folder.name} is left out: it has no mIoU; run 'test' on annotated views.")
                continue
            run.check()
            if run.fused is not None:
                run.as_fused().check()
            runs.append(run)
    return runs, left_out


def group_runs(runs: Sequence[Run]) -> tuple[list[RunGroup], list[str]]:
    """Runs of one row together: first the paper's rows, in its order, then the others; and what was not averaged.

    Runs belong to the row that their name says, never to one that happens to have equal settings. Where the runs of a
    row differ in more than their seed, each stays alone; where they are not what the paper's row of that name is, they
    do not stand for it.
    """
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    groups, remarks = [], []
    for name, members in rows.items():
        members.sort(key=lambda run: run.seed)
        paper = _ROWS.get(name)
        if paper is not None and (reason := next(filter(None, map(paper.differs, members)), None)):
            remarks.append(f"{name} is not the paper's row {paper.title!r}: it has {reason}.")
            paper = None
        reason = why_not_one_row([run.settings for run in members])
        if reason is None and len({run.tested for run in members}) > 1:
            reason = "only some are tested"
        if reason is None:
            groups.append(RunGroup(name, tuple(members), paper))
            continue
        remarks.append(f"The {len(members)} runs of {name} are not averaged: they differ in more than their seed "
                       f"({reason}).")
        groups += [RunGroup(run.name, (run,)) for run in members]
    order = {row: number for number, row in enumerate(_ROWS.values())}
    return sorted(groups, key=lambda group: order.get(group.paper, len(order))), remarks


def fusion_table(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """The paper's rows of rendered colour without novel views, when they have two or more different SH stems."""
    chosen = [group for group in groups if group.paper and group.paper.color == "rgb" and not group.paper.novel_views]
    return sorted(chosen, key=lambda group: group.first.stem) if len({group.first.stem for group in chosen}) > 2 else []


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
    return [name for name in label_set().names[1:] if any(group.class_iou(name) is not None for group in groups)]

"""The rows of an experiment, compared: means over seeds, and paired differences with intervals over test rooms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analysis.rows import fused_row, single_row
from utils.errors import UserError
from utils.labels import label_set
from utils.seeding import numpy_generator

GROUPS = ("head", "common", "tail")
_COUNTS = ("truth", "predicted", "hits")


@dataclass(frozen=True)
class RunScores:
    """One run's counts on the test rooms.

    Attributes:
        row: the experiment's row that it belongs to.
        seed: of the training.
        settings: digest of all that determines the training but its seed.
        counts: int64 [rooms, 3, classes]: true, predicted and correctly predicted pixels of each class.
        rooms: names, in the order of ``counts``.
        fused: counts of the run's predictions fused in the rooms' fields; None where these were not scored.
        facts: what else is kept about the run, JSON-able.
    """

    row: str
    seed: int
    settings: str
    counts: np.ndarray
    rooms: tuple[str, ...]
    fused: np.ndarray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The inverse of :meth:`from_json`."""
        def by_scene(counts: np.ndarray) -> dict[str, Any]:
            return {room: {name: of_room[k].tolist() for k, name in enumerate(_COUNTS)}
                    for room, of_room in zip(self.rooms, counts, strict=True)}  # fmt: skip

        fused = {} if self.fused is None else {"fused_by_scene": by_scene(self.fused)}
        return {"row": self.row, "seed": self.seed, "settings": self.settings, **self.facts,
                "by_scene": by_scene(self.counts), **fused}  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunScores:
        """From a results file.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        rooms = tuple(sorted(content["by_scene"]))
        counts, fused = _counts(content["by_scene"], rooms), content.get("fused_by_scene")
        known = ("row", "seed", "settings", "by_scene", "fused_by_scene")
        facts = {name: value for name, value in content.items() if name not in known}
        return cls(str(content["row"]), int(content["seed"]), str(content["settings"]), counts, rooms,
                   None if fused is None else _counts(fused, rooms), facts)  # fmt: skip


def _counts(by_scene: Mapping[str, Any], rooms: Sequence[str]) -> np.ndarray:
    """int64 [rooms, 3, classes]; raises ``KeyError``, ``TypeError`` or ``ValueError`` where they are not."""
    classes = len(label_set().names) - 1
    counts = np.array([[by_scene[room][name] for name in _COUNTS] for room in rooms], dtype=np.int64)
    if counts.shape != (len(rooms), len(_COUNTS), classes) or not rooms or (counts < 0).any():
        raise ValueError(f"its counts are {counts.shape}; expected three of {classes} classes for each room")
    return counts


def with_fused_rows(runs: Sequence[RunScores]) -> list[RunScores]:
    """The same, and after each row with fused scores the row of these.

    Raises:
        UserError: only some runs of a row have fused scores.
    """
    found: list[RunScores] = []
    for row in dict.fromkeys(run.row for run in runs):
        members = [run for run in runs if run.row == row]
        scored = [run for run in members if run.fused is not None]
        if scored and len(scored) < len(members):
            missing = ", ".join(str(run.seed) for run in members if run.fused is None)
            raise UserError(f"row {row!r} has no fused scores for the seeds {missing}, others have them; test these "
                            "with test.fused = True")
        found += members + [replace(run, row=fused_row(row), counts=run.fused, fused=None) for run in scored]
    return found


def class_iou(counts: np.ndarray) -> np.ndarray:
    """IoU [..., classes] of counts [..., 3, classes]; NaN where a class neither occurs nor is predicted."""
    truth, predicted, hits = (counts[..., k, :].astype(np.float64) for k in range(3))
    union = truth + predicted - hits
    return np.divide(hits, union, out=np.full_like(union, np.nan), where=union > 0)


@dataclass(frozen=True)
class Difference:
    """How much better than the baseline a row is, in points of mIoU, with a 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class RowResult:
    """One row of the table; all in per cent.

    Attributes:
        mean, deviation: of mIoU over seeds; the deviation is NaN for one seed.
        groups: mean IoU of head, common and tail classes, over seeds.
        classes: IoU of each class, over seeds.
        difference: of mIoU to the baseline; None for the baseline itself.
        tail_difference: of the tail classes' mean IoU, likewise.
        gain: of mIoU to the same row's single views; None but for rows of fused predictions.
        tail_gain: of the tail classes' mean IoU, likewise.
    """

    row: str
    seeds: tuple[int, ...]
    mean: float
    deviation: float
    groups: dict[str, float]
    classes: dict[str, float]
    difference: Difference | None
    tail_difference: Difference | None
    gain: Difference | None = None
    tail_gain: Difference | None = None


def compare_rows(runs: Sequence[RunScores], baseline: str, draws: int = 2000, seed: int = 0) -> list[RowResult]:
    """One result a row, in the order in which rows first occur.

    Rooms are drawn with replacement, the same ones for both rows and all seeds, so that what makes a room hard for
    every network cancels; seeds' scores are averaged in each draw. Classes are grouped by their share of the test
    rooms' pixels.

    Raises:
        UserError: a row's runs differ in more than their seed; rows have different seeds, or were tested on other
            rooms or other labels; the baseline is missing.
    """
    rows = _checked(runs, baseline)
    truth = next(iter(rows.values()))[0].counts[:, 0].sum(axis=0)
    present = np.flatnonzero(truth)
    groups = class_groups(truth)
    rooms = len(runs[0].rooms)
    drawn = numpy_generator(seed, "bootstrap").integers(rooms, size=(draws, rooms))
    samples = {row: _bootstrapped(members, drawn) for row, members in rows.items()}
    iou = {row: 100 * np.stack([class_iou(run.counts.sum(axis=0)) for run in members]) for row, members in rows.items()}

    def differences(row: str, other: str | None) -> tuple[Difference | None, Difference | None]:
        """Of all classes, and of the tail's."""
        if other in (None, row):
            return None, None
        return tuple(_difference(iou[row], iou[other], samples[row], samples[other], classes)
                     for classes in (present, groups["tail"]))  # fmt: skip

    results = []
    for row, members in rows.items():
        means = np.nanmean(iou[row][:, present], axis=1)
        single = single_row(row)
        results.append(
            RowResult(
                row, tuple(run.seed for run in members), float(means.mean()),
                float(means.std(ddof=1)) if len(means) > 1 else float("nan"),
                {name: float(np.nanmean(iou[row][:, index])) for name, index in groups.items()},
                {label_set().names[1 + k]: float(np.nanmean(iou[row][:, k])) for k in present},
                *differences(row, baseline), *differences(row, single if single in rows else None),
            )  # fmt: skip
        )
    return results


def _difference(
    own: np.ndarray,  # [seeds, classes] IoU in per cent
    others: np.ndarray,  # [seeds, classes]
    own_samples: np.ndarray,  # [draws, seeds, classes] IoU
    other_samples: np.ndarray,  # [draws, seeds, classes]
    classes: np.ndarray,
) -> Difference:
    mean = np.nanmean(own[:, classes]) - np.nanmean(others[:, classes])
    spread = 100 * (np.nanmean(own_samples[..., classes], axis=(1, 2)) -
                    np.nanmean(other_samples[..., classes], axis=(1, 2)))  # fmt: skip
    low, high = np.nanpercentile(spread, (2.5, 97.5))
    return Difference(float(mean), float(low), float(high))


def class_groups(truth: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the rarest third of the classes ("tail"), the next ("common") and the others ("head"), if they occur.

    Tail and head have as many classes: 7, 6 and 7 of the benchmark's.
    """
    tail = -(-len(truth) // 3)
    end = max(tail, len(truth) - tail)  # of the common ones
    order = np.argsort(truth, kind="stable")
    order = order[truth[order] > 0]
    return {"head": order[end:], "common": order[tail:end], "tail": order[:tail]}


def _bootstrapped(members: Sequence[RunScores], drawn: np.ndarray) -> np.ndarray:
    """IoU [draws, seeds, classes] over rooms drawn [draws, rooms]."""
    weights = np.stack([np.bincount(draw, minlength=drawn.shape[1]) for draw in drawn])
    sums = [np.einsum("dr,rkc->dkc", weights, run.counts) for run in members]
    return np.stack([class_iou(counts) for counts in sums], axis=1)


def _checked(runs: Sequence[RunScores], baseline: str) -> dict[str, list[RunScores]]:
    """Runs by row, each sorted by seed."""
    rows: dict[str, list[RunScores]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    if baseline not in rows:
        raise UserError(f"the baseline {baseline!r} has no finished run; there are {', '.join(rows) or 'none at all'}")
    seeds = sorted(run.seed for run in rows[baseline])
    for row, members in rows.items():
        members.sort(key=lambda run: run.seed)
        if [run.seed for run in members] != seeds:
            raise UserError(f"row {row!r} has finished runs with the seeds {[run.seed for run in members]}, the "
                            f"baseline {baseline!r} with {seeds}; finish the row, or leave it out of compare.rows")
        if len({run.settings for run in members}) > 1:
            raise UserError(f"the runs of row {row!r} differ in more than their seed; train them with one config")
        for run in members:
            first = rows[baseline][0]
            if run.rooms != first.rooms or not np.array_equal(run.counts[:, 0], first.counts[:, 0]):
                raise UserError(f"{row!r} with seed {run.seed} was tested on other rooms or labels than "
                                f"{baseline!r}; test both on the same views")
    return rows

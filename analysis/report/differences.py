"""How much each row differs from the baseline, with intervals, as far as its runs allow that."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from analysis.experiment import RunScores, compare_rows
from analysis.report.runs import Run, RunGroup
from analysis.rows import settings_identity
from utils.errors import UserError, reading

BASELINES = ("rendered_rgb", "camera_rgb")


def differences(groups: Sequence[RunGroup]) -> dict[str, Any] | None:
    """Differences of mIoU in points to the first of :data:`BASELINES` that there is, else to the first row.

    Each row: title, mean, low, high (of 95% intervals over test scenes; None where there is one scene), resolved, and
    the positions of all four on an axis ``[-extent, extent]`` in per cent of its length. ``not_compared`` says why
    others are missing. None where there is nothing to compare.
    """
    tested = [group for group in groups if group.first.tested]
    if len(tested) < 2:
        return None
    names = [group.name for group in tested]
    base = tested[next((names.index(name) for name in BASELINES if name in names), 0)]
    return _chart(base.title, [(base, group, group.title) for group in tested if group is not base])


def gains(groups: Sequence[RunGroup]) -> dict[str, Any] | None:
    """What fusing a row's predictions in the fields changes, in the form of :func:`differences`; None without any.

    Args:
        groups: of :func:`analysis.report.runs.with_fused`: fused ones after those of single views.
    """
    pairs = [(single, fused, single.title) for single, fused in itertools.pairwise(groups) if fused.first.is_fused]
    return _chart("single views", pairs) if pairs else None


def _chart(baseline: str, pairs: Sequence[tuple[RunGroup, RunGroup, str]]) -> dict[str, Any]:
    """Differences of the second group of each pair to the first, under a title."""
    found, refused = [], []
    for base, group, title in pairs:
        try:
            scores = [_scores(run, each.name) for each in (base, group) for run in each.runs]
            result = next(row for row in compare_rows(scores, base.name) if row.row == group.name)
        except UserError as error:
            refused.append(f"{title}: {error}")
            continue
        single = len(scores[0].rooms) < 2
        low, high = (None, None) if single else (result.difference.low, result.difference.high)
        found.append({"title": title, "row": group.name, "mean": result.difference.mean, "low": low, "high": high,
                      "resolved": not single and result.difference.resolved})  # fmt: skip
    extent = max((abs(value) for row in found for value in (row["mean"], row["low"], row["high"]) if value is not None),
                 default=0.0)
    extent = 1.1 * max(extent, 0.5)
    for row in found:
        row["at"] = {key: None if row[key] is None else round(50 + 50 * row[key] / extent, 2)
                     for key in ("mean", "low", "high")}
    first = pairs[0][0]
    return {
        "baseline": baseline, "rows": found, "extent": extent, "not_compared": refused,
        "scenes": len(first.first.scores.get("by_scene", {})), "seeds": len(first.runs),
    }  # fmt: skip


def _scores(run: Run, row: str) -> RunScores:
    """A run's counts by scene.

    Raises:
        UserError: its test does not have them.
    """
    path = run.folder / "test" / "scores" / "results.json"
    if "by_scene" not in run.scores:
        raise UserError(f"{path} has no scores by scene; test again")
    with reading(path, "the scores of a test", "test again"):
        content = {"row": row, "seed": run.seed, "settings": settings_identity(run.settings),
                   "by_scene": run.scores["by_scene"]}  # fmt: skip
        return RunScores.from_json(content)

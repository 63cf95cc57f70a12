"""What was trained on, how long, and what came out, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.report.runs import RunGroup

PAPER_EPOCHS = 1000


def summary(groups: Sequence[RunGroup], compared: dict[str, Any] | None) -> list[str]:
    """Sentences about the data, the budget, and the differences of rows."""
    return [*filter(None, (_data(groups), _budget(groups))), *_differences(compared)]


def _data(groups: Sequence[RunGroup]) -> str:
    scenes = set().union(*(group.first.training_scenes for group in groups))
    views = sorted({group.first.training.get("training_views") for group in groups} - {None})
    tests = [group.first.scores for group in groups if group.first.tested]
    text = f"Data: trained on {_range(views)} views of {_count(len(scenes), 'scene')}"
    if tests:
        tested = max((len(scores.get("scenes", [])) for scores in tests), default=0)
        text += f", tested on {_range(sorted({scores['views'] for scores in tests}))} views"
        text += f" of {_count(tested, 'scene')}" if tested else ""
        seen = any(scores.get("rooms_seen_in_training") for scores in tests)
        text += ", some of which were trained on" if seen else ""
    return f"{text}."


def _budget(groups: Sequence[RunGroup]) -> str:
    budgets = [group.first.settings["budget"] for group in groups]
    epochs = sorted({budget["epochs"] for budget in budgets if "epochs" in budget})
    if not epochs:
        return ""
    views = sorted({budget["epoch_views"] for budget in budgets if "epoch_views" in budget})
    seeds = sorted({len(group.runs) for group in groups})
    text = f"Budget of a run: {_range(epochs)} epochs" + (f" of {_range(views)} views" if views else "")
    text += f"; {_range(seeds)} {'seed' if seeds == [1] else 'seeds'} a row."
    if epochs[-1] < PAPER_EPOCHS // 10:
        text += f" That is small (the paper trains up to {PAPER_EPOCHS} epochs): it shows what runs, less what is best."
    return text


def _differences(compared: dict[str, Any] | None) -> list[str]:
    if compared is None or not compared["rows"]:
        return []
    resolved = [f"{row['title']} {row['mean']:+.1f} points" for row in compared["rows"] if row["resolved"]]
    open_rows = [row["title"] for row in compared["rows"] if not row["resolved"]]
    parts = []
    if resolved:
        parts.append(f"Against {compared['baseline']}: {', '.join(resolved)} (95% intervals leave out 0).")
    if open_rows:
        why = "one test scene gives no interval" if compared["scenes"] < 2 else "0 is within their intervals"
        parts.append(f"Not resolved, since {why}: {', '.join(open_rows)}.")
    return parts


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _range(values: Sequence[int]) -> str:
    if not values:
        return "no"
    return f"{values[0]:,}" if values[0] == values[-1] else f"{values[0]:,} to {values[-1]:,}"

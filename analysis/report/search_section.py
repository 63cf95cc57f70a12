"""Results of the hyper-parameter search: its best trials, and the score against each hyper-parameter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.plotting import ACCEPTED, MUTED, house_style, new_figure
from analysis.report.embedding import embed_figure
from utils.errors import reading
from utils.files import read_json

_BEST_TRIALS = 10
_MOST_COLUMNS = 4
_LOG_RANGE = 20.0  # from this ratio of largest to smallest on, the axis is logarithmic
_TRIAL_COLOR = "#186faf"


def search_section(search_dir: Path | None) -> dict[str, Any] | None:
    """The page's content about the study in ``search_dir``; None when no search has finished there."""
    if search_dir is None or not (search_dir / "metrics.json").exists():
        return None
    found = read_json(search_dir / "metrics.json")
    with reading(search_dir / "metrics.json", "the metrics of a search", "run the search again"):
        trials, parameters, failed = found["trials"], list(found["best"]), int(found["failed_trials"])
        best = sorted(trials, key=lambda trial: -float(trial["mean_iou"]))[:_BEST_TRIALS]
        rows = [{"number": trial["number"], "mean_iou": 100 * trial["mean_iou"],
                 "values": [_text(trial.get(name)) for name in parameters]} for trial in best]
    return {
        "parameters": parameters,
        "trials": rows,
        "count": len(trials),
        "failed": failed,
        "best_config": str(search_dir / "best.gin"),
        "plot": embed_figure(plot_search(trials, parameters)),
    }  # fmt: skip


@house_style
def plot_search(trials: list[dict[str, Any]], parameters: list[str]) -> Figure:
    """Score over trials with the best so far, and over the values of each hyper-parameter; the best trial is green.

    Args:
        trials: each with number, mean_iou (0..1), and a value for each of ``parameters``.
        parameters: gin bindings.
    """
    panels = 1 + len(parameters)
    rows = math.ceil(panels / _MOST_COLUMNS)
    columns = math.ceil(panels / rows)
    figure, axes = new_figure(12.0, 3.4 * rows, rows, columns, squeeze=False, sharey=True)
    places = axes.flatten()
    ordered = sorted(trials, key=lambda trial: trial["number"])
    numbers, scores = [trial["number"] for trial in ordered], 100 * np.array([trial["mean_iou"] for trial in ordered])
    best_so_far = np.maximum.accumulate(scores)
    places[0].step(numbers, best_so_far, where="post", color=MUTED, linewidth=1.2, label="best so far")
    _scatter(places[0], numbers, scores)
    places[0].set_title("trial")
    places[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    places[0].legend(loc="lower right")
    for panel, name in zip(places[1:], parameters, strict=False):
        _plot_parameter(panel, name, [trial.get(name) for trial in ordered], scores)
    for row in axes:
        row[0].set_ylabel("validation mIoU, %")
    for panel in places[panels:]:
        panel.set_visible(False)
    return figure


def _plot_parameter(panel: Axes, name: str, values: list[Any], scores: np.ndarray) -> None:
    panel.set_title(name.replace(".", ".\n"))
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        if min(values) > 0 and max(values) / min(values) >= _LOG_RANGE:
            panel.set_xscale("log")
        _scatter(panel, values, scores)
        return
    choices = sorted({_text(value) for value in values})
    _scatter(panel, [choices.index(_text(value)) for value in values], scores)
    panel.set_xticks(range(len(choices)), choices, rotation=20, ha="right")
    panel.set_xlim(-0.5, len(choices) - 0.5)


def _scatter(panel: Axes, places: list[float], scores: np.ndarray) -> None:
    best = int(scores.argmax())
    panel.scatter(places, scores, s=28, color=_TRIAL_COLOR, alpha=0.7, linewidths=0)
    panel.scatter(places[best], scores[best], s=60, color=ACCEPTED, zorder=3)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

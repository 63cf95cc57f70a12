"""Learning curves from TensorBoard's event files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from analysis.plotting import house_style, new_figure
from analysis.report.runs import Run

_SCALARS = {"train/loss": "training loss", "train/mean_iou": "training mIoU", "val/mean_iou": "validation mIoU"}
_LINE_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")


@dataclass(frozen=True)
class Curve:
    """One scalar over training steps."""

    steps: list[int]
    values: list[float]


def read_curves(tensorboard: Path, names: list[str]) -> dict[str, Curve]:
    """The scalars ``names`` of a TensorBoard folder, those that are there; none where there is no folder."""
    if not tensorboard.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.WARNING)
    events = EventAccumulator(str(tensorboard), size_guidance={"scalars": 0, "images": 1})
    events.Reload()
    curves = {}
    for name in set(names) & set(events.Tags()["scalars"]):
        points = events.Scalars(name)
        curves[name] = Curve([point.step for point in points], [point.value for point in points])
    return curves


@house_style
def plot_curves(runs: list[Run]) -> Figure | None:
    """Loss and mIoU of all runs over steps; None when no run has any."""
    curves = {run.name: read_curves(run.folder / "training" / "tensorboard", list(_SCALARS)) for run in runs}
    shown = [name for name in _SCALARS if any(name in run for run in curves.values())]
    if not shown:
        return None
    figure, axes = new_figure(12.0, 4.4, columns=len(shown), squeeze=False)
    for panel, name in zip(axes[0], shown, strict=True):
        for number, (run_name, scalars) in enumerate(curves.items()):
            if name in scalars:
                color = _LINE_COLORS[number % len(_LINE_COLORS)]
                dashes = "-" if number < len(_LINE_COLORS) else "--"
                panel.plot(scalars[name].steps, scalars[name].values, dashes, color=color, linewidth=1.6,
                           label=run_name, marker="o" if len(scalars[name].steps) == 1 else None)
        panel.set_title(_SCALARS[name])
        panel.set_xlabel("step")
        panel.set_ylim(bottom=0)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    return figure

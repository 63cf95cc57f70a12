"""Shared by all figures: a backend without a display, ScanNet's class colours, fonts for a 1280x800 screen."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from utils.files import atomic_path
from utils.labels import label_set

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#e4e7eb"
ACCEPTED = "#1a7f37"
REJECTED = "#b42318"
_DPI = 100
_STYLE = {
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


house_style = matplotlib.rc_context(_STYLE)  # decorate each function that draws


def new_figure(width: float = 12.8, height: float = 8.0, rows: int = 1, columns: int = 1, **options):
    """A figure of ``width`` x ``height`` hundred pixels and its axes, without pyplot's global state."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure atomically; the suffix chooses the format. The same data give the same bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None} if temporary.suffix == ".png" else None)


def shown_classes(counts: np.ndarray, most: int = 40) -> np.ndarray:
    """The classes that a figure has room for, ascending: all of a set of at most ``most``; of a larger one those that
    occur, and of these the most frequent.

    Args:
        counts: ``[C]`` or shares, by class index; unannotated, the first, is never among them.
    """
    classes = np.arange(1, len(counts))
    if len(classes) <= most:
        return classes
    frequent = classes[np.argsort(-counts[1:], kind="stable")][:most]
    return np.sort(frequent[counts[frequent] > 0])


def class_color(index: int) -> np.ndarray:
    """The label set's colour of a class as RGB in 0..1; black for unannotated pixels."""
    return label_set().colors[index] / 255.0


def class_legend(axes: Axes, classes: list[int], **options) -> None:
    """A legend of class colours."""
    handles = [
        Patch(facecolor=class_color(k), edgecolor=MUTED, linewidth=0.5, label=label_set().names[k]) for k in classes
    ]
    axes.legend(handles=handles, **options)

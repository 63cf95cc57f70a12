"""Domes seen from above, and contact sheets of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from analysis.plotting import ACCEPTED, INK, MUTED, REJECTED, class_color, class_legend, house_style, new_figure
from dataloader import CameraList
from utils.labels import label_set

_MAX_POINTS = 40000
_PLAN_HEIGHT = 2.1
_MARKS = ("x", "+", "1", "2", "3", "4", "|", "_")


@house_style
def plot_plan(
    domes: CameraList, vertices: Tensor, classes: Tensor, floor: float, trajectory: Tensor | None = None,
    refused: Mapping[str, np.ndarray] | None = None,
) -> Figure:  # fmt: skip
    """The room from above with every dome camera, its direction, and the targets.

    Args:
        domes: cameras with ``info`` of ``domes.dome_cameras``, and of ``filtering.judge_views`` where it has run.
        vertices: float ``[Nv, 3]`` of the room's mesh; what is over 2.1 m above the floor is cut off.
        classes: ``[Nv]`` class index of each vertex.
        floor: height of the floor.
        trajectory: ``[N, 3]`` camera centres of the original views.
        refused: ``[K, 3]`` places of candidates that 'sample' refused, by reason.
    """
    figure, axes = new_figure()
    low = (vertices[:, 2] < floor + _PLAN_HEIGHT).nonzero()[:, 0]
    low = low[torch.argsort(vertices[low, 2])]
    low = low[:: -(-len(low) // _MAX_POINTS)]
    colors = label_set().colors[classes[low].numpy()] / 255 * 0.55 + 0.45
    axes.scatter(vertices[low, 0], vertices[low, 1], c=colors, s=4, linewidths=0, rasterized=True)
    if trajectory is not None:
        axes.plot(trajectory[:, 0], trajectory[:, 1], color=INK, linewidth=0.8, alpha=0.5, label="original views")
    _draw_refused(axes, refused or {})
    _draw_cameras(axes, domes)
    _draw_targets(axes, domes)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.set_xlabel("x, metres")
    axes.set_ylabel("y, metres")
    axes.set_title(f"{domes.scene}: domes from above")
    if trajectory is not None or len(domes):
        figure.legend(loc="outside right upper")
    present = np.unique(classes.numpy()).tolist()
    class_legend(axes, present, loc="lower left", bbox_to_anchor=(1.02, 0.0), fontsize=10)
    return figure


def _draw_refused(axes: Axes, refused: Mapping[str, np.ndarray]) -> None:
    """A small mark a candidate, its shape by reason."""
    for number, (reason, places) in enumerate(sorted(refused.items())):
        axes.scatter(places[:, 0], places[:, 1], s=22, marker=_MARKS[number % len(_MARKS)], color=REJECTED, alpha=0.5,
                     linewidths=0.8, zorder=2, label=f"refused: {reason.replace('_', ' ')} ({len(places)})")


def _draw_cameras(axes: Axes, domes: CameraList) -> None:
    """One arrow a camera, in three groups: not filtered, accepted, rejected."""
    poses = domes.camera_to_world
    verdicts = [info.get("accepted") for info in domes.info]
    groups = ((None, MUTED, "dome camera"), (False, REJECTED, "rejected"), (True, ACCEPTED, "accepted"))
    for verdict, color, name in groups:
        chosen = [index for index, value in enumerate(verdicts) if value is verdict]
        if not chosen:
            continue
        eye, forward = poses[chosen, :3, 3], poses[chosen, :3, 2]
        alpha = 0.35 if verdict is False else 0.9
        axes.quiver(eye[:, 0], eye[:, 1], forward[:, 0], forward[:, 1], color=color, alpha=alpha, angles="xy",
                    scale_units="xy", scale=5, width=0.0022, zorder=3)
        axes.scatter(eye[:, 0], eye[:, 1], s=10, color=color, alpha=alpha, zorder=3, label=f"{name} ({len(chosen)})")


def _draw_targets(axes: Axes, domes: CameraList) -> None:
    targets = {info["target"]: info for info in domes.info}
    for number, info in targets.items():
        x, y, _ = info["target_point"]
        axes.scatter(x, y, marker="*", s=220, color=class_color(info["target_class_index"]), edgecolors=INK, zorder=4)
        axes.annotate(f"{number} {label_set().names[info['target_class_index']]}", (x, y), xytext=(8, 6), fontsize=10,
                      textcoords="offset points", zorder=5, fontweight="bold",
                      bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.7})


def contact_sheet(images: Sequence[Tensor], columns: int, gutter: int = 4) -> Tensor:
    """Images uint8 ``[3, H, W]`` of one size in rows of ``columns`` on white, as one uint8 ``[3, H', W']``.

    Raises:
        ValueError: there are no images.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    height, width = images[0].shape[-2:]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step = (height + gutter, width + gutter)
    sheet = torch.full((3, rows * step[0] - gutter, columns * step[1] - gutter), 255, dtype=torch.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * step[0], index % columns * step[1]
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def pick_evenly(count: int, limit: int) -> list[int]:
    """At most ``limit`` of the indices 0..count-1, evenly spread, ends included."""
    if count <= limit:
        return list(range(count))
    return torch.linspace(0, count - 1, limit).round().long().tolist()

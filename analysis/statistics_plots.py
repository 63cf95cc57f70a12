"""Figures of class statistics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plotting import INK, MUTED, class_color, class_legend, house_style, new_figure, shown_classes
from analysis.sh_classes import PixelSample, principal_components
from analysis.statistics import from_names
from utils.labels import label_set

_MAX_SCENES_SHOWN = 30
_COVERAGE_LEVELS = (0.10, 0.25, 0.50)
_MAX_POINTS_SHOWN = 6000


def _class_bars(axes: Axes, shares: np.ndarray, tail: set[str]) -> None:
    """Horizontal bars in class colours on a logarithmic axis, values written beside, tail classes in bold."""
    shown = np.concatenate(([0], shown_classes(shares)))
    order = shown[np.argsort(-shares[shown], kind="stable")]
    positions = np.arange(len(order))
    axes.barh(positions, shares[order] * 100, color=[class_color(k) for k in order], edgecolor=INK, linewidth=0.6)
    for position, k in zip(positions, order, strict=True):
        axes.annotate(f"{shares[k]:.2%}" if shares[k] else "none", (max(shares[k] * 100, 1e-2), position),
                      xytext=(5, 0), textcoords="offset points", va="center", fontsize=10)
    axes.set_yticks(positions, [label_set().names[k] for k in order])
    for tick, k in zip(axes.get_yticklabels(), order, strict=True):
        tick.set_fontweight("bold" if label_set().names[k] in tail else "normal")
    axes.set_xscale("log")
    axes.set_xlim(1e-2, 400)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("per cent, logarithmic")


@house_style
def plot_class_distribution(total: dict[str, Any]) -> Figure:
    """Share of pixels and share of frames of every class. ``total`` is what ``statistics.summarize_scenes`` returns."""
    figure, (left, right) = new_figure(columns=2)
    tail = set(total["tail_classes"])
    _class_bars(left, from_names(total["share"]).numpy(), tail)
    left.set_title("Share of pixels")
    _class_bars(right, from_names(total["frames_with_class"]).numpy() / max(total["num_frames"], 1), tail)
    right.set_title("Share of frames that show the class")
    figure.suptitle(f"{total['num_frames']} frames of {total['num_scenes']} scenes; bold: tail classes "
                    f"({total['tail_rule']})", fontsize=12)
    return figure


@house_style
def plot_scene_distribution(scenes: dict[str, dict[str, Any]]) -> Figure:
    """Stacked class shares, one bar a scene; the first 30 scenes in name order when there are more."""
    shown = list(scenes)[:_MAX_SCENES_SHOWN]
    shares = torch.stack([from_names(scenes[name]["pixels"]) for name in shown])
    shares = (shares / shares.sum(1, keepdim=True).clamp(min=1)).numpy() * 100
    figure, axes = new_figure(height=min(8.0, 2.6 + 0.35 * len(shown)))
    start = np.zeros(len(shown))
    for k in [*range(1, label_set().num_classes), 0]:
        axes.barh(shown, shares[:, k], left=start, color=class_color(k), edgecolor="white", linewidth=0.4, height=0.75)
        start += shares[:, k]
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("per cent of pixels")
    axes.grid(visible=False, axis="y")
    hidden = len(scenes) - len(shown)
    axes.set_title("Classes in each scene" + (f" (the first {len(shown)}; {hidden} more)" if hidden else ""))
    class_legend(axes, [*shown_classes(shares.sum(0), 20), 0], loc="upper left", bbox_to_anchor=(1.0, 1.0),
                 fontsize=10, ncols=1 if len(shown) > 8 else 2)
    return figure


@house_style
def plot_window_coverage(scenes: Iterable[dict[str, dict[str, float]]], window: float) -> Figure:
    """In how many frames each class covers at least 10%, 25%, 50% of the central window.

    Args:
        scenes: of each scene, {frame: {class: share}}; looked at one at a time.
        window: sides of the window as a fraction of the image's.
    """
    counts = np.zeros((len(_COVERAGE_LEVELS), label_set().num_classes), dtype=int)
    for frames in scenes:
        for shares in frames.values():
            for name, share in shares.items():
                counts[:, label_set().names.index(name)] += [share >= level for level in _COVERAGE_LEVELS]
    figure, axes = new_figure(height=5.6)
    shown = shown_classes(counts.sum(0))
    positions = np.arange(1, len(shown) + 1)
    for number, level in enumerate(_COVERAGE_LEVELS):
        bars = axes.bar(positions + (number - 1) * 0.27, counts[number, shown], width=0.25, edgecolor=INK,
                        linewidth=0.5, color=[class_color(k) for k in shown], alpha=(0.35, 0.65, 1.0)[number])
        axes.bar_label(bars, fontsize=8, color=INK)
        axes.bar(0, 0, color=MUTED, alpha=(0.35, 0.65, 1.0)[number], label=f"at least {level:.0%} of the window")
    axes.set_yscale("symlog", linthresh=10)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(positions, [label_set().names[k] for k in shown], rotation=35, ha="right")
    axes.set_xlim(0.4, len(shown) + 0.6)
    axes.set_ylabel("frames")
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper right", ncols=3)
    axes.set_title(f"Frames by a class's share of the central window ({window:.0%} of each side)")
    return figure


@house_style
def plot_sh_classes(sample: PixelSample, information: dict[str, Any]) -> Figure:
    """Pixels on the first two principal components of their SH coefficients, and the score of each feature set."""
    figure, (scatter, bars) = new_figure(columns=2, width_ratios=(1.7, 1.0))
    scores, variance = principal_components(sample.sh)
    step = -(-len(scores) // _MAX_POINTS_SHOWN)
    points, labels = scores[::step].numpy(), sample.label[::step]
    scatter.scatter(points[:, 0], points[:, 1], c=class_color(labels.numpy()), s=9, linewidths=0.15, edgecolors=INK)
    limits = np.percentile(points[:, :2], (0.5, 99.5), axis=0)
    margin = 0.05 * (limits[1] - limits[0]) + 1e-6
    scatter.set_xlim(limits[0, 0] - margin[0], limits[1, 0] + margin[0])
    scatter.set_ylim(limits[0, 1] - margin[1], limits[1, 1] + margin[1])
    scatter.set_xlabel(f"first component ({variance[0]:.0%} of the variance)")
    scatter.set_ylabel(f"second component ({variance[1]:.0%})")
    scatter.set_title("Pixels by class, principal components of SH")
    class_legend(scatter, sorted(labels.unique().tolist()), loc="upper right", fontsize=9, ncols=2)

    accuracy = information["accuracy"]
    rows = bars.barh(list(accuracy), [100 * value for value in accuracy.values()], color="#52667a", height=0.6)
    bars.bar_label(rows, fmt="%.1f %%", padding=4)
    bars.axvline(100 * information["chance"], color=INK, linestyle="--", linewidth=1)
    bars.annotate(f"chance {information['chance']:.1%}", (100 * information["chance"], -0.45), xytext=(4, 0),
                  textcoords="offset points", fontsize=9, va="bottom")
    bars.invert_yaxis()
    bars.set_xlim(0, min(100, 135 * max(*accuracy.values(), information["chance"])))
    bars.grid(visible=False, axis="y")
    bars.set_xlabel("class-balanced accuracy on held-out pixels, %")
    bars.set_title(f"Linear discriminant, {len(information['classes'])} classes")
    return figure


@house_style
def plot_before_and_after(before: torch.Tensor, after: torch.Tensor, tail: set[str]) -> Figure:
    """Share of annotated pixels of every class without (``before [C]``) and with novel views (``after [C]``)."""
    shown = shown_classes((before + after).numpy())
    shares = [(100 * counts.double() / counts[1:].sum().clamp(min=1)).numpy()[shown] for counts in (before, after)]
    figure, axes = new_figure(height=5.0)
    positions = np.arange(1, len(shown) + 1)
    colors = [class_color(k) for k in shown]
    axes.bar(positions - 0.2, shares[0], 0.36, color=colors, edgecolor=INK, linewidth=0.5, alpha=0.4)
    axes.bar(positions + 0.2, shares[1], 0.36, color=colors, edgecolor=INK, linewidth=0.5)
    for position, k, old, new in zip(positions, shown, *shares, strict=True):
        if old > 0:
            axes.annotate(f"×{new / old:.1f}", (position, max(old, new)), xytext=(0, 4), textcoords="offset points",
                          ha="center", fontsize=10, fontweight="bold" if label_set().names[k] in tail else "normal")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("per cent of annotated pixels")
    axes.set_xticks(positions, [label_set().names[k] for k in shown], rotation=35, ha="right")
    for tick, k in zip(axes.get_xticklabels(), shown, strict=True):
        tick.set_fontweight("bold" if label_set().names[k] in tail else "normal")
    axes.set_xlim(0.4, len(shown) + 0.6)
    axes.grid(visible=False, axis="x")
    axes.set_title("Original views (pale) and with novel views (full colour); tail classes in bold")
    return figure

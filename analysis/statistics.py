"""Class statistics of annotated views: pixels and frames per class, window coverage per frame, tail classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.coverage import class_pixels, window_coverage
from dataloader import ViewStore
from utils.errors import UserError
from utils.labels import UNANNOTATED, class_index, label_set


@dataclass(frozen=True)
class SceneStatistics:
    """One scene's counts, class index last."""

    frames: list[str]
    pixels: Tensor  # int64 [C]
    frames_with_class: Tensor  # int64 [C]
    coverage: Tensor  # float32 [N, C], share of the central window

    def to_json(self) -> dict[str, Any]:
        """Names instead of indices; classes a frame's window does not show are left out of its coverage."""
        return {
            "num_frames": len(self.frames),
            "pixels": by_name(self.pixels),
            "frames_with_class": by_name(self.frames_with_class),
            "window_coverage": {
                frame: {label_set().names[k]: round(float(row[k]), 4) for k in row.nonzero()[:, 0].tolist()}
                for frame, row in zip(self.frames, self.coverage, strict=True)
            },
        }


def by_name(values: Tensor) -> dict[str, Any]:
    """``[C]`` values as {class name: value}, in class order."""
    return dict(zip(label_set().names, values.tolist(), strict=True))


def from_names(values: dict[str, Any]) -> Tensor:
    """The inverse of :func:`by_name`; float64."""
    return torch.tensor([values.get(name, 0) for name in label_set().names], dtype=torch.float64)


def scene_statistics(path: str | Path, window: float) -> SceneStatistics:
    """Count one view store, a few views at a time.

    Raises:
        UserError: the store has no labels, no views, or a label that is not a class index.
    """
    store = ViewStore.open(path)
    if len(store) == 0:
        raise UserError(f"{path} holds no views; there is nothing to count")
    pixels, coverage = [], []
    for _, labels in store.blocks("label"):
        try:
            pixels.append(class_pixels(labels))
        except ValueError as error:
            raise UserError(f"{path}: label channel is broken ({error}); annotate the store again") from None
        coverage.append(window_coverage(labels, window))
    per_view = torch.cat(pixels)
    return SceneStatistics(
        frames=list(store.cameras.names),
        pixels=per_view.sum(0),
        frames_with_class=(per_view > 0).sum(0),
        coverage=torch.cat(coverage),
    )


def tail_classes(pixels: Tensor, rule: str | Sequence[str], threshold: float) -> list[int]:
    """Class indices of the rare classes among those that occur, rarest first.

    Args:
        pixels: ``[C]`` pixels of every class.
        rule: ``"share"``: classes with less than ``threshold`` of *all* pixels, unannotated ones included, as the
            paper counts; ``"paper"``: the paper's list; or a list of class names.
        threshold: share for ``"share"``; 0.011 gives the paper's list from the shares it measured on ScanNet.

    Raises:
        UserError: the rule or a class name is unknown.
    """
    if rule == "share":
        shares = pixels.double() / pixels.sum().clamp(min=1)
        candidates = [k for k in range(label_set().num_classes) if k != UNANNOTATED and shares[k] < threshold]
    elif rule == "paper":
        candidates = list(label_set().tail)
    elif isinstance(rule, str):
        raise UserError(f"tail = {rule!r} is unknown; use 'share', 'paper' or a list of class names")
    else:
        try:
            candidates = [class_index(name) for name in rule]
        except ValueError as error:
            raise UserError(f"tail classes: {error}") from None
    return sorted((k for k in candidates if pixels[k] > 0), key=lambda k: (int(pixels[k]), k))


def check_rule(rule: str | Sequence[str]) -> None:
    """Raise :class:`UserError` unless ``rule`` is one for :func:`tail_classes`."""
    tail_classes(torch.zeros(label_set().num_classes), rule, 0.0)


def summarize_scenes(scenes: dict[str, dict[str, Any]], rule: str | Sequence[str], threshold: float) -> dict[str, Any]:
    """Totals over scenes (as :meth:`SceneStatistics.to_json` gives them), shares and tail classes."""
    pixels = _total(scene["pixels"] for scene in scenes.values())
    frames_with_class = _total(scene["frames_with_class"] for scene in scenes.values())
    tail = tail_classes(pixels, rule, threshold)
    described = f"share of all pixels below {threshold:g}" if rule == "share" else (
        "the paper's list" if rule == "paper" else "given by name")
    return {
        "num_scenes": len(scenes),
        "num_frames": sum(scene["num_frames"] for scene in scenes.values()),
        "pixels": by_name(pixels.long()),
        "share": by_name(pixels / pixels.sum().clamp(min=1)),
        "frames_with_class": by_name(frames_with_class.long()),
        "scenes_with_class": by_name(torch.stack([from_names(s["pixels"]) > 0 for s in scenes.values()]).sum(0)),
        "tail_rule": described,
        "tail_classes": [label_set().names[k] for k in tail],
    }


def _total(counts: Iterable[dict[str, int]]) -> Tensor:
    return torch.stack([from_names(values) for values in counts]).sum(0)

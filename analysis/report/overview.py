"""The overview picture: photograph, render, SH image and annotation of the same views."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from analysis.false_color import sh_false_color
from dataloader import ViewStore
from utils.labels import colorize


def overview_picture(views_dir: Path, scenes: int = 3, enlarge: int = 2) -> Tensor | None:
    """A picture uint8 ``[3, H, W]`` with one row a scene, or None when no store has all four channels.

    Each scene shows the view in which most classes are seen.
    """
    rows = []
    for path in sorted(Path(views_dir).iterdir()) if Path(views_dir).is_dir() else []:
        if not (path / "meta.json").exists():
            continue
        store = ViewStore.open(path)
        if not {"photo", "rgb", "sh", "label"} <= set(store.channels):
            continue
        labels = store.tensor("label")
        index = max(range(len(store)), key=lambda view: len(labels[view].unique()))
        images = [
            store.read("photo", index), store.read("rgb", index), sh_false_color(store.read("sh", index)),
            colorize(store.read("label", index)),
        ]
        rows.append(torch.cat([_to_uint8(image) for image in images], dim=-1))
        if len(rows) == scenes:
            break
    if not rows or len({row.shape for row in rows}) > 1:
        return None
    return torch.cat(rows, dim=-2).repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)


def _to_uint8(image: Tensor) -> Tensor:
    return image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)

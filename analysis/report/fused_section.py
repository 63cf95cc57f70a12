"""Predictions fused in the fields beside those of single views: scores of every scene, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.report.embedding import embed_drawing, embed_photo
from dataloader import ViewStore
from utils.arrays import read_npy
from utils.errors import reading
from utils.files import read_json
from utils.labels import colorize

_SCORES = ("mean_iou_of_present", "pixel_accuracy")


def fused_section(fused_dir: Path | None, views_dir: Path, examples: int) -> dict[str, Any] | None:
    """The page's content about what 'fuse' wrote to ``fused_dir``; None where it has not scored any scene.

    Args:
        views_dir: the original views' stores, for pictures.
        examples: how many scenes are shown in pictures.
    """
    if fused_dir is None or not (fused_dir / "run" / "metrics.json").exists():
        return None
    path = fused_dir / "run" / "metrics.json"
    found = read_json(path, kind=dict)
    with reading(path, "the metrics of a fusion", "fuse again"):
        rows = [{"scene": scene, "views": int(entry["views"]), **_scores(entry)}
                for scene, entry in sorted(found["scenes"].items()) if entry.get("single") and entry.get("fused")]
        if not rows or not found.get("single"):
            return None
        gained = sum(row["fused_iou"] > row["single_iou"] for row in rows)
        total = {"scenes": rows, "gained": gained, **_scores(found)}
    shown = [row["scene"] for row in rows][:examples]
    return {**total, "pictures": [picture for scene in shown if (picture := _pictures(fused_dir, views_dir, scene))]}


def _scores(entry: dict[str, Any]) -> dict[str, float]:
    """In per cent."""
    return {f"{kind}_{name}": 100 * float(entry[kind][score]) for kind in ("single", "fused")
            for name, score in zip(("iou", "accuracy"), _SCORES, strict=True)}


def _pictures(fused_dir: Path, views_dir: Path, scene: str) -> dict[str, Any] | None:
    """Render, fused labels and truth of the scene's view with the most annotated pixels; None where one is absent."""
    labels, folder = fused_dir / scene / "label.npy", views_dir / scene
    if not labels.exists() or not folder.exists():
        return None
    store = ViewStore.open(folder)
    fused = read_npy(labels, "fused labels")
    if not {"rgb", "label"} <= set(store.channels) or fused.shape != (len(store), *store.size):
        return None
    view = int(np.argmax([int((store.read("label", index) > 0).sum()) for index in range(len(store))]))
    truth, shown = store.read("label", view), torch.from_numpy(np.ascontiguousarray(fused[view]))
    return {
        "scene": scene,
        "render": embed_photo((store.read("rgb", view) * 255).round().to(torch.uint8)),
        "fused": embed_drawing(colorize(shown)),
        "truth": embed_drawing(colorize(truth)),
    }  # fmt: skip

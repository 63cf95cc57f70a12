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
_UNLABELLED_VIEWS = 4  # shown of a scene


def fused_section(fused_dir: Path | None, views_dir: Path, examples: int) -> dict[str, Any] | None:
    """The page's content about what 'fuse' wrote to ``fused_dir``; None where it has fused no scene.

    Args:
        views_dir: the original views' stores, for pictures.
        examples: how many scenes are shown in pictures.

    Returns:
        ``scenes``: the scores of each that has labels, of all of them beside it; ``unlabelled``: names of the others;
        ``pictures`` of both.
    """
    if fused_dir is None or not (fused_dir / "run" / "metrics.json").exists():
        return None
    path = fused_dir / "run" / "metrics.json"
    found = read_json(path, kind=dict)
    with reading(path, "the metrics of a fusion", "fuse again"):
        scored = {scene: entry for scene, entry in sorted(found["scenes"].items())
                  if entry.get("single") and entry.get("fused") and found.get("single")}  # fmt: skip
        rows = [{"scene": scene, "views": int(entry["views"]), **_scores(entry)} for scene, entry in scored.items()]
        unlabelled = sorted(found["scenes"].keys() - scored.keys())
        total = _scores(found) if rows else {}
    shown = [*scored, *unlabelled][:examples]
    pictures = [picture for scene in shown for picture in _pictures(fused_dir, views_dir, scene)]
    if not rows and not pictures:
        return None
    gained = sum(row["fused_iou"] > row["single_iou"] for row in rows)
    return {"scenes": rows, "gained": gained, **total, "unlabelled": unlabelled, "pictures": pictures}


def _scores(entry: dict[str, Any]) -> dict[str, float]:
    """In per cent."""
    return {f"{kind}_{name}": 100 * float(entry[kind][score]) for kind in ("single", "fused")
            for name, score in zip(("iou", "accuracy"), _SCORES, strict=True)}


def _pictures(fused_dir: Path, views_dir: Path, scene: str) -> list[dict[str, Any]]:
    """Render, fused labels and truth of the scene's view with the most annotated pixels.

    Of a scene without labels some views, evenly spread, whose truth is None; nothing where renders are absent.
    """
    labels, folder = fused_dir / scene / "label.npy", views_dir / scene
    if not labels.exists() or not folder.exists():
        return []
    store = ViewStore.open(folder)
    fused = read_npy(labels, "fused labels")
    if "rgb" not in store.channels or fused.shape != (len(store), *store.size):
        return []
    labelled = "label" in store.channels
    if labelled:
        chosen = [int(np.argmax([int((store.read("label", index) > 0).sum()) for index in range(len(store))]))]
    else:
        places = range(_UNLABELLED_VIEWS)
        chosen = sorted({round((len(store) - 1) * (place + 0.5) / _UNLABELLED_VIEWS) for place in places})
    return [{
        "scene": scene,
        "render": embed_photo((store.read("rgb", view) * 255).round().to(torch.uint8)),
        "fused": embed_drawing(colorize(torch.from_numpy(np.ascontiguousarray(fused[view])))),
        "truth": embed_drawing(colorize(store.read("label", view))) if labelled else None,
    } for view in chosen]  # fmt: skip

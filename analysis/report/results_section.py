"""The networks' results: the paper's table, the SH stems, learning curves, predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.dome_plots import pick_evenly
from analysis.report.curves import plot_curves
from analysis.report.differences import differences, gains
from analysis.report.embedding import embed_drawing, embed_figure
from analysis.report.links import raw_files
from analysis.report.runs import (
    Run,
    RunGroup,
    find_runs,
    fusion_table,
    group_runs,
    known_classes,
    unequal_budgets,
    with_fused,
)
from analysis.report.summary import summary
from utils.images import read_image

_SAMPLES = 6


def results_section(runs_dir: Path, page_dir: Path) -> dict[str, Any] | None:
    """The page's content about the runs in ``runs_dir``; None when there are none.

    Args:
        runs_dir: folder of the runs.
        page_dir: folder of the page, from which its links lead to files.
    """
    runs, left_out = find_runs(runs_dir)
    if not runs and not left_out:
        return None
    groups, remarks = group_runs(runs)
    curves = plot_curves(runs)
    every, of_fused = with_fused(groups)
    compared = differences(every)
    return {
        "summary": summary(groups, compared),
        "differences": compared,
        "gains": gains(every),
        "classes": known_classes(every),
        "rows": [describe(group.title, group, page_dir) for group in every],
        "fusion": [describe(group.first.stem, group, page_dir) for group in fusion_table(groups)],
        "left_out": left_out + remarks + of_fused,
        "untested": [run.name for run in runs if not run.tested],
        "seen_rooms": sorted({room for run in runs for room in run.scores.get("rooms_seen_in_training", [])}),
        "unequal": unequal_budgets([group for group in groups if group.paper]),
        "curves": embed_figure(curves) if curves is not None else None,
        "predictions": prediction_grids([group.first for group in every]),
    }


def describe(title: str, group: RunGroup, page_dir: Path) -> dict[str, Any]:
    """One table row, in per cent: mIoU and per-class IoU with their deviation over seeds; and links to its files."""
    mean, deviation = group.mean_iou
    first = group.first
    return {
        "title": title,
        "row": group.name,
        "runs": [run.name for run in group.runs],
        "files": [{"name": run.name, "links": raw_files(run.folder, page_dir)} for run in group.runs],
        "stem": first.stem,
        "parameters": first.training.get("parameters"),
        "training_views": first.training.get("training_views"),
        "epochs": first.training.get("epochs"),
        "seconds": sum(run.training.get("seconds", 0.0) for run in group.runs) / len(group.runs),
        "measured_on": f"{first.scores['views']} test views" if first.tested else "validation views",
        "mean_iou": 100 * mean,
        "mean_iou_std": None if deviation is None else 100 * deviation,
        "pixel_accuracy": 100 * first.scores["pixel_accuracy"],
        "class_iou": {name: _percent(group.class_iou(name)) for name in first.scores["class_iou"]},
        "paper_mean_iou": group.paper.paper_mean_iou if group.paper else None,
    }


def _percent(value: tuple[float, float | None] | None) -> dict[str, float | None] | None:
    if value is None:
        return None
    mean, deviation = value
    return {"mean": 100 * mean, "std": None if deviation is None else 100 * deviation}


def prediction_grids(runs: list[Run]) -> list[dict[str, Any]]:
    """Image, ground truth and each run's prediction of some views; one grid for all runs with the same views."""
    grids: dict[bytes, dict[str, Any]] = {}
    for run in runs:
        files = sorted(run.sample_folder.glob("*.png"))
        if not files:
            continue
        samples = [_split_sample(read_image(files[k])) for k in pick_evenly(len(files), _SAMPLES)]
        truths = b"".join(truth.numpy().tobytes() for _, truth, _ in samples)
        grid = grids.setdefault(truths, {"columns": ["image", "truth"], "pictures": [list(s[:2]) for s in samples]})
        grid["columns"].append(run.name)
        for pictures, sample in zip(grid["pictures"], samples, strict=True):
            pictures.append(sample[2])
    return [
        {"columns": grid["columns"], "rows": [[embed_drawing(picture) for picture in row] for row in grid["pictures"]]}
        for grid in grids.values()
    ]


def _split_sample(picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Image, ground truth and prediction of a stored sample uint8 ``[3, H, 3 W]``."""
    image, truth, prediction = torch.tensor_split(picture, 3, dim=2)
    return image, truth, prediction

"""A scene's figures: how good its field is, and how well it was segmented."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from analysis.experiment import class_iou
from utils.errors import UserError, reading
from utils.files import read_json

logger = logging.getLogger(__name__)


def scene_figures(scene: str, field: Path, checkpoints: Mapping[str, Path], fused: Path | None) -> list[str]:
    """Lines of Markdown, of what is there.

    Args:
        scene: its name.
        field: folder of the field.
        checkpoints: by name, RUN/training/best.ckpt, beside whose training the run's test lies.
        fused: folder of the fused scene.
    """
    found = []
    tests = [(path.absolute().parents[1] / "test" / "scores" / "results.json", partial(_of_test, name))
             for name, path in checkpoints.items()]  # fmt: skip
    fusion = [] if fused is None else [(fused.parent / "run" / "metrics.json", _of_fusion)]
    for path, read in ((field / "results.json", _of_field), *tests, *fusion):
        if not path.is_file():
            continue
        try:
            with reading(path, "results", "make them again"):
                line = read(scene, read_json(path, kind=dict))
        except UserError as error:
            logger.info("without figures: %s", error)
            continue
        if line:
            found.append(line)
    return found


def _of_field(scene: str, results: Mapping[str, Any]) -> str:
    parts = []
    if results.get("psnr") is not None:
        parts.append(f"held-out PSNR **{results['psnr']:.2f} dB**, SSIM {results['ssim']:.3f}")
    if "voxels" in results:
        parts.append(f"{results['voxels']:,} voxels of {100 * results['voxel_metres']:.1f} cm")
    return "; ".join(parts)


def _of_test(network: str, scene: str, scores: Mapping[str, Any]) -> str:
    counts = scores.get("by_scene", {}).get(scene)
    if counts is None:
        return f"{network} was not tested on this scene"
    present = np.array(counts["truth"]) > 0
    if not present.any():
        return f"{network} was tested on this scene, which has no labels"
    iou = 100 * class_iou(np.array([counts[name] for name in ("truth", "predicted", "hits")]))[present]
    return f"{network}: mIoU of this scene's {len(iou)} classes **{iou.mean():.1f} %**"


def _of_fusion(scene: str, metrics: Mapping[str, Any]) -> str:
    scores = metrics.get("scenes", {}).get(scene, {})
    if not scores.get("fused"):
        return ""
    single, fused = (100 * scores[part]["mean_iou_of_present"] for part in ("single", "fused"))
    return f"mIoU of this scene's classes, single predictions {single:.1f} %, fused **{fused:.1f} %**"

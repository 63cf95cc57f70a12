"""Which dome cameras give views worth rendering, judged from images of the labelled mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gin
import torch
from torch import Tensor

from analysis.coverage import class_pixels
from dataloader import CameraList
from utils.cameras import project, seen_pixels
from utils.labels import UNANNOTATED

REASONS = {
    "too_close": "a surface is nearer than min_distance: the camera touches or is inside something",
    "few_hits": "too many pixels see no surface",
    "occluded": "a surface of another class occludes the target",
    "unannotated": "too many pixels have no class",
    "low_coverage": "the target's class covers too little of the view",
    "low_quality": "the field would render the view too badly, by the mean estimated quality",
    "over_limit": "accepted, but the class has enough views with better coverage in this scene",
}


@gin.configurable
@dataclass(frozen=True)
class FilterOptions:
    """What a dome camera's view must satisfy.

    Attributes:
        min_coverage: share of pixels that the target's class must have; 0.2 in the paper,
            3000 of 15376 pixels (0.195) in its code.
        min_distance: metres; no surface may be nearer along the optical axis.
        min_hits: share of pixels that must see a surface.
        max_unannotated: share of pixels that may be without a class, those that see no surface included.
        occlusion_tolerance: metres; surfaces of another class this much in front of the target occlude it.
        min_quality: mean estimated render quality that a view must have (:mod:`analysis.quality`); 0 does not ask, and
            nothing is rendered.
        at_least: views of a scene that stay whatever their quality, the best ones, so that no scene ends without any.
        quality_size: height and width at which views are rendered to estimate their quality.
        max_per_class: most accepted views of one class in one scene, best covered first; 0 is no limit.
    """

    min_coverage: float = 0.2
    min_distance: float = 0.25
    min_hits: float = 0.8
    max_unannotated: float = 0.5
    occlusion_tolerance: float = 0.2
    min_quality: float = 0.0
    at_least: int = 2
    quality_size: Sequence[int] = (62, 62)
    max_per_class: int = 0


def judge_views(
    labels: Tensor,  # uint8 [B, H, W], class index
    depth: Tensor,  # float32 [B, H, W], metres along the optical axis, 0 where nothing is hit
    cameras: CameraList,
    options: FilterOptions,
) -> list[dict[str, Any]]:
    """``info`` of each camera with the decision added: accepted, reason, coverage and the numbers behind it.

    Shares are of the pixels that the cameras' lens sees.

    The reason is the first that applies, in the order of :data:`REASONS`; an accepted view's reason is empty.
    """
    seen = seen_pixels(cameras.intrinsics, cameras.image_size, cameras.lens)
    unseen = torch.zeros(len(labels), dtype=torch.float64) if seen is None else (~seen).flatten(1).sum(1).double()
    num_pixels = labels.shape[-2] * labels.shape[-1] - unseen
    counts = class_pixels(labels)
    nearest = torch.where(depth > 0, depth, torch.inf).flatten(1).amin(1)
    hits = (depth > 0).flatten(1).sum(1) / num_pixels
    judged = []
    for view, info in enumerate(cameras.info):
        target_class = info["target_class_index"]
        coverage = float(counts[view, target_class] / num_pixels[view])
        unannotated = float((counts[view, UNANNOTATED] - unseen[view]) / num_pixels[view])
        failed = {
            "too_close": float(nearest[view]) < options.min_distance,
            "few_hits": float(hits[view]) < options.min_hits,
            "occluded": _is_occluded(labels[view], depth[view], cameras, view, options.occlusion_tolerance),
            "unannotated": unannotated > options.max_unannotated,
            "low_coverage": coverage < options.min_coverage,
        }
        reason = next((name for name in REASONS if failed.get(name)), "")
        judged.append({
            **info,
            "accepted": not reason,
            "reason": reason,
            "coverage": round(coverage, 4),
            "unannotated": round(unannotated, 4),
            "hits": round(float(hits[view]), 4),
            "nearest": round(float(nearest[view]), 3) if hits[view] > 0 else None,
        })
    return judged


def _is_occluded(labels: Tensor, depth: Tensor, cameras: CameraList, view: int, tolerance: float) -> bool:
    """Whether the surface seen at the target's pixel is in front of the target and not of its class.

    Self-occlusion does not count: the object's front may hide a target on its back.
    """
    info = cameras.info[view]
    point = torch.tensor(info["target_point"], dtype=torch.float64)
    uv, target_depth = project(
        point, cameras.intrinsics[view], cameras.camera_to_world[view], cameras.lens
    )
    height, width = depth.shape
    column, row = (int(value) for value in uv.floor())
    if not (target_depth > 0 and 0 <= row < height and 0 <= column < width):
        return True
    seen = float(depth[row, column])
    other_class = int(labels[row, column]) != info["target_class_index"]
    return other_class and 0 < seen < float(target_depth) - tolerance


def refuse_by_quality(
    judged: Sequence[dict[str, Any]], quality: Mapping[int, float], options: FilterOptions
) -> list[dict[str, Any]]:
    """One scene's judged views with the mean quality of those in ``quality`` (by index), the bad ones refused.

    Of the accepted ones, the ``at_least`` best stay.
    """
    result = [dict(info) for info in judged]
    for rank, view in enumerate(sorted(quality, key=lambda view: (not judged[view]["accepted"], -quality[view], view))):
        result[view]["quality"] = round(quality[view], 4)
        if result[view]["accepted"] and quality[view] < options.min_quality and rank >= options.at_least:
            result[view].update(accepted=False, reason="low_quality")
    return result


def limit_per_class(judged: Sequence[dict[str, Any]], max_per_class: int) -> list[dict[str, Any]]:
    """Reject accepted views beyond the ``max_per_class`` best covered of each class; 0 is no limit."""
    kept: dict[int, int] = {}
    result = [dict(info) for info in judged]
    for info in sorted(result, key=lambda info: -info["coverage"]):
        if not (info["accepted"] and max_per_class):
            continue
        kept[info["target_class_index"]] = kept.get(info["target_class_index"], 0) + 1
        if kept[info["target_class_index"]] > max_per_class:
            info.update(accepted=False, reason="over_limit")
    return result


def count_reasons(judged: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Number of accepted views and of views rejected for each reason that occurs."""
    counts = {"accepted": sum(info["accepted"] for info in judged)}
    for reason in REASONS:
        number = sum(info["reason"] == reason for info in judged)
        if number:
            counts[reason] = number
    return counts

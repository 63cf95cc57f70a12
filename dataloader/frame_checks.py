"""Which frames of a recorded scene are usable, and the reasons for the others."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError
from utils.images import is_truncated, open_image
from utils.limits import FARTHEST

logger = logging.getLogger(__name__)
_RIGID_TOLERANCE = 1e-2  # on R^T R - I: files have six digits, and fused poses drift a little
_LOST = 100  # times as far from the middle of all cameras as three quarters of them: a lost pose, not a long walk
_FEWEST = 8
_said: set[tuple[str, int]] = set()  # which scenes were reported, and how many of their frames


def pose_problem(pose: Tensor | None) -> str | None:
    """Why a camera-to-world matrix cannot be used, or None; the matrix is None where it cannot be read."""
    if pose is None or pose.shape != (4, 4):
        return "with an unreadable pose (expected 4x4 numbers)"
    if not torch.isfinite(pose).all():
        return "with a lost pose (inf or NaN)"
    if float(pose.abs().max()) > FARTHEST:
        return f"with a pose farther than {FARTHEST:g} from the origin"
    return None if is_rigid(pose) else "with a pose that is not rigid"


def lost_poses(poses: dict[str, Tensor]) -> dict[str, str]:
    """{frame: reason} of cameras that stand far away from all others, which would make the rest of a scene tiny.

    Args:
        poses: finite camera-to-world ``[4, 4]`` by frame; of fewer than 8 none is judged.
    """
    if len(poses) < _FEWEST:
        return {}
    centers = torch.stack([pose[:3, 3].double() for pose in poses.values()])
    distances = (centers - centers.median(dim=0).values).norm(dim=1)
    usual = float(distances.quantile(0.75))
    if usual == 0:
        return {}
    return {
        name: f"with a pose more than {_LOST} times as far from the middle of the cameras as most"
        for name, distance in zip(poses, distances.tolist(), strict=True) if distance > _LOST * usual
    }  # fmt: skip


def is_rigid(transform: Tensor) -> bool:
    """Whether a finite ``[4, 4]`` matrix is a rotation and a translation, to 1%."""
    rotation = transform[:3, :3]
    error = (rotation.T @ rotation - torch.eye(3, dtype=transform.dtype)).abs().max()
    bottom = (transform[3] - transform.new_tensor([0, 0, 0, 1])).abs().max()
    return bool(error < _RIGID_TOLERANCE and bottom < 1e-6 and torch.det(rotation) > 0)


def image_header(path: Path, whole: bool = True) -> tuple[tuple[int, int], bool] | None:
    """(height, width) of an image and whether it is transparent somewhere; None when it is absent or damaged.

    With ``whole``, a file that ends too early counts as damaged. No pixels are read.
    """
    try:
        with open_image(path) as image:
            header = (image.height, image.width), image.mode in ("RGBA", "LA", "PA")
            return None if whole and is_truncated(path) else header
    except UserError:
        return None


def report_skipped(path: Path, layout: str, skipped: dict[str, str], total: int) -> None:
    """Log how many of a scene's ``total`` frames are left out and why; ``skipped`` is {frame: reason}.

    Raises:
        UserError: no frame is left.
    """
    if len(skipped) == total:
        raise UserError(f"{path} ({layout} layout) has no usable frame: {reasons_text(skipped)}; expected images with "
                        "finite, rigid poses")
    if skipped and (str(path), len(skipped)) not in _said:
        _said.add((str(path), len(skipped)))  # tasks open a scene several times
        logger.warning("%s: %d of %d frames left out: %s", path.name, len(skipped), total, reasons_text(skipped))


def reasons_text(skipped: dict[str, str]) -> str:
    """How many frames were left out for which reason, with the first file where reasons name one."""
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    for reason in skipped.values():
        kind, _, file = reason.partition(": ")
        counts[kind] = counts.get(kind, 0) + 1
        first.setdefault(kind, f" (such as {file})" if file else "")
    return ", ".join(f"{count} {kind}{first[kind]}" for kind, count in counts.items()) or "none found"

"""Which frames of a recorded scene are usable, and the reasons for the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError
from utils.limits import FARTHEST
from utils.pictures import PictureHeader, read_header

logger = logging.getLogger(__name__)
_RIGID_TOLERANCE = 1e-2  # on R^T R - I: files have six digits, and fused poses drift a little
UNREADABLE = "cannot be read"
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
    if is_rigid(pose):
        return None
    mirrored = is_rigid(pose @ pose.new_tensor([1, 1, -1, 1]).diag())
    return "with a pose that is mirrored (left-handed axes)" if mirrored else "with a pose that is not rigid"


def without_scale(pose: Tensor) -> tuple[Tensor, float]:
    """A camera-to-world matrix with its axes divided by their common length, and that length.

    Scene graphs of renderers scale cameras. Axes say where one looks, so their length means nothing; 1 where nothing
    is divided out.
    """
    if pose.shape != (4, 4) or not torch.isfinite(pose).all() or is_rigid(pose):
        return pose, 1.0
    scale = float(pose[:3, :3].norm(dim=0).mean())
    divided = pose.clone()
    divided[:3, :3] /= max(scale, 1e-30)
    return (divided, scale) if is_rigid(divided) else (pose, 1.0)


def scale_remark(scales: Sequence[float]) -> tuple[str, ...]:
    """What a user should know of :func:`without_scale`; empty where nothing was divided out."""
    scaled = [scale for scale in scales if scale != 1]
    if not scaled:
        return ()
    return (f"{len(scaled)} poses have axes of length {scaled[0]:.6g} instead of 1, which is divided out; the camera "
            "centres stay as they are",)


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


def image_header(path: Path, kind: str = "colour") -> PictureHeader | str:
    """The header of an image, or why the frame is left out; no pixels are read."""
    if not path.exists():
        return f"without {kind} image: {path}"
    try:
        return read_header(path, kind=kind)
    except UserError as error:
        return f"with a {kind} image that {UNREADABLE}: {error}"


def shared_turn(headers: Collection[PictureHeader], fits: Callable[[PictureHeader, bool], bool]) -> bool:
    """Whether images are to be turned as their EXIF tags say: all of a scene or none, since one program saw them.

    Viewers and most programs turn them, some take the pixels as stored. Where height and width are exchanged, the
    cameras' sizes tell; where nothing does, images are turned.

    Args:
        headers: of the scene's images.
        fits: whether an image's camera is one for its size, turned or not.
    """
    exchanged = [header for header in headers if header.turn > 4 and header.size != header.stored_size]
    turned, stored = (sum(fits(header, turn) for header in exchanged) for turn in (True, False))
    return turned >= stored


def turn_remark(headers: Collection[PictureHeader], turned: bool) -> tuple[str, ...]:
    """What a user should know of images with an EXIF tag that turns them; empty without any."""
    tagged = [header for header in headers if header.turn != 1]
    if not tagged:
        return ()
    if not turned:
        return (f"{len(tagged)} images have an EXIF tag that turns them; they are read as stored, because the cameras "
                "have that size",)
    proven = any(header.size != header.stored_size for header in tagged)
    doubt = "" if proven else ": nothing but the poses can say whether the program that made them did so too"
    return (f"{len(tagged)} images are turned as their EXIF tag says{doubt}",)


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

"""The photographs and depth maps that a field is fitted to, in memory as 8-bit values."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dataloader.frame_checks import reasons_text
from model.fitting.options import FitData
from utils.cameras import scale_intrinsics
from utils.errors import UserError
from utils.lenses import Lens
from utils.progress import Progress
from utils.threads import ordered_map

if TYPE_CHECKING:
    from dataloader import Scene

logger = logging.getLogger(__name__)

_FEWEST_FRAMES = 3
_SHARPNESS_NEIGHBOURS = 5
_LONGEST_DEPTH_SIDE = 320


@dataclass
class Frames:
    """Photographs of one scene, all of one size.

    Attributes:
        indices: each frame's index in the scene.
        images: uint8 ``[N, H, W, 3]``.
        depths: int16 ``[N, h, w]`` millimetres along the optical axis, 0 where unknown.
        camera_to_world: float64 ``[N, 4, 4]``.
        intrinsics: float64 ``[3, 3]``, in pixels of ``images``.
        alphas: uint8 ``[N, H, W]``, opacity; None where all pixels are opaque. ``images`` show the background
            through it.
        valid: bool ``[N, H, W]``, whether a pixel is of the scene; None where all are. Depth is unknown elsewhere.
        lens: of all photographs; None for a pinhole. Depth is the lens's (:mod:`utils.lenses`).
    """

    indices: list[int]
    images: Tensor
    depths: Tensor
    camera_to_world: Tensor
    intrinsics: Tensor
    alphas: Tensor | None = None
    valid: Tensor | None = None
    lens: Lens | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.images.shape[1:3])

    @property
    def have_depth(self) -> bool:
        """Whether depth was measured anywhere."""
        return bool((self.depths > 0).any())

    @property
    def depth_intrinsics(self) -> Tensor:
        """Intrinsics ``[3, 3]`` in pixels of ``depths``."""
        return scale_intrinsics(self.intrinsics, self.size, tuple(self.depths.shape[1:]))


def fitted_size(image_size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """``(height, width)`` reduced, keeping the aspect ratio, until no side is longer than ``max_side``."""
    factor = min(1.0, max_side / max(image_size))
    return tuple(max(1, round(side * factor)) for side in image_size)


def split_frames(
    frames: Sequence[str], options: FitData, splits: Sequence[str] | None = None
) -> tuple[list[int], list[int]]:
    """Indices of the frames to train on and of those held out (:func:`dataloader.hold_out.choose_held_out`).

    Args:
        frames: names in numeric order.
        splits: "train", "val" or "test" of each frame, where the dataset has splits of its own; unless none is held
            out, only "train" frames are trained on.
    """
    from dataloader.hold_out import choose_held_out

    kept_out = set(choose_held_out(frames, options.holdout_every, splits))
    held_out = [index for index, frame in enumerate(frames) if frame in kept_out]
    training = [index for index, frame in enumerate(frames) if frame not in kept_out]
    if options.holdout_every and splits and "train" in splits:
        training = [index for index in training if splits[index] == "train"]
    if len(training) > options.max_frames:
        positions = torch.linspace(0, len(training) - 1, options.max_frames).round().long().tolist()
        training = [training[position] for position in positions]
    return training, held_out


def load_training_frames(scene: Scene, options: FitData, device: torch.device) -> Frames:
    """Read the training frames; memory is their bytes at the fitted size.

    Raises:
        UserError: fewer than three frames can be used.
    """
    training, _ = split_frames(scene.frames, options, scene.splits)
    if options.blurry_share > 0:
        training = _without_blurry(scene, training, options.blurry_share)
    frames = _read_frames(scene, training, fitted_size(scene.image_size, options.max_image_side), device)
    check_enough(scene, len(frames), unread=len(training) - len(frames))
    return frames


def check_enough(scene: Scene, training_frames: int, unread: int = 0) -> None:
    """Raise :class:`UserError` when so few training frames are too few for a fit.

    Args:
        scene: whose frames they are.
        training_frames: how many can be used.
        unread: how many more could not be read.
    """
    if training_frames >= _FEWEST_FRAMES:
        return
    reasons = [f"of its frames are left out: {reasons_text(scene.skipped)}"] if scene.skipped else []
    reasons += [f"{unread} frames could not be read, as warned above"] if unread else []
    raise UserError(
        f"{scene.path} has {training_frames} usable training frames, a fit needs at least {_FEWEST_FRAMES}"
        f"{''.join(f'; {reason}' for reason in reasons)}"
    )


def _read_frames(scene: Scene, indices: list[int], size: tuple[int, int], device: torch.device) -> Frames:
    depth_size = fitted_size(size, _LONGEST_DEPTH_SIDE)
    images = torch.empty(len(indices), *size, 3, dtype=torch.uint8, device=device)
    map_shape = (len(indices), *depth_size)
    depths = torch.zeros(map_shape if scene.depth_size else (), dtype=torch.int16, device=device).expand(map_shape)
    alphas = torch.zeros(len(indices), *size, dtype=torch.uint8, device=device) if scene.transparent else None
    masked = scene.masked
    valid = torch.ones(len(indices), *size, dtype=torch.bool, device=device) if masked else None
    kept: list[int] = []

    def read(index: int) -> tuple[int, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        try:
            color, depth = scene.read_color(index, size), scene.read_depth(index, depth_size)
            mask = scene.read_mask(index, depth_size) if depth is not None else None
            depth = depth if mask is None else torch.where(mask, depth, 0.0)
            return index, color, depth, scene.read_alpha(index, size), scene.read_mask(index, size)
        except UserError as error:
            logger.warning("frame left out: %s", error)
            return index, None, None, None, None

    with Progress(f"reading {scene.name}", len(indices), "frame") as meter:
        for index, color, depth, alpha, mask in ordered_map(read, indices):
            meter.update()
            if color is None:
                continue
            images[len(kept)] = color.to(device).movedim(0, -1)
            if depth is not None:
                millimetres = (depth.to(device) * 1000).round()
                depths[len(kept)] = torch.where(millimetres < 2**15, millimetres, 0).to(torch.int16)
            if alpha is not None:
                alphas[len(kept)] = alpha[0].to(device)
            if mask is not None:
                valid[len(kept)] = mask.to(device)
            kept.append(index)
    if alphas is not None and bool((alphas[: len(kept)] == 255).all()):
        alphas = None  # opaque photographs that are stored with an alpha channel
    if alphas is not None and scene.lens is not None:
        raise UserError(f"{scene.path} has images with transparency, which are carved for pinhole cameras alone; set "
                        "LensOptions.keep = 'none' to undistort them")
    if valid is not None and bool(valid[: len(kept)].all()):
        valid = None
    if valid is not None and kept and not bool(valid[: len(kept)].any()):
        raise UserError(f"{scene.path}: its masks leave no pixel; they must be white where pixels are of the scene")
    return Frames(
        indices=kept,
        images=images[: len(kept)],
        depths=depths[: len(kept)],
        camera_to_world=scene.camera_to_world[kept],
        intrinsics=scale_intrinsics(scene.intrinsics, scene.image_size, size),
        alphas=None if alphas is None else alphas[: len(kept)],
        valid=None if valid is None else valid[: len(kept)],
        lens=scene.lens,
    )


def sharpness(image: Tensor) -> float:
    """Variance of the Laplacian of the grey image of uint8 ``[3, H, W]``: small for a blurry photograph."""
    grey = image.float().mean(0)
    laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var())


def _without_blurry(scene: Scene, indices: list[int], share: float) -> list[int]:
    """Drop the share of frames whose sharpness is lowest relative to the median of their neighbours."""
    scores = torch.tensor([sharpness(image) for image in ordered_map(scene.read_color, indices)])
    relative = torch.empty_like(scores)
    for position in range(len(scores)):
        around = scores[max(0, position - _SHARPNESS_NEIGHBOURS) : position + _SHARPNESS_NEIGHBOURS + 1]
        relative[position] = scores[position] / around.median().clamp(min=1e-9)
    drop = set(relative.argsort()[: int(share * len(indices))].tolist())
    logger.info("%s: left out %d blurry frames of %d", scene.name, len(drop), len(indices))
    return [index for position, index in enumerate(indices) if position not in drop]

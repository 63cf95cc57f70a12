"""Augmentation of a batch of views on its device; all that it holds stays aligned to the pixel.

Every random number comes with the step, so an augmentation depends on seed, epoch and position in the epoch only. The
SH coefficients of a mirrored view are those of :func:`enet.sh_frames.sh_matrices`, its geometry that of
:func:`enet.geometry.mirror_signs`: both are chosen where the view is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from enet.options import AugmentationOptions
from enet.view_source import ViewBatch

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Draws:
    """A step's random numbers, each [B], uniform in [0, 1), by what they decide."""

    mirror: Tensor
    crop_size: Tensor
    crop_row: Tensor
    crop_column: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor

    @classmethod
    def split(cls, draws: Tensor) -> Draws:
        """From the first NUM_DRAWS of [B, D]."""
        return cls(*draws[:, :NUM_DRAWS].unbind(-1))


NUM_DRAWS = len(fields(Draws))


def mirrored(draws: Draws, options: AugmentationOptions) -> Tensor:
    """Bool [B]: which views are mirrored."""
    return draws.mirror < options.mirror


def augment(batch: ViewBatch, draws: Draws, options: AugmentationOptions) -> ViewBatch:
    """Mirror, crop and jitter. SH and geometry must already be those of the mirrored world where :func:`mirrored` says
    so.
    """
    if options.mirror > 0:
        batch = _map(batch, lambda image, _: _mirror(image, mirrored(draws, options)))
    if options.smallest_crop < 1:
        grid = _crop_grid(draws, options.smallest_crop, tuple(batch.label.shape[-2:]))
        batch = _map(batch, lambda image, mode: _resample(image, grid, mode))
    return replace(batch, color=_jitter(batch.color, draws, options))


def _map(batch: ViewBatch, change) -> ViewBatch:
    """Apply ``change(image [B, C, H, W], interpolation mode)`` to everything in the batch.

    Geometry is not blended: between two surfaces there is no third, nor one where there is nothing.
    """
    return ViewBatch(
        change(batch.color, "bilinear"),
        None if batch.sh is None else change(batch.sh, "bilinear"),
        change(batch.label[:, None], "nearest")[:, 0],
        None if batch.weight is None else change(batch.weight[:, None], "bilinear")[:, 0],
        None if batch.geometry is None else change(batch.geometry, "nearest"),
    )


def _mirror(image: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], image.flip(-1), image)


def _crop_grid(draws: Draws, smallest: float, size: tuple[int, int]) -> Tensor:
    """Sampling positions [B, H, W, 2] (x, y in -1..1) of crops of both sides' share in [smallest, 1]."""
    share = smallest + (1 - smallest) * draws.crop_size
    theta = torch.zeros(len(share), 2, 3, device=share.device)
    theta[:, 0, 0] = theta[:, 1, 1] = share
    theta[:, 0, 2] = (1 - share) * (2 * draws.crop_column - 1)
    theta[:, 1, 2] = (1 - share) * (2 * draws.crop_row - 1)
    return F.affine_grid(theta, [len(share), 1, *size], align_corners=False)


def _resample(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    sampled = F.grid_sample(image.float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return sampled.to(image.dtype)


def _jitter(color: Tensor, draws: Draws, options: AugmentationOptions) -> Tensor:
    """Brightness, then contrast about the mean grey, then saturation about each pixel's grey; clipped to 0..1."""
    if options.brightness == options.contrast == options.saturation == 0:
        return color
    luma = torch.tensor(_LUMA, device=color.device)[:, None, None]
    color = color * _factor(draws.brightness, options.brightness)
    grey = (color * luma).sum(1, keepdim=True)
    color = torch.lerp(grey.mean((2, 3), keepdim=True), color, _factor(draws.contrast, options.contrast))
    grey = (color * luma).sum(1, keepdim=True)
    return torch.lerp(grey, color, _factor(draws.saturation, options.saturation)).clamp(0, 1)


def _factor(draw: Tensor, strength: float) -> Tensor:
    return (1 + strength * (2 * draw - 1))[:, None, None, None]

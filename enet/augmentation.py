"""Augmentation of a batch of views on its device; all that it holds stays aligned to the pixel.

Every random number comes with the step, so an augmentation depends on seed, epoch and position in the epoch only. The
SH coefficients of a mirrored view are those of :func:`enet.sh_frames.sh_matrices`, its geometry that of
:func:`enet.geometry.mirror_signs`: both are chosen where the view is decoded. So is depth that is made worse
(:mod:`enet.depth_faults`), of which geometry is then computed.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from enet.appearance import vary
from enet.draws import Draws
from enet.options import AugmentationOptions
from enet.view_source import ViewBatch


def mirrored(draws: Draws, options: AugmentationOptions) -> Tensor:
    """Bool [B]: which views are mirrored."""
    return draws.mirror < options.mirror


def augment(batch: ViewBatch, draws: Draws, options: AugmentationOptions) -> ViewBatch:
    """Mirror, crop and vary the colour.

    SH and geometry must already be those of the mirrored world where :func:`mirrored` says so.
    """
    if options.mirror > 0:
        batch = _map(batch, lambda image, _: _mirror(image, mirrored(draws, options)))
    if options.smallest_crop < 1:
        grid = _crop_grid(draws, options.smallest_crop, tuple(batch.label.shape[-2:]))
        batch = _map(batch, lambda image, mode: _resample(image, grid, mode))
    return replace(batch, color=vary(batch.color, draws, options))


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

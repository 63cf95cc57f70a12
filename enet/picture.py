"""What is done to the colour of every view before the network sees it, in training and evaluation alike."""

from __future__ import annotations

import torch
from torch import Tensor

_REACH = 4.0  # standard deviations after which a Gaussian is taken as 0


def blurred(
    color: Tensor,  # [B, C, H, W]
    deviation: float,
) -> Tensor:
    """Convolved with a Gaussian of that standard deviation in pixels; beyond the border lies the border's colour."""
    if deviation == 0:
        return color
    rows, columns = (_blur_matrix(length, deviation, color) for length in color.shape[-2:])
    with torch.autocast(color.device.type, enabled=False):  # which would round colours
        return rows @ color @ columns.mT


def _blur_matrix(length: int, deviation: float, like: Tensor) -> Tensor:
    """[length, length]: what each pixel of a line gives to each other."""
    reach = int(_REACH * deviation + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=like.device)
    weights = torch.exp(-0.5 * (offsets.to(like.dtype) / deviation).square())
    weights = weights / weights.sum()
    pixels = torch.arange(length, device=like.device)
    sources = (pixels[:, None] + offsets).clamp(0, length - 1)
    # Sums in a fixed order, unlike a scatter's, so that a training can be repeated to the bit.
    return ((sources[:, None] == pixels[:, None]) * weights).sum(-1)

"""Gaussian blur of the colour: of one width, for all that a network sees, or of each view's own, as augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

_REACH = 4.0  # standard deviations after which a Gaussian is taken as 0
_SHARP = 1e-3  # a standard deviation, in pixels, that changes nothing


def blurred(
    color: Tensor,  # [B, C, H, W]
    deviation: float,
) -> Tensor:
    """Convolved with a Gaussian of that standard deviation in pixels; beyond the border lies the border's colour."""
    if deviation == 0:
        return color
    return blurred_each(color, color.new_full((1,), deviation), deviation)


def blurred_each(
    color: Tensor,  # [B, C, H, W]
    deviations: Tensor,  # [B] or [1]
    largest: float,
) -> Tensor:
    """The same with a standard deviation for each view, up to ``largest``; without waiting for the device."""
    with torch.autocast(color.device.type, enabled=False):  # which would round colours
        rows, columns = (_blur_matrices(length, deviations.to(color), largest) for length in color.shape[-2:])
        return rows[:, None] @ color @ columns.mT[:, None]


def _blur_matrices(length: int, deviations: Tensor, largest: float) -> Tensor:
    """[B, length, length]: what each pixel of a line gets from each other."""
    reach = int(_REACH * largest + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=deviations.device)
    weights = torch.exp(-0.5 * (offsets / deviations[:, None].clamp(min=_SHARP)).square())
    weights = weights / weights.sum(1, keepdim=True)
    pixels = torch.arange(length, device=deviations.device)
    sources = (pixels[:, None] + offsets).clamp(0, length - 1)
    # A product, not a scatter, whose sums have no fixed order: a training can be repeated to the bit.
    takes = (sources[:, None] == pixels[:, None]).to(weights.dtype).flatten(0, 1)  # [length * length, offsets]
    return (weights @ takes.mT).unflatten(1, (length, length))

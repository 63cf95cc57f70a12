"""Structural similarity of images (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5), and a loss of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def similarity_map(image: Tensor, target: Tensor) -> Tensor:
    """The similarity of every whole window: of images ``[..., H, W]`` with values 0 to 1, ``[..., H - 10, W - 10]``.

    In double precision, because GPUs round products of float32 to ten bits, which is too little for variances.
    """
    image, target = image.double(), target.double()
    down, across = (_window_sums(size, image.device) for size in image.shape[-2:])
    stack = torch.stack((image, target, image**2, target**2, image * target))
    x, y, xx, yy, xy = down @ stack @ across.T
    luminance = (2 * x * y + _C1) / (x**2 + y**2 + _C1)
    structure = (2 * (xy - x * y) + _C2) / ((xx - x**2).clamp(min=0) + (yy - y**2).clamp(min=0) + _C2)
    return luminance * structure


def mirrored(image: Tensor) -> Tensor:
    """Images ``[N, H, W]`` with half a window of mirrored pixels around, so that every pixel has a window."""
    return pad(image, (WINDOW // 2,) * 4, mode="reflect")


def structure_gradient(rendered: Tensor, target: Tensor, side: int) -> Tensor:
    """The gradient by ``rendered`` of 1 - the mean similarity of square patches.

    Args:
        rendered: float32 ``[P * side^2, 3]``, the colours of P patches, each row by row.
        target: likewise.
    """
    with torch.enable_grad():
        colors = rendered.detach().requires_grad_()
        patches = [values.unflatten(0, (-1, side, side)).movedim(-1, 1) for values in (colors, target)]
        (gradient,) = torch.autograd.grad(1 - similarity_map(*patches).mean(), colors)
    return gradient


def _window_sums(size: int, device: torch.device) -> Tensor:
    """The matrix ``[size - 10, size]`` that weighs every window of a row of pixels."""
    offset = torch.arange(WINDOW, dtype=torch.float64, device=device) - WINDOW // 2
    window = torch.exp(-(offset**2) / (2 * _SIGMA**2))
    rows = torch.zeros(size - WINDOW + 1, size, dtype=torch.float64, device=device)
    for first in range(len(rows)):
        rows[first, first : first + WINDOW] = window / window.sum()
    return rows

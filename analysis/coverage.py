"""How many pixels each class has in each view, over a whole image or its central window."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from utils.errors import UserError
from utils.labels import label_set

_PIXELS_PER_CHUNK = 1 << 20


def central_window(size: tuple[int, int], fraction: float) -> tuple[slice, slice]:
    """Rows and columns of the window whose sides are ``fraction`` of the image's, centred to the pixel.

    Sides are rounded to the parity of the image so that the margins on both sides are equal.

    Raises:
        UserError: ``fraction`` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UserError(f"window = {fraction} is not a fraction of the image's sides; expected 0 < window <= 1")
    margins = [min(round(side * (1 - fraction) / 2), (side - 1) // 2) for side in size]
    rows, columns = (slice(margin, side - margin) for margin, side in zip(margins, size, strict=True))
    return rows, columns


def view_chunks(num_views: int, size: tuple[int, int]) -> Iterator[slice]:
    """Ranges of views that hold about a million pixels, so that memory is bounded for scenes of any length."""
    step = max(1, _PIXELS_PER_CHUNK // (size[0] * size[1]))
    return (slice(start, min(start + step, num_views)) for start in range(0, num_views, step))


def class_pixels(
    labels: Tensor,  # uint8 [N, H, W]
) -> Tensor:  # int64 [N, C]
    """Pixels of every class in every view.

    Raises:
        ValueError: a label is not a class index.
    """
    views = labels.shape[0]
    flat = labels.reshape(views, -1).long()
    if flat.numel() and int(flat.max()) >= label_set().num_classes:
        raise ValueError(f"class index {int(flat.max())} found, expected 0..{label_set().num_classes - 1}")
    offsets = torch.arange(views, device=labels.device)[:, None] * label_set().num_classes
    counts = torch.bincount((flat + offsets).flatten(), minlength=views * label_set().num_classes)
    return counts.reshape(views, label_set().num_classes)


def window_coverage(
    labels: Tensor,  # uint8 [N, H, W]
    window: float,
) -> Tensor:  # float32 [N, C]
    """Share of the central window's pixels that each class has; rows sum to 1."""
    rows, columns = central_window(labels.shape[-2:], window)
    counts = class_pixels(labels[:, rows, columns])
    return counts.float() / counts.sum(dim=1, keepdim=True)

"""Class frequencies and normalisation statistics of the training views, computed once over all their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from enet.geometry import is_measured
from enet.view_source import ViewSource
from utils.labels import NUM_CLASSES


@dataclass
class TrainingStatistics:
    """All on the CPU.

    Attributes:
        class_pixels: int64 [21], pixels of each class.
        view_pixels: int64 [21], pixels of all views in which the class occurs.
        color_mean, color_std: float32 [3].
        sh_mean, sh_std: float32 [27], or None without SH.
        geometry_mean, geometry_std: float32 [G], or None without geometry; of depth and height over the pixels that
            show a surface, and 0 and 1 for normals and opacity, which are used as they are.
    """

    class_pixels: Tensor
    view_pixels: Tensor
    color_mean: Tensor
    color_std: Tensor
    sh_mean: Tensor | None = None
    sh_std: Tensor | None = None
    geometry_mean: Tensor | None = None
    geometry_std: Tensor | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: None if value is None else value.tolist() for name, value in vars(self).items()}


class _Moments:
    """Running mean and standard deviation per channel, in float64."""

    def __init__(self) -> None:
        self._count = self._sum = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, images: Tensor, without_zeros: bool = False) -> None:  # [B, C, H, W]
        """Take in all values, or those that are not 0."""
        channels = images.transpose(0, 1).flatten(1).double()
        counted = (channels != 0) if without_zeros else torch.ones_like(channels[:, :1]).expand_as(channels)
        self._count = self._count + counted.sum(1, dtype=torch.float64).cpu()
        self._sum = self._sum + channels.sum(1).cpu()
        self._squares = self._squares + channels.square().sum(1).cpu()

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        count = self._count.clamp(min=1)
        mean = self._sum / count
        variance = (self._squares / count - mean.square()).clamp(min=0)
        return mean.float(), variance.sqrt().float()


def compute_statistics(source: ViewSource, batch_size: int, device: torch.device) -> TrainingStatistics:
    """Statistics of the training views, in batches on ``device``."""
    class_pixels = torch.zeros(NUM_CLASSES, dtype=torch.int64)
    view_pixels = torch.zeros(NUM_CLASSES, dtype=torch.int64)
    color, sh, geometry = _Moments(), _Moments(), _Moments()
    has_sh = False
    for batch in source.batches(source.statistics_steps(batch_size), device):
        views = batch.resolve()
        counts = _counts_per_view(views.label)
        class_pixels += counts.sum(0)
        view_pixels += (counts > 0).sum(0) * views.label[0].numel()
        color.add(views.color)
        if views.sh is not None:
            sh.add(views.sh)
            has_sh = True
        if views.geometry is not None:
            geometry.add(views.geometry, without_zeros=True)
    return TrainingStatistics(
        class_pixels, view_pixels, *color.mean_and_std(), *(sh.mean_and_std() if has_sh else (None, None)),
        *_of_geometry(source.geometry, geometry),
    )  # fmt: skip


def _of_geometry(kinds: Sequence[str], moments: _Moments) -> tuple[Tensor | None, Tensor | None]:
    if not kinds:
        return None, None
    measured, (mean, std) = is_measured(kinds), moments.mean_and_std()
    return torch.where(measured, mean, 0), torch.where(measured, std, 1)


def _counts_per_view(label: Tensor) -> Tensor:
    """Pixels of each class in each view, int64 [B, 21] on the CPU, of class indices [B, H, W]."""
    views = torch.arange(len(label), device=label.device)[:, None]
    pairs = views * NUM_CLASSES + label.flatten(1).long()
    return torch.bincount(pairs.flatten(), minlength=len(label) * NUM_CLASSES).reshape(-1, NUM_CLASSES).cpu()

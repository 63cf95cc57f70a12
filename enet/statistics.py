"""Class frequencies and normalisation statistics of the training views, computed once over all their pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from enet.geometry import is_measured
from enet.view_source import ViewSource
from utils.labels import label_set


@dataclass
class TrainingStatistics:
    """All on the CPU.

    Attributes:
        class_pixels: float64 [C], pixels of each class, each counted as often as its view is drawn, relative to the
            mean of all views, and by its weight in the loss.
        view_pixels: float64 [C], pixels of all views in which the class occurs, counted in the same way.
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


def compute_statistics(
    source: ViewSource,
    batch_size: int,
    device: torch.device,
    draws: Tensor | None = None,  # float64 [N]
    pixel_weights: Callable[[Tensor], Tensor] | None = None,
) -> TrainingStatistics:
    """Statistics of the training views, in batches on ``device``.

    Args:
        source: of the views.
        batch_size: views at a time.
        device: where they are decoded.
        draws: how often each view is drawn, see :meth:`ViewSource.expected_draws`; None: all alike.
        pixel_weights: weights of pixels in the loss, float32 [B, H, W], from their quality; None: all alike.
    """
    class_pixels = torch.zeros(label_set().num_classes, dtype=torch.float64)
    view_pixels = torch.zeros(label_set().num_classes, dtype=torch.float64)
    color, sh, geometry = _Moments(), _Moments(), _Moments()
    has_sh = False
    steps = source.statistics_steps(batch_size)
    for step, batch in zip(steps, source.batches(steps, device), strict=True):
        views = batch.resolve()
        weighted = pixel_weights is not None and views.weight is not None
        counts = _counts_per_view(views.label, pixel_weights(views.weight) if weighted else None)
        drawn = torch.ones(len(counts), dtype=torch.float64) if draws is None else draws[step.views.cpu()]
        class_pixels += drawn @ counts
        view_pixels += (drawn * counts.sum(1)) @ (counts > 0).double()
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


def _counts_per_view(label: Tensor, weight: Tensor | None) -> Tensor:
    """Pixels of each class in each view, float64 [B, C] on the CPU, of class indices [B, H, W] by weight."""
    if weight is not None:  # sums of floats are the same each time on the CPU alone
        label, weight = label.cpu(), weight.cpu().double().flatten()
    views = torch.arange(len(label), device=label.device)[:, None]
    pairs = views * label_set().num_classes + label.flatten(1).long()
    counts = torch.bincount(pairs.flatten(), weight, minlength=len(label) * label_set().num_classes)
    return counts.reshape(-1, label_set().num_classes).cpu().double()

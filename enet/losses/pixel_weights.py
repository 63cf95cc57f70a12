"""What a pixel counts in the cross-entropy, by its render quality."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from enet.options import LossOptions


def pixel_weights(
    quality: Tensor,  # float32 [B, H, W], 0..1
    min_quality: Tensor,  # scalar
    weigh: bool,
) -> Tensor:  # float32 [B, H, W]
    """0 below ``min_quality``; else the quality itself where pixels are weighed by it, or 1."""
    kept = quality >= min_quality
    return torch.where(kept, quality, 0.0) if weigh else kept.to(quality.dtype)


@dataclass(frozen=True)
class ExpectedPixelWeights:
    """The mean of :func:`pixel_weights` over the epochs of a training, for class weights.

    Attributes:
        thresholds: float32 [E], the least quality of each epoch, ascending.
        weigh: whether pixels are weighed by their quality.
    """

    thresholds: Tensor
    weigh: bool

    @staticmethod
    def of(loss: LossOptions, epochs: int) -> ExpectedPixelWeights:
        """Those of a training with a loss."""
        thresholds = torch.tensor([loss.min_quality_at(epoch) for epoch in range(epochs)])
        return ExpectedPixelWeights(thresholds.sort().values, loss.quality)

    def __call__(self, quality: Tensor) -> Tensor:
        """Weights float32 [B, H, W] of pixels of ``quality`` [B, H, W]."""
        passed = torch.bucketize(quality, self.thresholds.to(quality.device), right=True) / len(self.thresholds)
        return passed * quality if self.weigh else passed

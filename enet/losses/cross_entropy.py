"""Cross-entropy with class weights and, optionally, a weight for every pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def weighted_cross_entropy(
    logits: Tensor,  # [B, C, H, W]
    label: Tensor,  # [B, H, W] int64
    class_weights: Tensor,  # [C]; 0 leaves a class's pixels out
    pixel_weights: Tensor | None = None,  # [B, H, W]
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the pixels' cross-entropies, and the sum of the weights: their ratio is the loss.

    They come apart because a loss over several devices divides by the weights of all of them.
    """
    losses = F.cross_entropy(logits, label, weight=class_weights, reduction="none")
    weights = class_weights[label]
    if pixel_weights is not None:
        losses, weights = losses * pixel_weights, weights * pixel_weights
    return losses.sum(), weights.sum()

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
    pixels = logits.permute(0, 2, 3, 1).flatten(0, 2)  # free, and fastest, where logits are channels-last
    losses = F.cross_entropy(pixels, label.flatten(), weight=class_weights, reduction="none")
    weights = class_weights[label.flatten()]
    if pixel_weights is not None:
        losses, weights = losses * pixel_weights.flatten(), weights * pixel_weights.flatten()
    return losses.sum(), weights.sum()

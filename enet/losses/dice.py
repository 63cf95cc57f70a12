"""Soft Dice loss, averaged over the classes that occur in the batch (Milletari et al., 2016)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.labels import UNANNOTATED


def dice_loss(
    logits: Tensor,  # [B, C, H, W]
    label: Tensor,  # [B, H, W] int64
) -> Tensor:
    """1 - 2 |P T| / (|P| + |T|) over annotated pixels; 0 when the batch has none. Linear |.|, not squared."""
    annotated = (label != UNANNOTATED)[:, None]
    probabilities = logits.softmax(dim=1) * annotated
    truth = F.one_hot(label, logits.shape[1]).movedim(-1, 1).to(logits.dtype) * annotated
    pixels = (0, 2, 3)
    total = truth.sum(pixels)
    dice = 2 * (probabilities * truth).sum(pixels) / (probabilities.sum(pixels) + total).clamp(min=1e-6)
    occurs = (total > 0).to(logits.dtype)
    return torch.sum((1 - dice) * occurs) / occurs.sum().clamp(min=1)

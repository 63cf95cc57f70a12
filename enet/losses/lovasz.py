"""Lovász-softmax loss, a convex surrogate of 1 - IoU (Berman et al., CVPR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.labels import UNANNOTATED


def lovasz_softmax_loss(
    logits: Tensor,  # [B, C, H, W]
    label: Tensor,  # [B, H, W] int64
) -> Tensor:
    """Mean over the classes that occur in the batch, over annotated pixels; 0 when the batch has none.

    Unannotated pixels stay in the sort with error 0 and no label: they come last and add nothing, and no shape
    depends on the data.
    """
    probabilities = logits.softmax(dim=1)
    annotated = label.flatten() != UNANNOTATED
    total = torch.zeros((), device=logits.device, dtype=logits.dtype)
    classes = torch.zeros((), device=logits.device, dtype=logits.dtype)
    for index in range(logits.shape[1]):
        if index == UNANNOTATED:
            continue
        truth = (label.flatten() == index).to(logits.dtype)
        errors = (truth - probabilities[:, index].flatten()).abs() * annotated
        occurs = truth.amax()
        total = total + occurs * _lovasz_extension(errors, truth)
        classes = classes + occurs
    return total / classes.clamp(min=1)


def _lovasz_extension(
    errors: Tensor,  # [N]
    truth: Tensor,  # [N] 0 or 1
) -> Tensor:
    """The Lovász extension of the Jaccard loss at ``errors``: errors, sorted, times the loss's increments."""
    errors, order = errors.sort(descending=True)
    truth = truth[order]
    positives = truth.sum()
    intersection = positives - truth.cumsum(0)
    union = positives + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union
    increments = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return errors @ increments

"""Class weights that balance rare classes, from the pixel counts of the whole training split."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.labels import UNANNOTATED


def class_weights(
    scheme: str,
    class_pixels: Tensor,  # [C] pixels of each class
    view_pixels: Tensor,  # [C] pixels of all views in which the class occurs
) -> Tensor:
    """Weights float32 [C]; 0 for unannotated and for classes that never occur.

    ``"enet"``: 1 / ln(1.02 + p) with p the class's share of all pixels (Paszke et al., 2016).
    ``"median_frequency"``: median(f) / f with f the class's share of the pixels of the views that show it (Eigen and
    Fergus, 2015). ``"none"``: 1.
    """
    occurs = class_pixels > 0
    occurs[UNANNOTATED] = False
    pixels = class_pixels.double()
    if scheme == "enet":
        weights = 1.0 / torch.log(1.02 + pixels / pixels.sum())
    elif scheme == "median_frequency":
        frequency = pixels / view_pixels.clamp(min=1)
        known = frequency[occurs]
        weights = (known.median() if known.numel() else 1.0) / frequency
    elif scheme == "none":
        weights = torch.ones_like(pixels)
    else:
        raise ValueError(f"class weights {scheme!r} are unknown; use 'enet', 'median_frequency' or 'none'")
    return torch.where(occurs, weights, torch.zeros_like(weights)).float()

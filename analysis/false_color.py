"""SH images and depth as pictures."""

from __future__ import annotations

import matplotlib
import numpy as np
import torch
from torch import Tensor

_ROBUST_QUANTILE = 0.99
_VIRIDIS = torch.from_numpy(matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3].copy())


def sh_false_color(
    sh: Tensor,  # float32 [27, H, W]
) -> Tensor:  # uint8 [3, H, W]
    """View-dependent appearance: the degree-1 coefficients, averaged over colours, along y, z and x.

    Grey is no change; the scale is the picture's own 99th percentile.
    """
    gradient = sh.reshape(3, 9, *sh.shape[-2:])[:, 1:4].mean(0)
    limit = torch.quantile(gradient.abs().flatten()[:: max(1, gradient.numel() // 100_000)], _ROBUST_QUANTILE)
    return ((0.5 + 0.5 * gradient / limit.clamp(min=1e-6)).clamp(0, 1) * 255).round().to(torch.uint8)


def depth_color(
    depth: Tensor,  # float32 [H, W], metres, 0 = nothing there
    limits: tuple[float, float] | None = None,  # metres
) -> Tensor:  # uint8 [3, H, W]
    """Near is bright, far is dark, nothing is black; without limits the picture's own range without 2% outliers."""
    known = depth > 0
    if limits is None:
        sample = depth[known][:: max(1, int(known.sum()) // 100_000)] if known.any() else depth.new_zeros(1)
        limits = torch.quantile(sample, sample.new_tensor([0.02, 0.98])).tolist()
    near, far = limits
    closeness = 1 - (depth - near) / max(far - near, 1e-6)
    index = (closeness.clamp(0, 1) * 255).round().long()
    return (_VIRIDIS.to(depth.device)[index] * known[..., None]).permute(2, 0, 1)

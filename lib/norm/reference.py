"""What the kernels compute, in PyTorch's own operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def normalise_reference(
    x: Tensor,  # [B, C, H, W]
    weight: Tensor,  # [C]
    bias: Tensor,  # [C]
    inner: Tensor | float,
    residual: Tensor | None = None,  # [B, C' <= C, H, W]
    keep: Tensor | None = None,  # [B, C]
    outer: Tensor | float = 1.0,
    epsilon: float = 1e-5,
) -> Tensor:
    """``outer(residual + keep * inner(batch_norm(x)))``; without a residual ``inner(batch_norm(x))``.

    An activation is given by its slope below 0: 0 is ReLU, 1 the identity, a tensor PReLU's. Channels that the
    residual does not have are 0 there.
    """
    x = _activate(F.batch_norm(x, None, None, weight, bias, training=True, eps=epsilon), inner)
    if residual is None:
        return x
    if keep is not None:
        x = x * keep[:, :, None, None]
    residual = F.pad(residual, (0, 0, 0, 0, 0, x.shape[1] - residual.shape[1]))
    return _activate(residual + x, outer)


def _activate(x: Tensor, slope: Tensor | float) -> Tensor:
    return torch.where(x > 0, x, slope * x)

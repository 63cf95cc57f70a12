"""Batch normalisation with what follows it: a typed function around ``torch.ops.norm``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.library import load_library

_MOST_CHANNELS = 1024
Slope = Tensor | float


def can_fuse(x: Tensor, residual: Tensor | None = None) -> bool:
    """Whether :func:`normalise` takes these images [B, C, H, W]; PyTorch's own layers do what it does not."""
    if not x.is_cuda or x.dtype not in (torch.float32, torch.bfloat16) or torch.compiler.is_compiling():
        return False
    if residual is not None and (residual.shape[1] % 4 or residual.shape[1] > x.shape[1]):
        return False
    return x.shape[1] % 4 == 0 and x.shape[1] <= _MOST_CHANNELS and 0 < x[:, 0].numel() < 2**31 and _has_kernels()


def normalise(
    x: Tensor,  # [B, C, H, W] float32 or bfloat16, on a CUDA device
    norm: nn.BatchNorm2d,
    inner: Slope,
    residual: Tensor | None = None,  # [B, C' <= C, H, W]
    keep: Tensor | None = None,  # [B, C] float32
    outer: Slope = 1.0,
) -> Tensor:
    """``outer(residual + keep * inner(norm(x)))``; without a residual ``inner(norm(x))``. Norms as in training.

    Activations are given by their slope below 0: 0 is ReLU, 1 the identity, a tensor [1] PReLU's. ``keep`` scales
    channels of single images, as dropout does. Channels that the residual does not have are 0 there. Running statistics
    are updated. Arithmetic is in float32; equal inputs give equal bits.

    Raises:
        ValueError: these images are not for this function, see :func:`can_fuse`.
    """
    if not can_fuse(x, residual):
        raise ValueError(f"images {x.dtype} {tuple(x.shape)} on {x.device} are not for these kernels; see can_fuse")
    residual = None if residual is None else residual.to(x.dtype)
    return _Normalise.apply(x, residual, keep, norm.weight, norm.bias, *_slope(inner), *_slope(outer), norm)


def _slope(slope: Slope) -> tuple[Tensor | None, float]:
    return (slope, 0.0) if isinstance(slope, Tensor) else (None, slope)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, keep, weight, bias, inner, inner_slope, outer, outer_slope, norm):
        x = x.contiguous(memory_format=torch.channels_last)
        residual = None if residual is None else residual.contiguous(memory_format=torch.channels_last)
        outer = None if residual is None else outer
        out, mean, inverse_std = torch.ops.norm.forward(
            x, residual, keep, weight, bias, inner, inner_slope, outer, outer_slope,
            norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum, norm.eps,
        )  # fmt: skip
        ctx.save_for_backward(x, residual, keep, weight, bias, inner, outer, mean, inverse_std)
        ctx.slopes = inner_slope, outer_slope
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, residual, keep, weight, bias, inner, outer, mean, inverse_std = ctx.saved_tensors
        inner_slope, outer_slope = ctx.slopes
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        to_x, to_residual, to_weight, to_bias, to_inner, to_outer = torch.ops.norm.backward(
            gradient, x, residual, keep, weight, bias, inner, inner_slope, outer, outer_slope, mean, inverse_std
        )
        return (
            to_x, None if residual is None else to_residual, None, to_weight, to_bias,
            None if inner is None else to_inner, None, None if outer is None else to_outer, None, None,
        )  # fmt: skip


@cache
def _has_kernels() -> bool:
    """Whether the extension was built with CUDA."""
    load_library(Path(__file__).parent)
    return torch._C._dispatch_has_kernel_for_dispatch_key("norm::forward", "CUDA")

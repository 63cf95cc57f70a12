"""Batch normalisation over the batches of all processes, on any device.

PyTorch's own works on GPUs only; with it, training on several CPU processes would differ from training on one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient, since every process's loss depends on every term."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` whose training statistics are those of the joint batch."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        if not (self.training and torch.distributed.is_initialized()):
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        pixels = (0, 2, 3)
        count = values.new_full((1,), values.numel() // values.shape[1])
        sums = torch.cat([values.sum(pixels), values.square().sum(pixels), count])
        total, squares, count = _SumOverProcesses.apply(sums).split([x.shape[1], x.shape[1], 1])
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self._update_running(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def synchronize_norms(module: nn.Module) -> None:
    """Replace every batch normalisation inside ``module`` by a synchronized one with its parameters and buffers."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            synchronized = SynchronizedBatchNorm2d(child.num_features, child.eps, child.momentum)
            synchronized.load_state_dict(child.state_dict())
            setattr(module, name, synchronized)
        else:
            synchronize_norms(child)

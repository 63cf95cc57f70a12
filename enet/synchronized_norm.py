"""Batch normalisation over the batches of all processes, on any device.

PyTorch's own works on GPUs only; with it, training on several CPU processes would differ from training on one.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` whose training statistics are those of the joint batch."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        if not (self.training and torch.distributed.is_initialized()):
            return super().forward(x)
        values = x.float()
        pixels = (0, 2, 3)
        count = values.new_full((1,), values.numel() // values.shape[1])
        sums = torch.cat([values.sum(pixels), values.square().sum(pixels), count])
        total, squares, count = all_reduce(sums).split([x.shape[1], x.shape[1], 1])
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
    """Turn every batch normalisation inside ``module`` into a synchronized one, keeping its parameters and buffers."""
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SynchronizedBatchNorm2d

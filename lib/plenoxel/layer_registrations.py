"""Fake functions and autograd of the ops on sphere layers."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.register_fake("plenoxel::shade_layers")
def _(texture, origins, directions, seen, step_size, brightness, density_unit):
    torch._check(texture.shape[3] == 4, lambda: "texture must be [R, 2 R, L, 4]")
    torch._check(origins.shape == directions.shape, lambda: "origins and directions must both be [N, 3]")
    return torch.empty_like(origins)


@torch.library.register_fake("plenoxel::shade_layers_gradients")
def _(texture, origins, directions, grad_rgb, grad_texture, touched, step_size, brightness, density_unit):
    return None


def _save_for_backward(ctx, inputs, output) -> None:
    *tensors, step_size, brightness, density_unit = inputs  # the last tensor, which rays are seen, may be None
    ctx.save_for_backward(*tensors)
    ctx.options = (step_size, brightness, density_unit)


def _shade_layers_backward(ctx, gradient: Tensor):
    texture, origins, directions, seen = ctx.saved_tensors
    gradient = gradient if seen is None else torch.where(seen[:, None], gradient, 0)
    by_texture = torch.zeros_like(texture)
    torch.ops.plenoxel.shade_layers_gradients(
        texture, origins, directions, gradient.contiguous(), by_texture, None, *ctx.options
    )
    return by_texture, *([None] * 6)


torch.library.register_autograd("plenoxel::shade_layers", _shade_layers_backward, setup_context=_save_for_backward)

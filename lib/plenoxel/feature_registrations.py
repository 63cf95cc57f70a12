"""Fake functions and autograd of the ops on features: rendering and spreading are each other's gradient."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.float32, torch.float64)


@torch.library.register_fake("plenoxel::render_features")
def _(links, distance, density, features, origins, directions, *rest):
    _check(features, origins, directions)
    return origins.new_empty(origins.shape[0], features.shape[1])


@torch.library.register_fake("plenoxel::spread_features")
def _(links, distance, density, values, origins, directions, *rest):
    _check(values, origins, directions)
    return density.new_empty(density.shape[0], values.shape[1]), torch.empty_like(density)


def _check(features: Tensor, origins: Tensor, directions: Tensor) -> None:
    torch._check(features.dim() == 2 and features.dtype in FLOATS, lambda: "features or values must be float [., C]")
    torch._check(origins.shape == directions.shape, lambda: "origins and directions must both be [N, 3]")


def _save_for_backward(ctx, inputs, output) -> None:
    links, distance, density, features, *rays, center, radius, options = inputs
    if density.requires_grad:
        raise RuntimeError("features have no gradient by density; detach it")
    ctx.save_for_backward(links, distance, density, *rays)
    ctx.geometry, ctx.dtype = (center, radius, options), features.dtype
    ctx.set_materialize_grads(False)


def _render_backward(ctx, gradient: Tensor | None):
    if gradient is None:
        return (None,) * 10
    links, distance, density, *rays = ctx.saved_tensors
    sums, _ = torch.ops.plenoxel.spread_features(links, distance, density, gradient.contiguous(), *rays, *ctx.geometry)
    return None, None, None, sums.to(ctx.dtype), *([None] * 6)


def _spread_backward(ctx, by_sums: Tensor | None, by_weights: Tensor | None):
    if by_sums is None:
        return (None,) * 10
    links, distance, density, *rays = ctx.saved_tensors
    rendered = torch.ops.plenoxel.render_features(
        links, distance, density, by_sums.contiguous(), *rays, *ctx.geometry
    )
    return None, None, None, rendered.to(ctx.dtype), *([None] * 6)


torch.library.register_autograd("plenoxel::render_features", _render_backward, setup_context=_save_for_backward)
torch.library.register_autograd("plenoxel::spread_features", _spread_backward, setup_context=_save_for_backward)

if hasattr(torch.ops.plenoxel, "render_features_packed"):  # built with CUDA

    @torch.library.register_fake("plenoxel::render_features_packed")
    def _(ahead, words, cells, features, origins, directions, *rest):
        _check(features, origins, directions)
        return origins.new_empty(origins.shape[0], features.shape[1])

    @torch.library.register_fake("plenoxel::spread_features_packed")
    def _(ahead, words, cells, values, rows, origins, directions, *rest):
        _check(values, origins, directions)
        return origins.new_empty(rows, values.shape[1]), origins.new_empty(rows)

    def _save_packed_features(ctx, inputs, output) -> None:
        ahead, words, cells, features, *rays, center, radius, options, image_width = inputs
        ctx.save_for_backward(ahead, words, cells, *rays)
        ctx.geometry, ctx.dtype, ctx.rows = (center, radius, options, image_width), features.dtype, features.shape[0]
        ctx.set_materialize_grads(False)

    def _save_packed_values(ctx, inputs, output) -> None:
        ahead, words, cells, values, rows, *rest = inputs
        _save_packed_features(ctx, (ahead, words, cells, values, *rest), output)
        ctx.rows = rows

    def _render_packed_backward(ctx, gradient: Tensor | None):
        if gradient is None:
            return (None,) * 11
        *cells, origins, directions, scene_index = ctx.saved_tensors
        sums, _ = torch.ops.plenoxel.spread_features_packed(
            *cells, gradient.contiguous(), ctx.rows, origins, directions, scene_index, *ctx.geometry
        )
        return None, None, None, sums.to(ctx.dtype), *([None] * 7)

    def _spread_packed_backward(ctx, by_sums: Tensor | None, by_weights: Tensor | None):
        if by_sums is None:
            return (None,) * 12
        *cells, origins, directions, scene_index = ctx.saved_tensors
        rendered = torch.ops.plenoxel.render_features_packed(
            *cells, by_sums.contiguous(), origins, directions, scene_index, *ctx.geometry
        )
        return None, None, None, rendered.to(ctx.dtype), *([None] * 8)

    torch.library.register_autograd(
        "plenoxel::render_features_packed", _render_packed_backward, setup_context=_save_packed_features
    )
    torch.library.register_autograd(
        "plenoxel::spread_features_packed", _spread_packed_backward, setup_context=_save_packed_values
    )

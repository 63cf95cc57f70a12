"""Fake functions and autograd of the ops, so that torch.compile, export and autograd know them."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.spherical_harmonics import SH_CHANNELS


def _fake_outputs(origins: Tensor, outputs: int) -> tuple[Tensor, ...]:
    rays = origins.shape[0]
    shapes = ((rays, 3), (rays, SH_CHANNELS), (rays,), (rays,))
    return tuple(origins.new_empty(shape if outputs >> bit & 1 else (0,)) for bit, shape in enumerate(shapes))


@torch.library.register_fake("plenoxel::cell_distance")
def _(links):
    return torch.empty_like(links, dtype=torch.uint8)


@torch.library.register_fake("plenoxel::render_rays")
def _(links, distance, density, sh, origins, directions, scene_index, center, radius, options, outputs,
      image_width=0):
    torch._check(sh.shape[1] == SH_CHANNELS, lambda: "sh must be [V, 27]")
    torch._check(origins.shape == directions.shape, lambda: "origins and directions must both be [N, 3]")
    return _fake_outputs(origins, outputs)


@torch.library.register_fake("plenoxel::render_rays_backward")
def _(links, distance, density, sh, *rest):
    return torch.empty_like(density), torch.empty_like(sh)


@torch.library.register_fake("plenoxel::max_weight")
def _(links, distance, density, origins, directions, scene_index, center, radius, options, weights):
    return None


@torch.library.register_fake("plenoxel::fit_gradients")
def _(links, distance, density, sh, origins, directions, scene_index, center, radius, options, target_rgb, *rest):
    return torch.empty_like(target_rgb)


@torch.library.register_fake("plenoxel::rmsprop_step")
def _(param, grad, square_avg, lr, beta, epsilon, touched):
    return None


@torch.library.register_fake("plenoxel::update_grid")
def _(links, density, sh, *rest):
    return None


@torch.library.register_fake("plenoxel::sample_grid")
def _(links, density, sh, points):
    return points.new_empty(points.shape[0]), points.new_empty(points.shape[0], SH_CHANNELS)


if hasattr(torch.ops.plenoxel, "render_packed"):  # built with CUDA

    @torch.library.register_fake("plenoxel::cell_table")
    def _(distance):
        words = distance.new_empty((distance.numel() + 31) // 32, 2, dtype=torch.int32)
        return distance.new_empty(8, *distance.shape), words

    @torch.library.register_fake("plenoxel::pack_grid")
    def _(links, words, density, sh, may_clamp, occupied, quantization):
        clamps = torch.empty(1, dtype=torch.bool)
        dtype = density.dtype if quantization is None else torch.uint8
        return links.new_empty(occupied, 16), density.new_empty(density.shape[0], 32, dtype=dtype), clamps

    @torch.library.register_fake("plenoxel::render_packed")
    def _(ahead, words, cells, rows, clamps, quantization, origins, directions, scene_index, center, radius, options,
          outputs, image_width):
        return _fake_outputs(origins, outputs)


def _save_for_backward(ctx, inputs, output) -> None:
    *tensors, center, radius, options, outputs, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.arguments = (center, radius, options)
    ctx.wanted = [bool(outputs >> bit & 1) for bit in range(4)]
    ctx.set_materialize_grads(False)


def _render_rays_backward(ctx, *gradients: Tensor | None):
    used = [gradient if wanted and gradient is not None else None
            for gradient, wanted in zip(gradients, ctx.wanted, strict=True)]
    by_density, by_sh = torch.ops.plenoxel.render_rays_backward(
        *ctx.saved_tensors, *ctx.arguments, *(None if g is None else g.contiguous() for g in used)
    )
    return None, None, by_density, by_sh, *([None] * 8)


torch.library.register_autograd("plenoxel::render_rays", _render_rays_backward, setup_context=_save_for_backward)

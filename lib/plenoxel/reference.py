"""Plenoxel rendering, fitting and resampling in plain PyTorch: slow and obvious, the yardstick of the C++ and CUDA ops.

Every function carries the name of its op in `ops.py` with a leading underscore and works in float32 and float64 on any
device. Arguments are the op's with the same defaults, but for what only speed or bookkeeping needs: there is one grid
(no `scene_index`), rays have no order (no `image_width`), and of the ops that take `touched` only `rmsprop_step`, which
reads it, has it here. A grid is `links` int32 [Rx, Ry, Rz] (-1 where empty, else a row number), `density` [V] and `sh`
[V, 27], channel-major. Follows Fridovich-Keil and Yu et al., "Plenoxels", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lib.plenoxel.reference_march import March, colors, interpolate, rays_in_grid, sh_basis
from utils.spherical_harmonics import SH_CHANNELS


class RayOutputs(NamedTuple):
    """What a ray sees; an output that was not asked for is None."""

    rgb: Tensor | None  # [N, 3]
    sh: Tensor | None  # [N, 27]
    depth: Tensor | None  # [N], world units
    alpha: Tensor | None  # [N]


def _render_rays(
    links: Tensor,
    density: Tensor,
    sh: Tensor,
    origins: Tensor,
    directions: Tensor,
    center: Sequence[float] = (0.0, 0.0, 0.0),
    radius: Sequence[float] = (1.0, 1.0, 1.0),
    step_size: float = 0.5,
    sigma_thresh: float = 1e-10,
    stop_thresh: float = 1e-7,
    near_clip: float = 0.0,
    background_brightness: float = 1.0,
    outputs: Sequence[str] = ("rgb", "sh", "depth", "alpha"),
    sh_background: bool = False,
) -> RayOutputs:
    """Volume rendering of a batch of rays; see `ops.render_rays`."""
    rays = rays_in_grid(links.shape, origins, directions, center, radius, near_clip)
    march = March(links, density, sh, rays, step_size, sigma_thresh, stop_thresh)
    basis = sh_basis(directions)
    rgb, image, depth = torch.zeros_like(origins), origins.new_zeros(len(origins), 27), torch.zeros_like(rays.delta)
    for sample in march.samples():
        rgb = rgb + sample.weight[:, None] * colors(sample.coefficients, basis)
        image = image + sample.weight[:, None] * sample.coefficients
        depth = depth + sample.weight * sample.t * rays.delta
    background = march.transmittance[:, None] * background_brightness
    if sh_background:
        image = torch.where((rays.entry <= rays.exit)[:, None], image + background, image)
    values = {"rgb": rgb + background, "sh": image, "depth": depth, "alpha": 1 - march.transmittance}
    return RayOutputs(**{name: values[name] if name in outputs else None for name in RayOutputs._fields})


def _first_surface_depth(
    links: Tensor,
    density: Tensor,
    origins: Tensor,
    directions: Tensor,
    center: Sequence[float] = (0.0, 0.0, 0.0),
    radius: Sequence[float] = (1.0, 1.0, 1.0),
    step_size: float = 0.5,
    near_clip: float = 0.0,
    sigma: float = 10.0,
) -> Tensor:
    """World distance [N] of each ray's first sample denser than `sigma`; 0 where there is none."""
    rays = rays_in_grid(links.shape, origins, directions, center, radius, near_clip)
    no_colors = density.new_zeros(len(density), SH_CHANNELS)
    march = March(links, density, no_colors, rays, step_size, sigma, stop_thresh=torch.inf)
    depth = torch.zeros_like(rays.delta)
    for sample in march.samples():
        depth = torch.where(sample.active, sample.t * rays.delta, depth)
    return depth


def _max_weight(
    links: Tensor,
    density: Tensor,
    origins: Tensor,
    directions: Tensor,
    weights: Tensor,  # [V], changed in place
    center: Sequence[float] = (0.0, 0.0, 0.0),
    radius: Sequence[float] = (1.0, 1.0, 1.0),
    step_size: float = 0.5,
    sigma_thresh: float = 1e-10,
    stop_thresh: float = 1e-7,
    near_clip: float = 0.0,
) -> None:
    """Raises `weights` to the largest rendering weight of any sample that reads a voxel."""
    rays = rays_in_grid(links.shape, origins, directions, center, radius, near_clip)
    no_colors = density.new_zeros(len(density), SH_CHANNELS)
    march = March(links, density, no_colors, rays, step_size, sigma_thresh, stop_thresh)
    for sample in march.samples():
        read = sample.active[:, None] & (sample.rows >= 0)
        weight = sample.weight[:, None].expand_as(read)[read]
        weights.scatter_reduce_(0, sample.rows[read], weight, "amax")


def _fit_gradients(
    links: Tensor,
    density: Tensor,
    sh: Tensor,
    origins: Tensor,
    directions: Tensor,
    target_rgb: Tensor,
    grad_density: Tensor,
    grad_sh: Tensor,
    *,
    center: Sequence[float] = (0.0, 0.0, 0.0),
    radius: Sequence[float] = (1.0, 1.0, 1.0),
    step_size: float = 0.5,
    sigma_thresh: float = 1e-10,
    stop_thresh: float = 1e-7,
    near_clip: float = 0.0,
    background_brightness: float = 1.0,
    beta_lambda: float = 0.0,
    sparsity_lambda: float = 0.0,
    ray_weights: Tensor | None = None,
    depth_target: Tensor | None = None,
    depth_lambda: float = 0.0,
    free_space_lambda: float = 0.0,
    free_space_margin: float = 0.0,
    background: Tensor | None = None,
    transmittance: Tensor | None = None,
) -> Tensor:
    """Adds the gradient of the loss that `ops.fit_gradients` writes out, by autograd; returns rgb [N, 3]."""
    density, sh = density.detach().requires_grad_(), sh.detach().requires_grad_()
    rays = rays_in_grid(links.shape, origins, directions, center, radius, near_clip)
    march = March(links, density, sh, rays, step_size, sigma_thresh, stop_thresh)
    basis, count = sh_basis(directions), len(origins)
    target_depth = torch.zeros_like(rays.delta) if depth_target is None else depth_target
    rgb, depth, near, sparsity = torch.zeros_like(origins), torch.zeros_like(rays.delta), 0, 0
    for sample in march.samples():
        distance = sample.t * rays.delta
        rgb = rgb + sample.weight[:, None] * colors(sample.coefficients, basis)
        depth = depth + sample.weight * distance
        near = near + (sample.weight * (distance < target_depth - free_space_margin)).sum()
        sparsity = sparsity + torch.log1p(2 * sample.sigma[sample.active] ** 2).sum()
    rgb = rgb + march.transmittance[:, None] * (background_brightness if background is None else background)
    if transmittance is not None:
        transmittance.copy_(march.transmittance.detach())
    weights = 1 if ray_weights is None else ray_weights.reshape(count, -1)
    # log T keeps its gradient where a ray was stopped, at the value it has for T = 0
    absorbed = torch.where(march.stopped, torch.ones_like(rays.delta), -torch.expm1(-march.tau))
    beta = (-march.tau + torch.log(absorbed + 1e-3)).sum()
    depth_loss = ((depth - target_depth) ** 2 * (target_depth > 0)).sum()
    loss = (weights * (rgb - target_rgb) ** 2).sum() / (3 * count) + sparsity_lambda * sparsity
    loss = loss + (beta_lambda * beta + depth_lambda * depth_loss + free_space_lambda * near) / count
    by_density, by_sh = torch.autograd.grad(loss, (density, sh))
    grad_density += by_density
    grad_sh += by_sh
    return rgb.detach()


def _tv_gradients(
    links: Tensor,
    data: Tensor,  # [V, C]
    grad: Tensor,  # [V, C], added to
    first_cell: int = 0,
    num_cells: int | None = None,
    channels: tuple[int, int] | None = None,
    scale: float = 1.0,
    ignore_edge: bool = False,
) -> None:
    """Adds scale * the gradient of the total variation of a range of cells; see `ops.tv_gradients`."""
    count = links.numel() - first_cell if num_cells is None else num_cells
    begin, end = channels or (0, data.shape[1])
    weight = torch.tensor(links.shape).to(data) / 256
    x, y, z = torch.unravel_index(torch.arange(first_cell, first_cell + count), links.shape)
    for i, j, k in zip(x.tolist(), y.tolist(), z.tolist(), strict=True):
        if i + 1 == links.shape[0] or j + 1 == links.shape[1] or k + 1 == links.shape[2]:
            continue
        own, *neighbors = (links[at].item() for at in ((i, j, k), (i + 1, j, k), (i, j + 1, k), (i, j, k + 1)))
        if ignore_edge and own == 0:
            continue
        value = data[own, begin:end] if own >= 0 else torch.zeros_like(data[0, begin:end])
        missing = value if ignore_edge else torch.zeros_like(value)
        differences = torch.stack([(data[row, begin:end] if row >= 0 else missing) - value for row in neighbors])
        gradients = scale * weight[:, None] * differences / ((differences**2).sum(0) + 1e-9).sqrt()
        for row, gradient in zip((own, *neighbors), (-gradients.sum(0), *gradients), strict=True):
            if row >= 0:
                grad[row, begin:end] += gradient


def _rmsprop_step(
    param: Tensor, grad: Tensor, square_avg: Tensor, lr: float, beta: float = 0.95, epsilon: float = 1e-8,
    touched: Tensor | None = None,
) -> None:
    """One RMSProp step in place; see `ops.rmsprop_step`."""
    rows = slice(None) if touched is None else touched
    square = grad[rows] ** 2
    mean = torch.where(square_avg[rows] == 0, square, beta * square_avg[rows] + (1 - beta) * square)
    square_avg[rows] = mean
    param[rows] -= lr * grad[rows] / (mean.sqrt() + epsilon)
    grad[rows] = 0


def _sample_grid(links: Tensor, density: Tensor, sh: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Trilinear sigma [N] and coefficients [N, 27] at `points` [N, 3] in grid coordinates, clamped to the grid."""
    return interpolate(links, density, sh, points)[:2]

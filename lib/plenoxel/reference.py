"""Plenoxel rendering, fitting and resampling in plain PyTorch: slow and obvious, the yardstick of the C++ and CUDA ops.

Every function carries the name of its op in `ops.py` with a leading underscore, takes the same arguments, and works in
float32 and float64 on any device. Naming: `t` is arc length along a ray in voxels, `delta` the world length of one
voxel along that ray, `tau` the optical depth of one step, `weight` what a sample adds to its ray (weights of a ray sum
to at most 1). A grid is `links` int32 [Rx, Ry, Rz] (-1 where empty, else a row number), `density` [V] and `sh` [V, 27],
channel-major. Follows Fridovich-Keil and Yu et al., "Plenoxels", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

BASIS_SIZE = 9
CORNERS = tuple((x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1))


class RayOutputs(NamedTuple):
    """What a ray sees; an output that was not asked for is None."""

    rgb: Tensor | None  # [N, 3]
    sh: Tensor | None  # [N, 27]
    depth: Tensor | None  # [N], world units
    alpha: Tensor | None  # [N]


class _Sample(NamedTuple):
    t: Tensor  # [N]
    sigma: Tensor  # [N]
    coefficients: Tensor  # [N, 27]
    rows: Tensor  # [N, 8] row of each corner, -1 where empty
    weight: Tensor  # [N], 0 where the ray takes no sample
    active: Tensor  # [N] bool


class _RaysInGrid(NamedTuple):
    origins: Tensor  # [N, 3] voxels
    directions: Tensor  # [N, 3] unit length in voxels
    delta: Tensor  # [N]
    entry: Tensor  # [N]
    exit: Tensor  # [N], below `entry` where the ray misses the box


def _sh_basis(directions: Tensor) -> Tensor:
    """Real spherical harmonics to degree 2 of unit `directions` [..., 3] -> [..., 9]."""
    x, y, z = directions.unbind(-1)
    terms = (
        torch.full_like(x, 0.28209479177387814),
        -0.4886025119029199 * y,
        0.4886025119029199 * z,
        -0.4886025119029199 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.31539156525252005 * (2 * z * z - x * x - y * y),
        -1.0925484305920792 * x * z,
        0.5462742152960396 * (x * x - y * y),
    )
    return torch.stack(terms, -1)


def _rays_in_grid(
    resolution: Sequence[int],
    origins: Tensor,  # [N, 3] world
    directions: Tensor,  # [N, 3] world, unit
    center: Sequence[float],
    radius: Sequence[float],
    near_clip: float,
) -> _RaysInGrid:
    """World rays in voxel units, with the parameters where they enter and leave the box [-0.5, R - 0.5]."""
    size = origins.new_tensor([float(r) for r in resolution])
    scale = size / (2 * origins.new_tensor(list(radius)))
    grid_origins = (origins - origins.new_tensor(list(center))) * scale + size / 2 - 0.5
    scaled = directions * scale
    delta = 1 / scaled.norm(dim=-1)
    grid_directions = scaled * delta[:, None]
    parallel = grid_directions == 0
    inverse = 1 / torch.where(parallel, torch.ones_like(scaled), grid_directions)
    low, high = (-0.5 - grid_origins) * inverse, (size - 0.5 - grid_origins) * inverse
    outside = (grid_origins < -0.5) | (grid_origins > size - 0.5)
    infinity = torch.full_like(low, torch.inf)
    first = torch.where(parallel, torch.where(outside, infinity, -infinity), torch.minimum(low, high))
    last = torch.where(parallel, infinity, torch.maximum(low, high))
    entry = torch.maximum(first.amax(-1), near_clip / delta)
    return _RaysInGrid(grid_origins, grid_directions, delta, entry, last.amin(-1))


def _interpolate(
    links: Tensor, density: Tensor, sh: Tensor, points: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Trilinear interpolation at `points` [N, 3] (voxels, clamped to the grid).

    Returns sigma [N], coefficients [N, 27], the corners' rows [N, 8] and weights [N, 8]; empty corners count as 0.
    """
    limit = torch.tensor(links.shape, device=points.device)
    clamped = torch.minimum(points.clamp_min(0), (limit - 1).to(points))
    cell = torch.minimum(clamped.floor().long(), limit - 2)  # [N, 3]
    fraction = clamped - cell
    sigma, coefficients = torch.zeros_like(points[:, 0]), points.new_zeros(len(points), 3 * BASIS_SIZE)
    all_rows, all_weights = [], []
    for corner in CORNERS:
        offset = torch.tensor(corner, device=points.device)
        rows = links[tuple((cell + offset).unbind(-1))].long()
        weight = torch.where(offset == 1, fraction, 1 - fraction).prod(-1)
        kept = (rows >= 0) * weight
        sigma = sigma + kept * density[rows.clamp_min(0)]
        coefficients = coefficients + kept[:, None] * sh[rows.clamp_min(0)]
        all_rows.append(rows)
        all_weights.append(weight)
    return sigma, coefficients, torch.stack(all_rows, -1), torch.stack(all_weights, -1)


class _March:
    """Walks all rays in step: iterate over `samples()`, then read the `transmittance` that is left."""

    def __init__(self, links: Tensor, density: Tensor, sh: Tensor, rays: _RaysInGrid, step_size: float,
                 sigma_thresh: float, stop_thresh: float):
        self.grid, self.rays = (links, density, sh), rays
        self.step_size, self.sigma_thresh, self.stop_thresh = step_size, sigma_thresh, stop_thresh
        self.tau = torch.zeros_like(rays.delta)  # optical depth passed so far
        self.stopped = torch.zeros_like(rays.delta, dtype=torch.bool)

    @property
    def transmittance(self) -> Tensor:
        """What passes through to the background [N]; 0 for a ray that was stopped."""
        return torch.where(self.stopped, torch.zeros_like(self.tau), torch.exp(-self.tau))

    def samples(self) -> Iterator[_Sample]:
        t, previous = self.rays.entry, torch.full_like(self.tau, -1)
        if len(self.grid[1]) == 0:
            return
        while True:
            moving = t > previous  # false where the ray comes from so far away that a step is lost in rounding
            inside = moving & (t <= self.rays.exit) & ~self.stopped
            if not inside.any():
                return
            safe_t = torch.where(inside, t, torch.zeros_like(t))
            points = self.rays.origins + safe_t[:, None] * self.rays.directions
            sigma, coefficients, rows, _ = _interpolate(*self.grid, points)
            active = inside & (sigma > self.sigma_thresh)
            tau = torch.where(active, sigma * self.step_size * self.rays.delta, torch.zeros_like(sigma))
            weight = torch.exp(-self.tau) * -torch.expm1(-tau)
            yield _Sample(safe_t, sigma, coefficients, rows, weight, active)
            self.tau = self.tau + tau
            self.stopped = self.stopped | (active & (torch.exp(-self.tau) < self.stop_thresh))
            t, previous = t + self.step_size, t


def _colors(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Colours [N, 3] of `coefficients` [N, 27] seen along directions whose SH basis is `basis` [N, 9]."""
    channels = coefficients.unflatten(-1, (3, BASIS_SIZE))
    return ((channels * basis[:, None]).sum(-1) + 0.5).clamp_min(0)


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
    rays = _rays_in_grid(links.shape, origins, directions, center, radius, near_clip)
    march = _March(links, density, sh, rays, step_size, sigma_thresh, stop_thresh)
    basis = _sh_basis(directions)
    rgb, image, depth = torch.zeros_like(origins), origins.new_zeros(len(origins), 27), torch.zeros_like(rays.delta)
    for sample in march.samples():
        rgb = rgb + sample.weight[:, None] * _colors(sample.coefficients, basis)
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
    rays = _rays_in_grid(links.shape, origins, directions, center, radius, near_clip)
    no_colors = density.new_zeros(len(density), 3 * BASIS_SIZE)
    march = _March(links, density, no_colors, rays, step_size, sigma, stop_thresh=torch.inf)
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
    rays = _rays_in_grid(links.shape, origins, directions, center, radius, near_clip)
    no_colors = density.new_zeros(len(density), 3 * BASIS_SIZE)
    march = _March(links, density, no_colors, rays, step_size, sigma_thresh, stop_thresh)
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
) -> Tensor:
    """Adds the gradient of the loss that `ops.fit_gradients` writes out, by autograd; returns rgb [N, 3]."""
    density, sh = density.detach().requires_grad_(), sh.detach().requires_grad_()
    rays = _rays_in_grid(links.shape, origins, directions, center, radius, near_clip)
    march = _March(links, density, sh, rays, step_size, sigma_thresh, stop_thresh)
    basis, count = _sh_basis(directions), len(origins)
    target_depth = torch.zeros_like(rays.delta) if depth_target is None else depth_target
    rgb, depth, near, sparsity = torch.zeros_like(origins), torch.zeros_like(rays.delta), 0, 0
    for sample in march.samples():
        distance = sample.t * rays.delta
        rgb = rgb + sample.weight[:, None] * _colors(sample.coefficients, basis)
        depth = depth + sample.weight * distance
        near = near + (sample.weight * (distance < target_depth - free_space_margin)).sum()
        sparsity = sparsity + torch.log1p(2 * sample.sigma[sample.active] ** 2).sum()
    rgb = rgb + march.transmittance[:, None] * background_brightness
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
    return _interpolate(links, density, sh, points)[:2]

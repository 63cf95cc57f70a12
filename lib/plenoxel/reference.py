"""Plenoxel rendering, fitting and resampling in plain PyTorch: slow and obvious, the yardstick of the C++ and CUDA ops.

Every function carries the name of its op in `ops.py` with a leading underscore and works in float32 and float64 on any
device. Arguments are the op's with the same defaults, but for what only speed or bookkeeping needs: there is one grid
(no `scene_index`), rays have no order (no `image_width`), and of rays' gradients nothing marks the rows that have one
(no `touched`). Follows Fridovich-Keil and Yu et al., "Plenoxels", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.plenoxel.grid import GridHandle
from lib.plenoxel.options import RenderOptions
from lib.plenoxel.outputs import OUTPUTS, RayOutputs
from lib.plenoxel.reference_march import March, colors, interpolate
from utils.spherical_harmonics import SH_CHANNELS, sh_basis


def _render_rays(
    grid: GridHandle,
    origins: Tensor,
    directions: Tensor,
    options: RenderOptions,
    outputs: Sequence[str] = OUTPUTS,
) -> RayOutputs:
    """Volume rendering of a batch of rays; see `ops.render_rays`."""
    march = March(grid, origins, directions, options)
    basis = sh_basis(directions)
    rgb, depth = torch.zeros_like(origins), torch.zeros_like(march.delta)
    image = origins.new_zeros(len(origins), SH_CHANNELS)
    for sample in march.samples():
        rgb = rgb + sample.weight[:, None] * colors(sample.coefficients, basis)
        image = image + sample.weight[:, None] * sample.coefficients
        depth = depth + sample.weight * sample.distance
    background = march.transmittance[:, None] * options.background_brightness
    if options.sh_background:
        image = torch.where(march.hits[:, None], image + background, image)
    values = {"rgb": rgb + background, "sh": image, "depth": depth, "alpha": 1 - march.transmittance}
    return RayOutputs(**{name: values[name] if name in outputs else None for name in OUTPUTS})


def _max_weight(
    grid: GridHandle,
    origins: Tensor,
    directions: Tensor,
    weights: Tensor,  # [V], changed in place
    options: RenderOptions,
) -> None:
    """Raises `weights` to the largest rendering weight of any sample that reads a voxel."""
    march = March(grid, origins, directions, options)
    for sample in march.samples():
        read = sample.active[:, None] & (sample.rows >= 0)
        weight = sample.weight[:, None].expand_as(read)[read]
        weights.scatter_reduce_(0, sample.rows[read], weight, "amax")


def _fit_gradients(
    grid: GridHandle,
    origins: Tensor,
    directions: Tensor,
    target_rgb: Tensor,
    grad_density: Tensor,
    grad_sh: Tensor,
    options: RenderOptions,
    *,
    beta_lambda: float = 0.0,
    sparsity_lambda: float = 0.0,
    ray_weights: Tensor | None = None,
    depth_target: Tensor | None = None,
    depth_lambda: float = 0.0,
    free_space_lambda: float = 0.0,
    free_space_margin: float = 0.0,
    background: Tensor | float | None = None,
    transmittance: Tensor | None = None,
) -> Tensor:
    """Adds the gradient of the loss that `ops.fit_gradients` writes out, by autograd; returns rgb [N, 3]."""
    density, sh = grid.density.detach().requires_grad_(), grid.sh.detach().requires_grad_()
    march = March(grid.with_values(density, sh), origins, directions, options)
    basis, count = sh_basis(directions), len(origins)
    target_depth = torch.zeros_like(march.delta) if depth_target is None else depth_target
    rgb, depth, near, sparsity = torch.zeros_like(origins), torch.zeros_like(march.delta), 0, 0
    for sample in march.samples():
        distance = sample.distance
        rgb = rgb + sample.weight[:, None] * colors(sample.coefficients, basis)
        depth = depth + sample.weight * distance
        near = near + (sample.weight * (distance < target_depth - free_space_margin)).sum()
        sparsity = sparsity + torch.log1p(2 * sample.sigma[sample.active] ** 2).sum()
    rgb = rgb + march.transmittance[:, None] * (options.background_brightness if background is None else background)
    if transmittance is not None:
        transmittance.copy_(march.transmittance.detach())
    weights = 1 if ray_weights is None else ray_weights.reshape(count, -1)
    # log T keeps its gradient where a ray was stopped, at the value it has for T = 0
    absorbed = torch.where(march.stopped, torch.ones_like(march.delta), -torch.expm1(-march.tau))
    beta = (-march.tau + torch.log(absorbed + 1e-3)).sum()
    depth_loss = ((depth - target_depth) ** 2 * (target_depth > 0)).sum()
    loss = (weights * (rgb - target_rgb) ** 2).sum() / (3 * count) + sparsity_lambda * sparsity
    loss = loss + (beta_lambda * beta + depth_lambda * depth_loss + free_space_lambda * near) / count
    by_density, by_sh = torch.autograd.grad(loss, (density, sh))
    grad_density += by_density
    grad_sh += by_sh
    return rgb.detach()


def _update_grid(
    grid: GridHandle,
    grad_density: Tensor,
    grad_sh: Tensor,
    square_avg_density: Tensor,
    square_avg_sh: Tensor,
    touched: Tensor,
    *,
    lr_density: float,
    lr_sh: float,
    beta: float = 0.95,
    epsilon: float = 1e-8,
    first_cell: int = 0,
    num_cells: int | None = None,
    tv_density: float = 0.0,
    tv_sh: float = 0.0,
) -> None:
    """Total variation of a range of cells and a step, in place; see `ops.update_grid`."""
    count = grid.index.total_voxels - first_cell if num_cells is None else num_cells
    cells = torch.arange(first_cell, first_cell + count)
    if tv_density:
        columns = grid.density[:, None], grad_density[:, None]
        _add_variation(grid.index.links, cells, *columns, tv_density, ignore_edge=False, touched=touched)
    if tv_sh:
        _add_variation(grid.index.links, cells, grid.sh, grad_sh, tv_sh, ignore_edge=True, touched=touched)
    _rmsprop_step(grid.density, grad_density, square_avg_density, lr_density, beta, epsilon, touched)
    _rmsprop_step(grid.sh, grad_sh, square_avg_sh, lr_sh, beta, epsilon, touched)
    touched.zero_()
    grid.values_changed()


def _add_variation(
    links: Tensor,
    cells: Tensor,  # [N]
    data: Tensor,  # [V, C]
    grad: Tensor,  # [V, C], added to
    weight: float,
    ignore_edge: bool,
    touched: Tensor,  # [V] bool, set where a voxel belongs to one of the cells
) -> None:
    """Adds weight * the gradient of the total variation of cells; `ignore_edge`: as for coefficients."""
    size = links.shape[-3:]
    scale = weight * torch.tensor(size).to(data)[:, None] / 256
    grids = links.reshape(-1, *size)
    for level, i, j, k in zip(*(axis.tolist() for axis in torch.unravel_index(cells, grids.shape)), strict=True):
        if i + 1 == size[0] or j + 1 == size[1] or k + 1 == size[2]:
            continue
        rows = [grids[level][at].item() for at in ((i, j, k), (i + 1, j, k), (i, j + 1, k), (i, j, k + 1))]
        touched[[row for row in rows if row >= 0]] = True
        if ignore_edge and rows[0] == 0:
            continue
        value = data[rows[0]] if rows[0] >= 0 else torch.zeros_like(data[0])
        missing = value if ignore_edge else torch.zeros_like(value)
        differences = torch.stack([(data[row] if row >= 0 else missing) - value for row in rows[1:]])
        gradients = scale * differences / ((differences**2).sum(0) + 1e-9).sqrt()
        for row, gradient in zip(rows, (-gradients.sum(0), *gradients), strict=True):
            if row >= 0:
                grad[row] += gradient


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


def _sample_grid(grid: GridHandle, points: Tensor) -> tuple[Tensor, Tensor]:
    """Trilinear sigma [N] and coefficients [N, 27] at `points` [N, 3] in grid coordinates, clamped to the grid."""
    return interpolate(grid, points)[:2]

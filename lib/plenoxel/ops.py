"""Plenoxel ops: thin typed wrappers around `torch.ops.plenoxel`, with their fake functions and autograd.

A grid is a `GridHandle`: an index of its occupied voxels, `density` [V] and `sh` [V, 27], channel-major (R0..R8,
G0..G8, B0..B8). Tensors are float32 or (on the CPU) float64, of one type and device. Grids may be nested, so that
voxels shrink towards the middle (`VoxelIndex`). Several grids of one resolution are rendered together through a handle
of their stack, naming each ray's grid in `scene_index` int32 [N]; a number that is not in the stack raises RuntimeError
on the CPU and ends the kernel with an error on a GPU.

Rays are `origins` and `directions` [N, 3] in world units, directions of unit length. Options are `RenderOptions`.

Inputs of a wrong shape or type raise RuntimeError. On the CPU all results are the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lib.library import load_library
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.options import RenderOptions, option_numbers
from lib.plenoxel.outputs import OUTPUTS, RayOutputs, named_outputs, output_bits
from lib.plenoxel.packed import render_packed

load_library(Path(__file__).parent)
import lib.plenoxel.registrations  # noqa: E402, F401  (after the ops exist)


def render_rays(
    grid: GridHandle,
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    options: RenderOptions,
    outputs: Sequence[str] = OUTPUTS,
    scene_index: Tensor | None = None,  # [N] int32
    image_width: int = 0,
) -> RayOutputs:
    """Renders rays; every output is differentiable with respect to the grid's `density` and `sh`.

    Args:
        outputs: which of "rgb", "sh", "depth" and "alpha" to compute; the others are None.
        image_width: says that rays are the pixels of images of this width in scan order; they are then rendered in
            tiles, which is faster and changes no bit.

    Without gradients a GPU always renders from the grid's packed copy (see `GridHandle.packed`), so that a ray's bits
    do not depend on how many others come with it.

    Returns:
        rgb [N, 3] over the background; sh [N, 27], the coefficients composited with the weights of rgb; depth [N], sum
        of weight * distance in world units (not divided by alpha); alpha [N], 1 - the transmittance left at the end.
    """
    needs_gradient = torch.is_grad_enabled() and (grid.density.requires_grad or grid.sh.requires_grad)
    if grid.device.type == "cuda" and not needs_gradient:
        return render_packed(grid.index, grid.packed, origins, directions, options, outputs, scene_index, image_width)
    values = torch.ops.plenoxel.render_rays(
        grid.index.links, grid.index.distance, grid.density, grid.sh, origins, directions, scene_index,
        list(grid.index.center), list(grid.index.radius), option_numbers(options), output_bits(outputs), image_width,
    )  # fmt: skip
    return named_outputs(values, outputs)


def max_weight(
    grid: GridHandle,
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    weights: Tensor,  # [V], changed in place
    options: RenderOptions,
    scene_index: Tensor | None = None,
) -> None:
    """Raises `weights` to the largest rendering weight of any sample that reads a voxel, for pruning."""
    torch.ops.plenoxel.max_weight(
        grid.index.links, grid.index.distance, grid.density, origins, directions, scene_index, list(grid.index.center),
        list(grid.index.radius), option_numbers(options), weights,
    )  # fmt: skip


def fit_gradients(
    grid: GridHandle,
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    target_rgb: Tensor,  # [N, 3]
    grad_density: Tensor,  # [V], added to
    grad_sh: Tensor,  # [V, 27], added to
    options: RenderOptions,
    *,
    beta_lambda: float = 0.0,
    sparsity_lambda: float = 0.0,
    ray_weights: Tensor | None = None,  # [N] or [N, 3]
    depth_target: Tensor | None = None,  # [N] world distance along the ray, <= 0 where unknown
    depth_lambda: float = 0.0,
    free_space_lambda: float = 0.0,
    free_space_margin: float = 0.0,
    background: Tensor | float | None = None,  # [N, 3] colours or one grey level, instead of background_brightness
    transmittance: Tensor | None = None,  # [N], written
    touched: Tensor | None = None,  # [V] bool, set where a row's gradient was added to
    scene_index: Tensor | None = None,
) -> Tensor:
    """Renders rays and adds the gradient of a fit's loss to `grad_density` and `grad_sh`, in one fused pass.

    With N rays, T a ray's final transmittance, D its expected depth and D* its `depth_target`, the loss is

        1/(3N) sum ray_weights (rgb - target_rgb)^2             as svox2: the mean over rays and channels
        + beta_lambda / N sum log T + log(1 - T + 1e-3)         drives T to 0 or 1
        + sparsity_lambda sum_samples log(1 + 2 sigma^2)        not divided by N, as in svox2
        + depth_lambda / N sum_known (D - D*)^2
        + free_space_lambda / N sum_known sum of weights nearer than D* - free_space_margin.

    An exposure per image, rgb -> gain * rgb + bias, is fitted by passing the target (target - bias) / gain and weights
    gain^2; the returned colours give the gain's and the bias's own gradient. Likewise a background that is fitted too:
    its colours' gradient is `transmittance`, T, times that of the returned colours.

    Returns:
        The rendered rgb [N, 3].
    """
    if ray_weights is not None and ray_weights.dim() == 1:
        ray_weights = ray_weights[:, None].expand(-1, 3)
    behind, grey = (background.contiguous(), None) if isinstance(background, Tensor) else (None, background)
    return torch.ops.plenoxel.fit_gradients(
        grid.index.links, grid.index.distance, grid.density, grid.sh, origins, directions, scene_index,
        list(grid.index.center), list(grid.index.radius), option_numbers(options, grey), target_rgb,
        None if ray_weights is None else ray_weights.contiguous(), depth_target, behind,
        [beta_lambda, sparsity_lambda, depth_lambda, free_space_lambda, free_space_margin],
        grad_density, grad_sh, touched, transmittance,
    )  # fmt: skip


def rmsprop_step(
    param: Tensor,  # [V] or [V, C], changed in place
    grad: Tensor,  # same shape, zeroed
    square_avg: Tensor,  # same shape, changed in place; starts at 0
    lr: float,
    beta: float = 0.95,
    epsilon: float = 1e-8,
    touched: Tensor | None = None,  # [V] bool: the rows to update, default all
) -> None:
    """One RMSProp step; a running mean of 0 starts at the gradient's square. The caller clears `touched`."""
    torch.ops.plenoxel.rmsprop_step(param, grad, square_avg, lr, beta, epsilon, touched)


def update_grid(
    grid: GridHandle,  # its values are changed in place
    grad_density: Tensor,  # [V], zeroed where touched
    grad_sh: Tensor,  # [V, 27], zeroed where touched
    square_avg_density: Tensor,  # [V], changed in place; starts at 0
    square_avg_sh: Tensor,  # [V, 27], changed in place; starts at 0
    touched: Tensor,  # [V] bool: the rows that have a gradient; cleared
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
    """The second half of a fit's step, after `fit_gradients`: total variation, then RMSProp on the rows touched.

    First adds to the gradients of densities and coefficients tv_density and tv_sh (0: left out) times that of their
    total variation, the sum over cells of sqrt(dx^2 + dy^2 + dz^2 + 1e-9). As in svox2, each difference's gradient is
    weighted by R / 256 but not the differences in the root, and for coefficients (not for densities) an empty
    neighbour counts as equal and the cell of row 0 is left out. Then does what two `rmsprop_step` do.

    Args:
        first_cell, num_cells: cells are numbered as voxels, (x * Ry + y) * Rz + z, level by level; a range of them, by
            default all, whose variation counts. Voxels on the upper border begin no cell.
    """
    count = grid.index.total_voxels - first_cell if num_cells is None else num_cells
    torch.ops.plenoxel.update_grid(
        grid.index.links, grid.density, grid.sh, grad_density, grad_sh, square_avg_density, square_avg_sh, touched,
        first_cell, count, tv_density, tv_sh, lr_density, lr_sh, beta, epsilon,
    )  # fmt: skip
    grid.values_changed()


def sample_grid(
    grid: GridHandle,
    points: Tensor,  # [N, 3] grid coordinates: voxel i's centre is at i; clamped to the grid
) -> tuple[Tensor, Tensor]:
    """Trilinear sigma [N] and coefficients [N, 27] at `points`, for resampling; empty voxels count as 0."""
    return torch.ops.plenoxel.sample_grid(grid.index.links, grid.density, grid.sh, points)

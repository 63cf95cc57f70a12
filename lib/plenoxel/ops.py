"""Plenoxel ops: thin typed wrappers around `torch.ops.plenoxel`, with their fake functions and autograd.

A grid is `links` int32 [Rx, Ry, Rz] (-1 where empty, else a row number that occurs once), `density` [V] and `sh`
[V, 27], channel-major (R0..R8, G0..G8, B0..B8). Tensors are float32 or (on the CPU) float64, of one type and device.
Several grids of one resolution are rendered together by stacking their links to [S, Rx, Ry, Rz] (rows numbered through)
and naming each ray's grid in `scene_index` int32 [N].

Rays are `origins` and `directions` [N, 3] in world units, directions of unit length. Options, as in svox2:
`center`, `radius`: of the grid, world units; `step_size`: between samples, in voxels; `sigma_thresh` (>= 0): a sample
counts if its sigma is above; `stop_thresh`: a ray ends, with transmittance 0, when its transmittance falls below;
`near_clip`: world distance before which nothing is seen; `background_brightness`: grey level behind the grid.

Inputs of a wrong shape or type raise RuntimeError. On the CPU all results are the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from lib.library import load_library
from lib.plenoxel import packed
from lib.plenoxel.packed import OUTPUT_BITS
from lib.plenoxel.reference import RayOutputs

load_library(Path(__file__).parent)
import lib.plenoxel.registrations  # noqa: E402, F401  (after the ops exist)

Vector = Sequence[float]
_PACK_FROM_RAYS = 8192  # from here on packing a grid on a GPU pays, as a rule


def cell_distance(links: Tensor) -> Tensor:
    """Distance field by which rays leap over empty space: uint8, shape of `links`.

    Kept with the tensor `links` until that is changed in place: a fit pays for it once per pruning.
    """
    version, cached = getattr(links, "_cell_distance", (None, None))
    if version != links._version:
        cached = torch.ops.plenoxel.cell_distance(links)
        links._cell_distance = (links._version, cached)
    return cached


def render_rays(
    links: Tensor,  # [Rx, Ry, Rz] int32
    density: Tensor,  # [V]
    sh: Tensor,  # [V, 27]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    center: Vector = (0.0, 0.0, 0.0),
    radius: Vector = (1.0, 1.0, 1.0),
    step_size: float = 0.5,
    sigma_thresh: float = 1e-10,
    stop_thresh: float = 1e-7,
    near_clip: float = 0.0,
    background_brightness: float = 1.0,
    outputs: Sequence[str] = ("rgb", "sh", "depth", "alpha"),
    sh_background: bool = False,
    scene_index: Tensor | None = None,  # [N] int32
    image_width: int = 0,
) -> RayOutputs:
    """Renders rays; every output is differentiable with respect to `density` and `sh`.

    Args:
        outputs: which of "rgb", "sh", "depth" and "alpha" to compute; the others are None.
        sh_background: adds transmittance * background_brightness to the SH image on rays that hit the grid's box, as
            PeRFception's code does.
        image_width: says that rays are the pixels of images of this width in scan order; a GPU then renders them in
            tiles, which is faster.

    On a GPU, many rays without gradient go through a packed copy of the grid (see `packed`), made when first needed.

    Returns:
        rgb [N, 3] over the background; sh [N, 27], the coefficients composited with the weights of rgb; depth [N], sum
        of weight * distance in world units (not divided by alpha); alpha [N], 1 - the transmittance left at the end.
    """
    unknown = set(outputs) - OUTPUT_BITS.keys()
    if unknown:
        raise ValueError(f"outputs must be among {list(OUTPUT_BITS)}, got {sorted(unknown)}")
    if origins.is_cuda and len(origins) >= _PACK_FROM_RAYS and not _needs_gradient(density, sh):
        grid = packed.packed_once(links, cell_distance(links), density, sh)
        return packed.render_packed(
            grid, origins, directions, center, radius, step_size, sigma_thresh, stop_thresh, near_clip,
            background_brightness, outputs, sh_background, scene_index, image_width,
        )
    options = [step_size, sigma_thresh, stop_thresh, near_clip, background_brightness]
    values = torch.ops.plenoxel.render_rays(
        links, cell_distance(links), density, sh, origins, directions, scene_index, list(center), list(radius), options,
        sh_background, sum(OUTPUT_BITS[name] for name in set(outputs)),
    )
    return RayOutputs(*(value if name in outputs else None for name, value in zip(OUTPUT_BITS, values, strict=True)))


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def first_surface_depth(
    links: Tensor,
    density: Tensor,  # [V]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    center: Vector = (0.0, 0.0, 0.0),
    radius: Vector = (1.0, 1.0, 1.0),
    step_size: float = 0.5,
    near_clip: float = 0.0,
    sigma: float = 10.0,
    scene_index: Tensor | None = None,
) -> Tensor:
    """World distance [N] of each ray's first sample denser than `sigma` (>= 0); 0 where there is none."""
    options = [step_size, sigma, 0.0, near_clip, 0.0]
    return torch.ops.plenoxel.first_surface_depth(
        links, cell_distance(links), density, origins, directions, scene_index, list(center), list(radius), options
    )


def max_weight(
    links: Tensor,
    density: Tensor,  # [V]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    weights: Tensor,  # [V], changed in place
    center: Vector = (0.0, 0.0, 0.0),
    radius: Vector = (1.0, 1.0, 1.0),
    step_size: float = 0.5,
    sigma_thresh: float = 1e-10,
    stop_thresh: float = 1e-7,
    near_clip: float = 0.0,
    scene_index: Tensor | None = None,
) -> None:
    """Raises `weights` to the largest rendering weight of any sample that reads a voxel: what pruning goes by."""
    options = [step_size, sigma_thresh, stop_thresh, near_clip, 0.0]
    torch.ops.plenoxel.max_weight(
        links, cell_distance(links), density, origins, directions, scene_index, list(center), list(radius), options,
        weights,
    )


def fit_gradients(
    links: Tensor,
    density: Tensor,  # [V]
    sh: Tensor,  # [V, 27]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    target_rgb: Tensor,  # [N, 3]
    grad_density: Tensor,  # [V], added to
    grad_sh: Tensor,  # [V, 27], added to
    *,
    center: Vector = (0.0, 0.0, 0.0),
    radius: Vector = (1.0, 1.0, 1.0),
    step_size: float = 0.5,
    sigma_thresh: float = 1e-10,
    stop_thresh: float = 1e-7,
    near_clip: float = 0.0,
    background_brightness: float = 1.0,
    beta_lambda: float = 0.0,
    sparsity_lambda: float = 0.0,
    ray_weights: Tensor | None = None,  # [N] or [N, 3]
    depth_target: Tensor | None = None,  # [N] world distance along the ray, <= 0 where unknown
    depth_lambda: float = 0.0,
    free_space_lambda: float = 0.0,
    free_space_margin: float = 0.0,
    background: Tensor | None = None,  # [N, 3], instead of background_brightness
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
    options = [step_size, sigma_thresh, stop_thresh, near_clip, background_brightness]
    losses = [beta_lambda, sparsity_lambda, depth_lambda, free_space_lambda, free_space_margin]
    weights = None if ray_weights is None else ray_weights.contiguous()
    behind = None if background is None else background.contiguous()
    return torch.ops.plenoxel.fit_gradients(
        links, cell_distance(links), density, sh, origins, directions, scene_index, list(center), list(radius), options,
        target_rgb, weights, depth_target, behind, losses, grad_density, grad_sh, touched, transmittance,
    )


def tv_gradients(
    links: Tensor,
    data: Tensor,  # [V, C]
    grad: Tensor,  # [V, C], added to
    first_cell: int = 0,
    num_cells: int | None = None,
    channels: tuple[int, int] | None = None,
    scale: float = 1.0,
    ignore_edge: bool = False,
    touched: Tensor | None = None,  # [V] bool
) -> None:
    """Adds scale * the gradient of the total variation, sum over cells of sqrt(dx^2 + dy^2 + dz^2 + 1e-9), to `grad`.

    As in svox2, each difference's gradient is weighted by R / 256 but not the differences in the root, and with
    `ignore_edge` (svox2: for colours, not for density) an empty neighbour counts as equal and the cell of row 0 is left
    out.

    Args:
        first_cell, num_cells: cells are numbered as voxels, (x * Ry + y) * Rz + z; a range of them, by default all.
            Voxels on the upper border begin no cell.
        channels: [begin, end) of the C channels, by default all.
    """
    begin, end = channels or (0, data.shape[1])
    count = links.numel() - first_cell if num_cells is None else num_cells
    torch.ops.plenoxel.tv_gradients(links, data, grad, first_cell, count, begin, end, scale, ignore_edge, touched)


def rmsprop_step(
    param: Tensor,  # [V] or [V, C], changed in place
    grad: Tensor,  # same shape, zeroed
    square_avg: Tensor,  # same shape, changed in place; starts at 0
    lr: float,
    beta: float = 0.95,
    epsilon: float = 1e-8,
    touched: Tensor | None = None,  # [V] bool: the rows to update, default all
) -> None:
    """One RMSProp step; a running mean of 0 starts at the gradient's square. `touched` is left for you to clear."""
    torch.ops.plenoxel.rmsprop_step(param, grad, square_avg, lr, beta, epsilon, touched)
    increment_version(param)  # or a packed copy of the old values would be rendered


def update_grid(
    links: Tensor,
    density: Tensor,  # [V], changed in place
    sh: Tensor,  # [V, 27], changed in place
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

    Does what two `tv_gradients`, with `scale` tv_density and tv_sh (0: left out) and `ignore_edge` for coefficients
    only, two `rmsprop_step` and touched.zero_() do, in two launches on a GPU.
    """
    count = links.numel() - first_cell if num_cells is None else num_cells
    torch.ops.plenoxel.update_grid(
        links, density, sh, grad_density, grad_sh, square_avg_density, square_avg_sh, touched, first_cell, count,
        tv_density, tv_sh, lr_density, lr_sh, beta, epsilon,
    )
    increment_version((density, sh))  # or a packed copy of the old values would be rendered


def sample_grid(
    links: Tensor,
    density: Tensor,  # [V]
    sh: Tensor,  # [V, 27]
    points: Tensor,  # [N, 3] grid coordinates: voxel i's centre is at i; clamped to the grid
) -> tuple[Tensor, Tensor]:
    """Trilinear sigma [N] and coefficients [N, 27] at `points`, for resampling; empty voxels count as 0."""
    return torch.ops.plenoxel.sample_grid(links, density, sh, points)

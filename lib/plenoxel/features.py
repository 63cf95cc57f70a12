"""Features of any number of channels on a grid's voxels: rendered along rays, and spread back.

With W [N, V] what ray n weighs at voxel v (the sum over its samples of the rendering weight times the voxel's trilinear
share, the quadrature of the SH image), `render_features` is the product W features, and `spread_features` the
transposed ones, W^T values and W^T 1. No background is added. Each is the gradient of the other; there is none by the
grid's density, and a density that requires one is refused.

Features and values are float16, float32 or (on the CPU) float64; results have the type of the grid's density. Rays,
options and stacks of grids are as in `ops`. On the CPU results are the same bits for any number of threads. On a GPU
so are those of `render_features`, for any other rays in the call; sums of `spread_features` are made with atomics,
and their last bits change from call to call.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lib.library import load_library
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.options import RenderOptions, option_numbers

load_library(Path(__file__).parent)
import lib.plenoxel.feature_registrations  # noqa: E402, F401  (after the ops exist)


def render_features(
    grid: GridHandle,
    features: Tensor,  # [V, C]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    options: RenderOptions,
    scene_index: Tensor | None = None,  # [N] int32
    image_width: int = 0,
) -> Tensor:
    """Features [N, C] that rays see; `image_width` as in `ops.render_rays`."""
    _check_density(grid)
    if grid.device.type == "cuda":
        _check_rows(grid, features)
        return torch.ops.plenoxel.render_features_packed(
            *grid.index.cell_table, grid.packed.cells, features, origins, directions, scene_index,
            list(grid.index.center), list(grid.index.radius), option_numbers(options), image_width,
        )  # fmt: skip
    return torch.ops.plenoxel.render_features(
        grid.index.links, grid.index.distance, grid.density, features, origins, directions, scene_index,
        list(grid.index.center), list(grid.index.radius), option_numbers(options),
    )  # fmt: skip


def spread_features(
    grid: GridHandle,
    values: Tensor,  # [N, C]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    options: RenderOptions,
    scene_index: Tensor | None = None,  # [N] int32
    image_width: int = 0,
) -> tuple[Tensor, Tensor]:
    """Sums [V, C] of rays' values by what rays weigh at each voxel, and the weights' own sums [V]."""
    _check_density(grid)
    if grid.device.type == "cuda":
        return torch.ops.plenoxel.spread_features_packed(
            *grid.index.cell_table, grid.packed.cells, values, grid.index.num_rows, origins, directions, scene_index,
            list(grid.index.center), list(grid.index.radius), option_numbers(options), image_width,
        )  # fmt: skip
    return torch.ops.plenoxel.spread_features(
        grid.index.links, grid.index.distance, grid.density, values, origins, directions, scene_index,
        list(grid.index.center), list(grid.index.radius), option_numbers(options),
    )  # fmt: skip


def _check_density(grid: GridHandle) -> None:
    if torch.is_grad_enabled() and grid.density.requires_grad:
        raise ValueError("features have no gradient by density; pass grid.with_values(density=density.detach())")


def _check_rows(grid: GridHandle, features: Tensor) -> None:
    """A packed grid does not say how many rows it has, and kernels trust the rows that its cells name."""
    if features.shape[:1] != (grid.index.num_rows,):
        raise RuntimeError(f"features must have size {grid.index.num_rows} in dimension 0, got {list(features.shape)}")

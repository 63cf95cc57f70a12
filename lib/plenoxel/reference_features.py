"""Features on voxels in plain PyTorch: slow and obvious, the yardstick of the ops in `features.py`."""

from __future__ import annotations

from torch import Tensor

from lib.plenoxel.grid import GridHandle
from lib.plenoxel.options import RenderOptions
from lib.plenoxel.reference_march import March


def _ray_weights(grid: GridHandle, origins: Tensor, directions: Tensor, options: RenderOptions) -> Tensor:
    """What each ray weighs at each voxel, as a dense matrix [N, V]."""
    march = March(grid, origins, directions, options)
    weights = origins.new_zeros(len(origins), grid.index.num_rows + 1)  # the last column takes what empty corners get
    for sample in march.samples():
        shares = sample.weight[:, None] * sample.corner_weights * sample.active[:, None]
        weights = weights.scatter_add(1, sample.rows % weights.shape[1], shares)
    return weights[:, :-1]


def _render_features(
    grid: GridHandle,
    features: Tensor,  # [V, C]
    origins: Tensor,
    directions: Tensor,
    options: RenderOptions,
) -> Tensor:
    """Features [N, C] that rays see; see `features.render_features`."""
    return _ray_weights(grid, origins, directions, options) @ features.to(grid.density.dtype)


def _spread_features(
    grid: GridHandle,
    values: Tensor,  # [N, C]
    origins: Tensor,
    directions: Tensor,
    options: RenderOptions,
) -> tuple[Tensor, Tensor]:
    """Sums [V, C] of values and the weights [V]; see `features.spread_features`."""
    weights = _ray_weights(grid, origins, directions, options)
    return weights.T @ values.to(grid.density.dtype), weights.sum(0)

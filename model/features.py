"""Features of any number of channels on a grid's voxels: rendered, and spread back from what rays see."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.plenoxel.options import RenderOptions
from model.grid import PlenoxelGrid
from model.rendering import check_rays, configured_options

FEATURE_TYPES = (torch.float16, torch.float32)


def render_features(
    grid: PlenoxelGrid,
    features: Tensor,  # [V, C]
    origins: Tensor,  # [..., 3]
    directions: Tensor,  # [..., 3]
    options: RenderOptions | None = None,
) -> Tensor:
    """Features ``[..., C]`` that rays see: sum of weight * trilinear feature, as for the SH image, no background.

    Differentiable with respect to ``features``; not with respect to the grid's density.

    Args:
        features: float16 or float32, one row a voxel of the grid.
        origins: float32, world units.
        directions: float32, unit length.
        options: defaults to ``RenderOptions()``.

    Raises:
        ValueError: shapes, types or devices are not as above, or the density requires a gradient.
    """
    options = options or configured_options()
    check_rays(grid, origins, directions)
    _check_features("features", features, (grid.num_voxels,), grid)
    from lib.plenoxel import features as ops  # here, so that run.py --help works without the built extension

    rays, width = _flat(origins, directions)
    out = ops.render_features(grid.handle, features.contiguous(), *rays, options, image_width=width)
    return out.reshape(*origins.shape[:-1], features.shape[1])


def spread_features(
    grid: PlenoxelGrid,
    values: Tensor,  # [..., C]
    origins: Tensor,  # [..., 3]
    directions: Tensor,  # [..., 3]
    options: RenderOptions | None = None,
) -> tuple[Tensor, Tensor]:
    """The transpose of :func:`render_features` applied to rays' values and to ones: sums ``[V, C]``, weights ``[V]``.

    ``sums / weights`` is the mean of what the rays that see a voxel have there. Differentiable with respect to
    ``values``. On the CPU the same bits for any number of threads; on a GPU the last bits change from call to call.

    Args:
        values: float16 or float32, one row a ray.
        origins, directions, options: as for :func:`render_features`.

    Raises:
        ValueError: as :func:`render_features`.
    """
    options = options or configured_options()
    check_rays(grid, origins, directions)
    _check_features("values", values, origins.shape[:-1], grid)
    from lib.plenoxel import features as ops

    rays, width = _flat(origins, directions)
    flat = values.reshape(-1, values.shape[-1]).contiguous()
    return ops.spread_features(grid.handle, flat, *rays, options, image_width=width)


def _flat(origins: Tensor, directions: Tensor) -> tuple[list[Tensor], int]:
    """Rays ``[N, 3]``, and the width of the images whose pixels they are, or 0."""
    width = origins.shape[-2] if origins.dim() > 2 else 0
    return [values.reshape(-1, 3).contiguous() for values in (origins, directions)], width


def _check_features(name: str, features: Tensor, leading: tuple[int, ...], grid: PlenoxelGrid) -> None:
    if features.dtype not in FEATURE_TYPES or features.dim() < 1 or features.shape[:-1] != tuple(leading):
        raise ValueError(f"{name} must be float16 or float32 [{', '.join(map(str, leading))}, C], found "
                         f"{features.dtype} {list(features.shape)}")
    if features.shape[-1] < 1:
        raise ValueError(f"{name} must have at least one channel")
    if features.device != grid.device:
        raise ValueError(f"{name} are on {features.device}, the grid on {grid.device}; move one with .to()")

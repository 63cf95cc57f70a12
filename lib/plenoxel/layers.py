"""Concentric sphere images behind a grid (svox2's background model): typed wrappers around their ops.

The unit sphere is the one that the grid's box of radius 1 holds. `texture` [R, 2R, L, 4] has R rows from +y to -y and
2R columns around y from -z over -x and +z; of each of L layers (at least 2), evenly spaced in inverse radius, it holds
three coefficients of a constant colour, and a density in units of `density_unit`. Tensors are float32 or (on the CPU)
float64, of one type and device.

Rays are `origins` [N, 3] in the sphere's frame and `directions` [N, 3] of any length: it is that of a world unit, as
svox2 measures the optical depth along them. `step_size` is in layers; `brightness` is the grey level behind the last.

On the CPU inputs of a wrong shape or type raise RuntimeError, and all results are the same bits for any number of
threads. GPUs compute with PyTorch's own operations, as the reference does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lib.library import load_library
from lib.plenoxel.reference_layers import _shade_layers, _shade_layers_gradients

load_library(Path(__file__).parent)
import lib.plenoxel.layer_registrations  # noqa: E402, F401  (after the ops exist)

_SAMPLES_AT_ONCE = 1 << 23  # on a GPU


def _parts(texture: Tensor, step_size: float, *rays: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rays' tensors in parts that bound the memory which samples take."""
    at_once = max(1, int(_SAMPLES_AT_ONCE * step_size / texture.shape[2]))
    return zip(*(values.split(at_once) for values in rays), strict=True)


def shade_layers(
    texture: Tensor,  # [R, 2R, L, 4]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    step_size: float = 0.5,
    brightness: float = 1.0,
    density_unit: float = 1.0,
) -> Tensor:
    """Colours [N, 3] that rays see; differentiable with respect to `texture`."""
    if texture.is_cuda:
        parts = _parts(texture, step_size, origins, directions)
        return torch.cat([_shade_layers(texture, *part, step_size, brightness, density_unit) for part in parts])
    return torch.ops.plenoxel.shade_layers(texture, origins, directions, step_size, brightness, density_unit)


def shade_layers_gradients(
    texture: Tensor,  # [R, 2R, L, 4]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    grad_rgb: Tensor,  # [N, 3], by what shade_layers returns
    grad_texture: Tensor,  # [R, 2R, L, 4], added to
    touched: Tensor | None = None,  # [R, 2R] bool, set where a direction's gradient was added to
    step_size: float = 0.5,
    brightness: float = 1.0,
    density_unit: float = 1.0,
) -> None:
    """Shades the rays again and adds the gradient by `texture`."""
    if texture.is_cuda:
        for rays in _parts(texture, step_size, origins, directions, grad_rgb):
            _shade_layers_gradients(texture, *rays, grad_texture, touched, step_size, brightness, density_unit)
        return
    torch.ops.plenoxel.shade_layers_gradients(
        texture, origins, directions, grad_rgb, grad_texture, touched, step_size, brightness, density_unit
    )

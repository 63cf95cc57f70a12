"""Concentric sphere images behind a grid (svox2's background model): typed wrappers around their ops.

The unit sphere is the one that the grid's box of radius 1 holds. `texture` [R, 2R, L, 4] has R rows from +y to -y and
2R columns around y from -z over -x and +z; of each of L layers (at least 2), evenly spaced in inverse radius, it holds
three coefficients of a constant colour, and a density in units of `density_unit`. Tensors are float32 or (on the CPU)
float64, of one type and device.

Rays are `origins` [N, 3] in the sphere's frame and `directions` [N, 3] of any length: it is that of a world unit, as
svox2 measures the optical depth along them. `step_size` is in layers; `brightness` is the grey level behind the last.

Inputs of a wrong shape or type raise RuntimeError. On the CPU all results are the same bits for any number of threads.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lib.library import load_library

load_library(Path(__file__).parent)
import lib.plenoxel.layer_registrations  # noqa: E402, F401  (after the ops exist)


def shade_layers(
    texture: Tensor,  # [R, 2R, L, 4]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    step_size: float = 0.5,
    brightness: float = 1.0,
    density_unit: float = 1.0,
    seen: Tensor | None = None,  # [N] bool
) -> Tensor:
    """Colours [N, 3] that rays see, `brightness` where not `seen`; differentiable with respect to `texture`."""
    return torch.ops.plenoxel.shade_layers(texture, origins, directions, seen, step_size, brightness, density_unit)


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
    torch.ops.plenoxel.shade_layers_gradients(
        texture, origins, directions, grad_rgb, grad_texture, touched, step_size, brightness, density_unit
    )

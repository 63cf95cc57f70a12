"""Rendering rays through a grid: one function over the three backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lib.plenoxel import reference
from model.grid import SH_CHANNELS, PlenoxelGrid
from model.options import RenderOptions

OUTPUTS = ("rgb", "sh", "depth", "alpha")
BACKENDS = ("auto", "reference", "cpu", "cuda")


class RenderedRays(NamedTuple):
    """What :func:`render_rays` returns; outputs that were not asked for are None.

    rgb ``[..., 3]``; sh ``[..., 27]``; depth ``[...]``, expected distance along the ray in world units;
    alpha ``[...]``, the share of light that the grid stops.
    """

    rgb: Tensor | None
    sh: Tensor | None
    depth: Tensor | None
    alpha: Tensor | None


def render_rays(
    grid: PlenoxelGrid,
    origins: Tensor,  # [..., 3]
    directions: Tensor,  # [..., 3]
    options: RenderOptions | None = None,
    outputs: tuple[str, ...] = OUTPUTS,
    backend: str = "auto",
) -> RenderedRays:
    """Render rays by Plenoxels' quadrature (Fridovich-Keil et al. 2022; see svox2).

    Differentiable with respect to ``grid.density`` and ``grid.sh`` through every output.

    Args:
        origins: float32, world units.
        directions: float32, unit length.
        options: defaults to ``RenderOptions()``.
        outputs: any of "rgb", "sh", "depth", "alpha"; the rest is not computed.
        backend: "reference" (PyTorch), "cpu" (C++), "cuda"; "auto" follows the tensors' device.

    Raises:
        ValueError: shapes, types, devices, an output or the backend are not as above.
    """
    options = options or RenderOptions()
    _check_arguments(grid, origins, directions, outputs, backend)
    shape = origins.shape[:-1]
    if backend == "reference":
        render, layout = reference._render_rays, {}
    else:
        render, layout = _compiled_render_rays(), {"image_width": shape[-1] if len(shape) > 1 else 0}
    out = render(
        grid.links,
        grid.density,
        grid.sh,
        origins.reshape(-1, 3).contiguous(),
        directions.reshape(-1, 3).contiguous(),
        grid.center,
        grid.radius,
        options.step_size,
        options.sigma_thresh,
        options.stop_thresh,
        options.near_clip,
        options.background_brightness,
        outputs=tuple(outputs),
        sh_background=options.sh_background,
        **layout,
    )
    return RenderedRays(
        rgb=None if out.rgb is None else out.rgb.reshape(*shape, 3),
        sh=None if out.sh is None else out.sh.reshape(*shape, SH_CHANNELS),
        depth=None if out.depth is None else out.depth.reshape(shape),
        alpha=None if out.alpha is None else out.alpha.reshape(shape),
    )


def _compiled_render_rays() -> Callable[..., reference.RayOutputs]:
    from lib.plenoxel import ops  # here, so that a checkout without the built extension can still be asked for help

    return ops.render_rays


def _check_arguments(
    grid: PlenoxelGrid, origins: Tensor, directions: Tensor, outputs: tuple[str, ...], backend: str
) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown; use one of {', '.join(BACKENDS)}")
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        raise ValueError(f"outputs {tuple(outputs)!r}: expected some of {', '.join(OUTPUTS)}")
    for name, rays in (("origins", origins), ("directions", directions)):
        if rays.dtype != torch.float32 or rays.shape[-1:] != (3,):
            raise ValueError(f"{name} must be float32 [..., 3], found {rays.dtype} {tuple(rays.shape)}")
        if rays.device != grid.device:
            raise ValueError(f"{name} is on {rays.device}, the grid on {grid.device}; move one with .to()")
    if origins.shape != directions.shape:
        raise ValueError(f"origins {tuple(origins.shape)} and directions {tuple(directions.shape)} differ in shape")
    if backend in ("cpu", "cuda") and grid.device.type != backend:
        raise ValueError(f"backend {backend!r} needs tensors on that device, found {grid.device}")

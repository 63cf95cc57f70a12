"""Rendering rays through a grid: one function over the three backends."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lib.plenoxel import reference
from lib.plenoxel.options import RenderOptions
from lib.plenoxel.outputs import OUTPUTS
from model.grid import PlenoxelGrid
from utils.spherical_harmonics import SH_CHANNELS

BACKENDS = ("auto", "reference", "cpu", "cuda")
_LEAST_TRANSMITTANCE = 1e-7


class RenderedRays(NamedTuple):
    """What :func:`render_rays` returns; outputs that were not asked for are None.

    rgb ``[..., 3]``; sh ``[..., 27]``; depth ``[...]``, expected distance along the ray in world units;
    alpha ``[...]``, the opacity along the ray.
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
    options = options or configured_options()
    _check_arguments(grid, origins, directions, outputs, backend)
    shape = origins.shape[:-1]
    rays = [values.reshape(-1, 3).contiguous() for values in (origins, directions)]
    layered = grid.background is not None and "rgb" in outputs
    wanted = (*outputs, "alpha") if layered else tuple(outputs)
    if backend == "reference":
        out = reference._render_rays(grid.handle, *rays, options, wanted)
    else:
        from lib.plenoxel import ops  # here, so that run.py --help works without the built extension

        width = shape[-1] if len(shape) > 1 else 0
        out = ops.render_rays(grid.handle, *rays, options, wanted, image_width=width)
    rgb = out.rgb
    if layered:
        rgb = _before_layers(grid, rgb, 1 - out.alpha, *rays, options, backend)
    return RenderedRays(
        rgb=None if rgb is None else rgb.reshape(*shape, 3),
        sh=None if out.sh is None else out.sh.reshape(*shape, SH_CHANNELS),
        depth=None if out.depth is None else out.depth.reshape(shape),
        alpha=out.alpha.reshape(shape) if "alpha" in outputs else None,
    )


def _before_layers(
    grid: PlenoxelGrid,
    rgb: Tensor,  # [N, 3]
    transmittance: Tensor,  # [N]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    options: RenderOptions,
    backend: str,
) -> Tensor:
    """The colours in front of the grid's sphere layers instead of a grey background."""
    seen = transmittance.detach() >= _LEAST_TRANSMITTANCE
    brightness = options.background_brightness
    rays = _in_frame_of_layers(grid, origins, directions)
    layers = grid.background.shade(*rays, options.step_size, brightness, seen, backend)
    return rgb + torch.where(seen, transmittance, 0)[:, None] * (layers - brightness)


def _in_frame_of_layers(grid: PlenoxelGrid, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Rays where the grid's centre is 0 and its radius 1, by numbers: a tensor of them would make a GPU wait."""
    if grid.center == (0.0, 0.0, 0.0) and grid.radius == (1.0, 1.0, 1.0):
        return origins, directions
    axes = list(zip(grid.center, grid.radius, strict=True))
    return (
        torch.stack([(origins[:, k] - middle) / half for k, (middle, half) in enumerate(axes)], dim=-1),
        torch.stack([directions[:, k] / half for k, (_, half) in enumerate(axes)], dim=-1),
    )


def configured_options() -> RenderOptions:
    """The options that gin binds at the time of the call, or of compilation."""
    return RenderOptions()


# What torch.compiler.assume_constant_result does, which would import the compiler: a second of every command's start.
configured_options._dynamo_marked_constant = True


def _check_arguments(
    grid: PlenoxelGrid, origins: Tensor, directions: Tensor, outputs: tuple[str, ...], backend: str
) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown; use one of {', '.join(BACKENDS)}")
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        raise ValueError(f"outputs {tuple(outputs)!r}: expected some of {', '.join(OUTPUTS)}")
    check_rays(grid, origins, directions)
    if backend in ("cpu", "cuda") and grid.device.type != backend:
        raise ValueError(f"backend {backend!r} needs tensors on that device, found {grid.device}")


def check_rays(grid: PlenoxelGrid, origins: Tensor, directions: Tensor) -> None:
    """Raise ``ValueError`` unless both are float32 ``[..., 3]`` of one shape on the grid's device."""
    for name, rays in (("origins", origins), ("directions", directions)):
        if rays.dtype != torch.float32 or rays.shape[-1:] != (3,):
            raise ValueError(f"{name} must be float32 [..., 3], found {rays.dtype} {tuple(rays.shape)}")
        if rays.device != grid.device:
            raise ValueError(f"{name} is on {rays.device}, the grid on {grid.device}; move one with .to()")
    if origins.shape != directions.shape:
        raise ValueError(f"origins {tuple(origins.shape)} and directions {tuple(directions.shape)} differ in shape")

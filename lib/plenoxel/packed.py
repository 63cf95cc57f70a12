"""Grids laid out for fast rendering on a GPU: a table of occupied cells and rows of 32 aligned numbers.

Packing costs a few milliseconds, once per grid. Coefficients are stored as float32 (exact), as float16, or as uint8
with one scale and offset per coefficient, as PeRFception's files do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lib.plenoxel.reference import RayOutputs
from utils.spherical_harmonics import BASIS_SIZE, SH_CHANNELS

OUTPUT_BITS = {"rgb": 1, "sh": 2, "depth": 4, "alpha": 8}
STORAGES = ("float32", "float16", "uint8")
ROW_SIZE = 32
_LEAST_COLOR = 1e-4  # far above the rounding of a colour


class PackedGrid(NamedTuple):
    """What `render_packed` reads; made by `pack_grid`, on a GPU."""

    ahead: Tensor  # uint8 [8, *links.shape]: for each octant of directions, how far a ray surely meets no occupied cell
    words: Tensor  # int32 [ceil(cells / 32), 2]: bits of the occupied cells, index of the first in `cells`
    cells: Tensor  # int32 [C, 16]: rows of the 8 corners (-1 empty, bit 30 set where colour may clamp), 8 densities
    rows: Tensor  # float32, float16 or uint8 [V, 32]: 27 coefficients, a 1, zeros
    affine: Tensor | None  # float32 [2, 27]: scale and offset of uint8 coefficients
    clamps: bool  # some row's colour may clamp


def pack_grid(
    links: Tensor,  # [Rx, Ry, Rz] or [S, Rx, Ry, Rz] int32
    distance: Tensor,  # uint8, shape of links
    density: Tensor,  # [V]
    sh: Tensor,  # [V, 27]
    storage: str = "float32",
) -> PackedGrid:
    """Packs a grid, or a stack of grids, for `render_packed`.

    Raises:
        ValueError: unknown storage.
        RuntimeError: wrong shapes or types, or tensors that are not on a GPU.
    """
    if storage not in STORAGES:
        raise ValueError(f"storage must be one of {STORAGES}, got {storage!r}")
    density, sh = density.detach(), sh.detach()
    affine, stored, values = None, sh, sh
    if storage == "float16":
        stored = values = sh.half()
    elif storage == "uint8":
        affine = _affine(sh)
        stored = ((sh - affine[1]) / (affine[0] + 1e-12)).round_()
        values = torch.addcmul(affine[1], stored, affine[0])
    rows = torch.zeros(len(sh), ROW_SIZE, dtype=getattr(torch, storage), device=sh.device)
    rows[:, :SH_CHANNELS] = stored
    rows[:, SH_CHANNELS] = 1
    clamping = may_clamp(values.float())
    cells = torch.ops.plenoxel.pack_cells(links, distance, density, clamping)
    return PackedGrid(*cells, rows, affine, bool(clamping.any()))


def may_clamp(sh: Tensor) -> Tensor:
    """Which rows [V] have a colour channel that could be below 0 seen from some direction; `sh` is [V, 27].

    By Cauchy-Schwarz within each degree, sum_b Y_b^2 being 3 / 4 pi for degree 1 and 5 / 4 pi for degree 2.
    """
    channels = sh.unflatten(-1, (3, BASIS_SIZE))
    constant, linear, quadratic = channels.split((1, 3, 5), dim=-1)
    least = 0.5 + constant[..., 0] * math.sqrt(1 / (4 * math.pi))
    least = least - math.sqrt(3 / (4 * math.pi)) * linear.norm(dim=-1)
    least = least - math.sqrt(5 / (4 * math.pi)) * quadratic.norm(dim=-1)
    return ~(least >= _LEAST_COLOR).all(-1)


def render_packed(
    grid: PackedGrid,
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    center: Sequence[float] = (0.0, 0.0, 0.0),
    radius: Sequence[float] = (1.0, 1.0, 1.0),
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
    """Renders rays through a packed grid as `ops.render_rays` does, without gradients.

    Args:
        image_width: if rays are the pixels of images of this width in scan order, one image after the other, neighbours
            in both directions are rendered together, which is faster.
    """
    options = [step_size, sigma_thresh, stop_thresh, near_clip, background_brightness]
    values = torch.ops.plenoxel.render_packed(
        *grid, origins, directions, scene_index, list(center), list(radius), options, sh_background,
        sum(OUTPUT_BITS[name] for name in set(outputs)), image_width,
    )  # fmt: skip
    return RayOutputs(*(value if name in outputs else None for name, value in zip(OUTPUT_BITS, values, strict=True)))


def packed_once(links: Tensor, distance: Tensor, density: Tensor, sh: Tensor) -> PackedGrid:
    """`pack_grid`, kept with the tensor `links` until one of the tensors is another or is changed in place."""
    key = [(tensor.data_ptr(), tensor.shape, tensor._version) for tensor in (links, density, sh)]
    kept = getattr(links, "_packed_grid", None)
    if kept is None or kept[0] != key:
        # The tensors are kept as well, so that their memory cannot become another grid's.
        kept = (key, pack_grid(links, distance, density, sh), density.detach(), sh.detach())
        links._packed_grid = kept
    return kept[1]


def _affine(sh: Tensor) -> Tensor:
    if len(sh) == 0:
        return sh.new_zeros(2, SH_CHANNELS)
    least = sh.amin(0)
    return torch.stack(((sh.amax(0) - least) / 255, least))

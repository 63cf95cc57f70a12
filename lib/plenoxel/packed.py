"""A grid's values laid out for rendering on a GPU: a table of occupied cells, and rows that are whole cache lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lib.library import load_library
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions, option_numbers
from lib.plenoxel.outputs import OUTPUTS, RayOutputs, named_outputs, output_bits
from utils.spherical_harmonics import BASIS_SIZE

load_library(Path(__file__).parent)
_LEAST_COLOR = 1e-4  # far above the rounding of a colour


class PackedGrid(NamedTuple):
    """What `render_packed` reads beside the index; made by `pack_grid`."""

    cells: Tensor  # int32 [C, 16]: rows of the 8 corners (-1 empty, bit 30 set where colour may clamp), 8 densities
    rows: Tensor  # float32 [V, 32]: 27 coefficients, zeros; or uint8: 27 codes, 1, zeros
    clamps: Tensor  # bool [1], on the CPU: some row's colour may clamp
    quantization: Tensor | None  # float32 [2, 27]: coefficients are code * quantization[1] + quantization[0]


def pack_grid(index: VoxelIndex, density: Tensor, sh: Tensor, quantization: Tensor | None = None) -> PackedGrid:
    """Packs a grid, or a stack of grids, that is on a GPU.

    Args:
        quantization: float32 ``[2, 27]``, where each of ``sh`` is a whole number 0 to 255 times its column's entry in
            the second row plus that in the first. Rows are then bytes, which read faster.
    """
    density, sh = density.detach(), sh.detach()
    packed = torch.ops.plenoxel.pack_grid(
        index.links, index.cell_table.words, density, sh, may_clamp(sh), index.occupied_cells, quantization
    )
    return PackedGrid(*packed, quantization)


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
    index: VoxelIndex,
    packed: PackedGrid,
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    options: RenderOptions,
    outputs: Sequence[str] = OUTPUTS,
    scene_index: Tensor | None = None,  # [N] int32
    image_width: int = 0,
) -> RayOutputs:
    """Renders rays as `ops.render_rays` does, without gradients. The bits of a ray do not depend on the other rays."""
    values = torch.ops.plenoxel.render_packed(
        *index.cell_table, *packed, origins, directions, scene_index, list(index.center), list(index.radius),
        option_numbers(options), output_bits(outputs), image_width,
    )  # fmt: skip
    return named_outputs(values, outputs)

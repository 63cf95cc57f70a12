"""A field of any size, or of nested grids, on one grid such as PeRFception's format has, and what that costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib.plenoxel.options import RenderOptions
from model.export.options import GridOptions
from model.export.sampling import FieldSampler, normalized_centers, voxel_opacity
from model.fitting.evaluation import mean_measurements, render_held_out
from model.fusion import mean_of
from model.grid import PlenoxelGrid
from model.radiance_field import RadianceField
from utils.errors import UserError
from utils.progress import Progress

if TYPE_CHECKING:
    from dataloader import Scene

_CELLS_AT_ONCE = 1 << 16
_MOST_SAMPLES = 4  # of a cell, along an axis


def on_one_grid(grid: PlenoxelGrid, options: GridOptions) -> PlenoxelGrid:
    """The grid resampled to ``resolution^3`` cells of its (outermost) box.

    A cell has the mean density per length within it, so that rays lose as much light in it as before, and the mean
    coefficients by density. Where the field's voxels are smaller, a cell is sampled at up to 64 places.

    Raises:
        UserError: no cell is opaque enough.
    """
    resolution = options.resolution
    level = torch.arange(grid.levels, device=grid.device)
    per_length = 2.0 ** (grid.levels - 1 - level)  # densities of nested grids are stored as of the outermost's voxels
    rows_level = grid.links_idx // math.prod(grid.resolution)
    sampler = FieldSampler(grid, grid.sh, grid.density.clamp(min=0) * per_length[rows_level])
    cells = _touched_cells(grid, resolution)
    density = torch.empty(len(cells), device=grid.device)
    sh = torch.empty(len(cells), grid.sh.shape[1], device=grid.device)
    with Progress(f"{resolution}^3 cells", len(cells), "cell") as meter:
        for first in range(0, len(cells), _CELLS_AT_ONCE):
            rows = slice(first, first + _CELLS_AT_ONCE)
            density[rows], sh[rows] = _mean_in_cells(sampler, grid, cells[rows], resolution)
            meter.update(len(cells[rows]))
    opacity = 1 - torch.exp(-density * (2 * min(grid.radius) / resolution))
    kept = (opacity >= options.least_opacity) & (density > 0)
    if not kept.any():
        raise UserError(f"none of the {resolution}^3 cells has an opacity of GridOptions.least_opacity = "
                        f"{options.least_opacity}; lower it")
    result = PlenoxelGrid.from_sparse(
        (resolution,) * 3, cells[kept], density[kept], sh[kept], grid.center, grid.radius
    )
    return result.replace(background=grid.background)


def _touched_cells(grid: PlenoxelGrid, resolution: int) -> Tensor:
    """Numbers, ascending, of the new cells that a voxel's interpolation reaches."""
    rows = (voxel_opacity(grid) > 0).nonzero()[:, 0]
    size = torch.tensor(grid.resolution, dtype=torch.float64, device=grid.device)
    zoom = 0.5 ** (grid.levels - 1 - grid.links_idx[rows] // math.prod(grid.resolution)).double()
    reach = zoom[:, None] * 2 / size  # a voxel's width in -1..1
    centers = normalized_centers(grid, rows)
    first, last = (((centers + sign * reach + 1) / 2 * resolution).floor().long().clamp(0, resolution - 1)
                   for sign in (-1, 1))  # fmt: skip
    touched = torch.zeros((resolution,) * 3, dtype=torch.bool, device=grid.device)
    steps = int((last - first).max()) + 1 if len(rows) else 0
    for i in range(steps):
        for j in range(steps):
            for k in range(steps):
                cell = torch.minimum(first + torch.tensor((i, j, k), device=grid.device), last)
                touched[tuple(cell.T)] = True
    return touched.reshape(-1).nonzero()[:, 0]


def _mean_in_cells(
    sampler: FieldSampler, grid: PlenoxelGrid, cells: Tensor, resolution: int
) -> tuple[Tensor, Tensor]:
    """Density ``[N]`` and coefficients ``[N, 27]`` of cells by their numbers."""
    index = torch.stack(torch.unravel_index(cells, (resolution,) * 3), dim=-1).double()
    smallest = 2 / max(grid.resolution) * 0.5 ** (grid.levels - 1)
    count = min(_MOST_SAMPLES, max(1, math.ceil(2 / resolution / smallest)))
    density = torch.zeros(len(cells), device=grid.device)
    weighted = torch.zeros(len(cells), grid.sh.shape[1], device=grid.device)
    for offset in torch.cartesian_prod(*[torch.arange(count, device=grid.device)] * 3).reshape(-1, 3):
        part, values = sampler.weighted((index + (offset + 0.5) / count) * 2 / resolution - 1)
        density += part
        weighted += values
    return density / count**3, mean_of(weighted, density)


def measure_loss(
    before: RadianceField, after: RadianceField, scene: Scene, frames: list[int], size: tuple[int, int],
    options: RenderOptions,
) -> dict[str, float | int | None]:  # fmt: skip
    """PSNR of both fields' renders of photographs, in dB, and of how many."""
    figures: dict[str, float | int | None] = {"photographs": len(frames)}
    for name, field in (("psnr_before", before), ("psnr_after", after)):
        measured = [view.measurements() for view in render_held_out(field, scene, frames, size, options)]
        figures[name] = mean_measurements(measured)["psnr"]
    return figures

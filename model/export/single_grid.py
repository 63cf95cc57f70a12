"""A field of any size, or of nested grids, on one grid such as PeRFception's format has, and what that costs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dataloader.exposures import CAPTURE_FILE
from dataloader.field_facts import RESULTS_FILE
from dataloader.hold_out import HELD_OUT_FILE, load_held_out
from lib.plenoxel.options import RenderOptions
from model.export.options import GridOptions
from model.export.sampling import FieldSampler, normalized_centers, voxel_opacity
from model.fitting.evaluation import mean_measurements, render_held_out
from model.fitting.frames import fitted_size
from model.fusion import mean_of
from model.grid import PlenoxelGrid
from model.radiance_field import RadianceField
from model.voxel_masks import dilate
from utils.errors import UserError
from utils.files import write_json
from utils.progress import Progress

if TYPE_CHECKING:
    from dataloader import Scene

_CELLS_AT_ONCE = 1 << 16
_MOST_SAMPLES = 4  # of a cell, along an axis
_LEAST_WEIGHT = 1e-4  # so that voxels without density count where there are no others


def on_one_grid(grid: PlenoxelGrid, options: GridOptions) -> PlenoxelGrid:
    """The grid resampled to ``resolution^3`` cells of its (outermost) box.

    A cell has the mean density per length within it, so that rays lose as much light in it as before, and the mean
    coefficients by density. Where the field's voxels are smaller, a cell is sampled at up to 64 places. Cells around
    opaque ones stay, since the colours between them are interpolated.

    Raises:
        UserError: no cell is opaque enough.
    """
    resolution = options.resolution
    level = grid.links_idx // math.prod(grid.resolution)
    # Densities of nested grids are stored as of the outermost's voxels.
    per_length = grid.density * 2.0 ** (grid.levels - 1 - level)
    densities = FieldSampler(grid, None, per_length)
    colors = FieldSampler(grid, grid.sh, per_length.clamp(min=0) + _LEAST_WEIGHT)
    cells = _touched_cells(grid, resolution)
    density = torch.empty(len(cells), device=grid.device)
    sh = torch.empty(len(cells), grid.sh.shape[1], device=grid.device)
    with Progress(f"{resolution}^3 cells", len(cells), "cell") as meter:
        for first in range(0, len(cells), _CELLS_AT_ONCE):
            rows = slice(first, first + _CELLS_AT_ONCE)
            density[rows], sh[rows] = _mean_in_cells(densities, colors, grid, cells[rows], resolution)
            meter.update(len(cells[rows]))
    opaque = 1 - torch.exp(-density * (2 * min(grid.radius) / resolution)) >= options.least_opacity
    opaque &= density > 0  # not NaN
    if not opaque.any():
        raise UserError(f"none of the {resolution}^3 cells has an opacity of GridOptions.least_opacity = "
                        f"{options.least_opacity}; lower it")
    mask = torch.zeros(resolution**3, dtype=torch.bool, device=grid.device)
    mask[cells[opaque]] = True
    kept = dilate(mask.view((resolution,) * 3)).reshape(-1)[cells] & ~density.isnan()
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
    densities: FieldSampler, colors: FieldSampler, grid: PlenoxelGrid, cells: Tensor, resolution: int
) -> tuple[Tensor, Tensor]:
    """Density ``[N]`` and coefficients ``[N, 27]`` of cells by their numbers; NaN where there are no voxels."""
    index = torch.stack(torch.unravel_index(cells, (resolution,) * 3), dim=-1).double()
    smallest = 2 / max(grid.resolution) * 0.5 ** (grid.levels - 1)
    count = min(_MOST_SAMPLES, max(1, math.ceil(2 / resolution / smallest - 1e-9)))
    density, weight = (torch.zeros(len(cells), device=grid.device) for _ in range(2))
    weighted = torch.zeros(len(cells), grid.sh.shape[1], device=grid.device)
    for offset in torch.cartesian_prod(*[torch.arange(count, device=grid.device)] * 3).reshape(-1, 3):
        points = (index + (offset + 0.5) / count) * 2 / resolution - 1
        part = densities.amount(points)
        density += part if count == 1 else part.clamp(min=0)  # below 0 counts as 0, once it is interpolated
        for total, values in zip((weight, weighted), colors.weighted(points), strict=True):
            total += values
    density = torch.where(weight > 0, density / count**3, torch.nan)
    return density, mean_of(weighted, weight)


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


def write_single_grid(
    folder: Path, field: RadianceField, source: Path, options: GridOptions, scene: Scene | None, side: int,
    rendering: RenderOptions,
) -> dict[str, Any]:  # fmt: skip
    """Write a field's folder in PeRFception's format; returns its figures.

    Exposures and the record of held-out frames come along; ``results.json`` is written where held-out photographs are
    measured.

    Args:
        folder: that receives it.
        source: the field's own folder.
        scene: whose photographs are compared with renders before and after; None measures nothing.
        side: pixels along their longer side.
    """
    single = on_one_grid(field.grid, options)
    single.save(folder, field.transform, options.bits)
    for name in (CAPTURE_FILE, HELD_OUT_FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    figures: dict[str, Any] = {"voxels_before": field.grid.num_voxels, "voxels": single.num_voxels}
    if scene is None or not options.measured:
        return figures
    held_out = load_held_out(source)
    frames = [index for index, name in enumerate(scene.frames) if not held_out or name in held_out]
    frames = frames[:: -(-len(frames) // options.measured)]
    saved = RadianceField.load(folder, field.grid.device)
    loss = measure_loss(field, saved, scene, frames, fitted_size(scene.image_size, side), rendering)
    if held_out:
        write_json(folder / RESULTS_FILE, {"psnr": loss["psnr_after"], **loss})
    return {**figures, **loss, "measured": "held-out" if held_out else "recorded"}

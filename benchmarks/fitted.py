"""A fitted scene as renderers are timed on it: its grid, its recorded cameras, and what a ray meets there."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dataloader import load_scene
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.options import RenderOptions
from lib.plenoxel.reference_march import March
from model import RadianceField

CAMERAS = 8


class FittedRoom:
    """A field's grid and eight of its scene's cameras, evenly spread over the recording."""

    def __init__(self, field: Path, scan: Path, device: str = "cuda"):
        self._field = RadianceField.load(field, device)
        self.grid = self._field.grid.handle
        self._scene = load_scene(scan, RenderOptions().background_brightness)

    def rays(self, view: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Origins and directions [H * W, 3] of one of the cameras at this size."""
        frame = len(self._scene.frames) * view // CAMERAS
        cameras = self._scene.cameras((height, width), [frame])
        rays = self._field.view_rays(cameras.camera_to_world, cameras.intrinsics, (height, width))
        return tuple(values.reshape(-1, 3).float().contiguous() for values in rays)


class RayCounts(NamedTuple):
    """What rays meet, as means over rays."""

    cells: float  # occupied cells in which a sample is taken
    dense_cells: float  # those with a sample that has density
    samples: float  # samples with density
    voxels: float  # whose row a ray weighs
    alpha: float

    def __str__(self) -> str:
        return (
            f"a ray samples {self.cells:.1f} occupied cells, {self.dense_cells:.1f} of them with density, takes "
            f"{self.samples:.1f} samples with density from {self.voxels:.1f} voxels; alpha {self.alpha:.3f}"
        )


@torch.no_grad()
def ray_counts(grid: GridHandle, rays: tuple[Tensor, Tensor], options: RenderOptions, most: int = 2048) -> RayCounts:
    """Counts by the plain reference on rays [N, 3], of which `most` are taken evenly."""
    stride = max(1, len(rays[0]) // most)
    march = March(grid, *(values[::stride] for values in rays), options)
    count = len(march.delta)
    last_cell = last_dense = torch.full((count, 8), -2, device=grid.device)
    cells, dense_cells, samples, pairs = 0, 0, 0, []
    ray_numbers = torch.arange(count, device=grid.device)[:, None].expand(-1, 8)
    for sample in march.samples():
        inside = (sample.rows >= 0).any(-1) & ~march.stopped
        moved = inside & (sample.rows != last_cell).any(-1)
        denser = sample.active & (sample.rows != last_dense).any(-1)
        last_cell = torch.where(inside[:, None], sample.rows, last_cell)
        last_dense = torch.where(sample.active[:, None], sample.rows, last_dense)
        read = sample.active[:, None] & (sample.rows >= 0)
        pairs.append((ray_numbers[read] * len(grid.density) + sample.rows[read]).unique())
        cells, dense_cells, samples = cells + moved.sum(), dense_cells + denser.sum(), samples + sample.active.sum()
    voxels = torch.cat(pairs).unique().numel() if pairs else 0
    alpha = float(1 - march.transmittance.mean())
    return RayCounts(*(float(number) / count for number in (cells, dense_cells, samples, voxels)), alpha)

"""What recorded cameras see of a field's voxels, and the colours that voxels have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lib.plenoxel import ops
from lib.plenoxel.options import RenderOptions
from model.features import spread_features
from model.fusion import mean_of
from model.grid import PlenoxelGrid
from model.radiance_field import RAYS_AT_ONCE, RadianceField
from utils.progress import Progress
from utils.spherical_harmonics import BASIS_SIZE, sh_basis

if TYPE_CHECKING:
    from dataloader import CameraList

COLORS = ("field", "cameras")


class SeenVoxels(NamedTuple):
    """What the rays of all pixels of some cameras see of each voxel.

    weight: float32 ``[V]``, the largest rendering weight that a ray gives it, 0..1.
    basis: float32 ``[V, 9]``, the mean of the SH basis in the directions that it is seen from, by rendering weights; 0
    where it is not seen.
    """

    weight: Tensor
    basis: Tensor


@torch.no_grad()
def see_voxels(field: RadianceField, cameras: CameraList, options: RenderOptions) -> SeenVoxels:
    """Follow the rays of all pixels of ``cameras`` through the field."""
    grid = field.grid
    weight = torch.zeros_like(grid.density)
    sums = torch.zeros(grid.num_voxels, BASIS_SIZE, device=grid.device)
    evidence = torch.zeros_like(weight)
    for origins, directions in _rays(field, cameras):
        ops.max_weight(grid.handle, origins.reshape(-1, 3), directions.reshape(-1, 3), weight, options)
        part, counts = spread_features(grid, sh_basis(directions), origins, directions, options)
        sums += part
        evidence += counts
    return SeenVoxels(weight, mean_of(sums, evidence))


def voxel_colors(grid: PlenoxelGrid, seen: SeenVoxels | None = None) -> Tensor:
    """Colours float32 0..1 ``[V, 3]`` of voxels, at the photographs' average exposure.

    Args:
        seen: colours are the means of those that cameras see, by rendering weights. Without it, and of voxels that
            no camera sees, they are the means over all directions (SH of degree 0).
    """
    everywhere = torch.zeros(grid.num_voxels, BASIS_SIZE, device=grid.device)
    everywhere[:, 0] = sh_basis(torch.tensor([0.0, 0.0, 1.0]))[0]
    basis = everywhere if seen is None else torch.where(seen.basis[:, :1] > 0, seen.basis, everywhere)
    coefficients = grid.sh.view(grid.num_voxels, 3, BASIS_SIZE)
    return ((coefficients * basis[:, None]).sum(-1) + 0.5).clamp(0, 1)


def color_bytes(colors: Tensor) -> Tensor:
    """Colours 0..1 as uint8 on the CPU."""
    return (colors.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def _rays(field: RadianceField, cameras: CameraList) -> Iterator[tuple[Tensor, Tensor]]:
    """Origins and directions ``[rows, W, 3]`` of all views, as many at a time as make a batch of rays."""
    height, width = cameras.image_size
    batch = max(1, RAYS_AT_ONCE // (height * width))
    with Progress(f"what {cameras.scene}'s cameras see", len(cameras), "view") as meter:
        for first in range(0, len(cameras), batch):
            views = slice(first, first + batch)
            origins, directions = field.view_rays(
                cameras.camera_to_world[views], cameras.intrinsics[views], cameras.image_size, cameras.lens
            )
            yield origins.reshape(-1, width, 3), directions.reshape(-1, width, 3)
            meter.update(len(cameras.names[views]))

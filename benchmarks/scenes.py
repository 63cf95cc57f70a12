"""The scene that renderers are timed on: a furnished room as a sparse grid, made in code."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.plenoxel.grid import GridHandle
from lib.plenoxel.index import VoxelIndex
from utils.cameras import camera_rays, look_at

WALL = 3  # voxels
MARGIN = 8  # voxels between the room and the grid's border


def furnished_room(resolution: int = 256, seed: int = 0) -> GridHandle:
    """Hollow boxes on the floor of a hollow room, walls three voxels thick, and 0.2% of all voxels as floaters.

    At 256^3 about 1.2 million voxels. Density: 15% of the voxels under 5, the rest 10 to 120. Coefficients are smooth
    in space and fall off with the band, as in fitted scenes.
    """
    generator = torch.Generator().manual_seed(seed)
    occupied = torch.zeros(resolution, resolution, resolution, dtype=torch.bool)
    low, high = MARGIN * resolution // 256, resolution - MARGIN * resolution // 256
    _add_shell(occupied, (low, low, low), (high, high, high))
    for _ in range(14):
        _add_furniture(occupied, low, high, generator)
    occupied |= torch.rand(occupied.shape, generator=generator) < 0.002
    voxels = occupied.nonzero()
    values = _densities(len(voxels), generator), _coefficients(voxels / resolution, generator)
    return GridHandle(VoxelIndex.from_mask(occupied), *values)


def _add_shell(occupied: Tensor, begin, end) -> None:
    outer = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
    inner = tuple(slice(a + WALL, b - WALL) for a, b in zip(begin, end, strict=True))
    kept = occupied[inner].clone()
    occupied[outer] = True
    occupied[inner] = kept


def _add_furniture(occupied: Tensor, low: int, high: int, generator: torch.Generator) -> None:
    """A box on the floor, unless it would contain the cameras."""
    resolution = occupied.shape[0]
    size = [int(torch.randint(14, 56, (), generator=generator)) * resolution // 256 for _ in range(3)]
    begin = [int(torch.randint(low + 4, high - 4 - extent, (), generator=generator)) for extent in size[:2]] + [low]
    middle = [abs(start + extent / 2 - resolution / 2) for start, extent in zip(begin, size, strict=True)]
    if middle[0] < 30 * resolution / 256 and middle[1] < 30 * resolution / 256:
        return
    _add_shell(occupied, begin, [start + extent for start, extent in zip(begin, size, strict=True)])


def _densities(count: int, generator: torch.Generator) -> Tensor:
    thin = torch.rand(count, generator=generator) * 5
    solid = 10 + torch.rand(count, generator=generator) * 110
    return torch.where(torch.rand(count, generator=generator) < 0.15, thin, solid)


def _coefficients(positions: Tensor, generator: torch.Generator) -> Tensor:
    waves = torch.sin(2 * math.pi * positions @ torch.randn(3, 27, generator=generator))
    return waves * 0.3 * torch.tensor([1.5, *[0.3] * 3, *[0.15] * 5]).repeat(3)


def room_rays(view: int, size: tuple[int, int], focal: float) -> tuple[Tensor, Tensor]:
    """Origins and directions [H * W, 3] of one of eight views from the middle of the room, turning round."""
    angle = torch.tensor(2 * math.pi * view / 8)
    eye = torch.tensor([0.05 * view / 8, -0.03, 0.02])
    target = eye + torch.stack([torch.cos(angle), torch.sin(angle), torch.tensor(-0.15)])
    height, width = size
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    origins, directions = camera_rays(look_at(eye, target), intrinsics, height, width)
    return origins.reshape(-1, 3).contiguous(), directions.reshape(-1, 3).contiguous()

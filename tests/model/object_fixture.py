"""Captures without depth, drawn exactly: an object seen from around it, and the box room with sparse points."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.dataloader.scannet_fixture import fixture_intrinsics, fixture_poses, trace_room
from tests.dataloader.scene_exports import Capture
from utils.cameras import camera_rays, look_at, unproject
from utils.images import resize_image

CENTER = (0.4, -0.3, 0.2)
HALF_SIDES = (0.5, 0.35, 0.6)
_SUPERSAMPLING = 3


def object_capture(count: int = 30, size: tuple[int, int] = (48, 56), scale: float = 1.0) -> Capture:
    """RGBA pictures of a coloured block, from cameras at three of its sizes, on all sides.

    Args:
        scale: everything, cameras too, is this much larger.
    """
    index = torch.arange(count, dtype=torch.float64) + 0.5
    height = 0.9 - 1.5 * index / count
    around = index * 2.399963  # the golden angle spreads them evenly
    ring = (1 - height**2).sqrt()
    eyes = 3.0 * torch.stack((ring * around.cos(), ring * around.sin(), height), -1)
    poses = look_at(eyes, torch.zeros(3, dtype=torch.float64))
    focal = 1.6 * size[1]
    intrinsics = torch.tensor([[focal, 0, size[1] / 2 + 0.7], [0, focal, size[0] / 2 - 0.4], [0, 0, 1]]).double()
    images = [_draw_block(pose, intrinsics, size) for pose in poses]
    poses[:, :3, 3] *= scale
    return Capture(images, poses, intrinsics)


def _draw_block(pose: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 ``[4, H, W]``, with soft edges."""
    fine = (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING)
    scale = torch.tensor([[_SUPERSAMPLING], [_SUPERSAMPLING], [1.0]], dtype=torch.float64)
    origins, directions = (rays.double() for rays in camera_rays(pose, intrinsics * scale, *fine))
    relative = origins - torch.tensor(CENTER, dtype=torch.float64)
    sides = torch.tensor(HALF_SIDES, dtype=torch.float64)
    first, second = (-sides - relative) / directions, (sides - relative) / directions
    entry, leave = torch.minimum(first, second).amax(-1), torch.maximum(first, second).amin(-1)
    hit = (entry < leave).double()
    points = relative + entry[..., None] * directions
    color = 0.5 + 0.4 * torch.sin(5 * points + torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    alpha = resize_image(hit[None], size)
    color = resize_image(color.movedim(-1, 0) * hit, size) / alpha.clamp(min=1e-9)
    return (torch.cat((color, alpha)) * 255).round().clamp(0, 255).to(torch.uint8)


def room_capture(count: int = 24, size: tuple[int, int] = (60, 80), points: int = 1500) -> Capture:
    """The box room of the ScanNet fixture with sparse points on its walls, some of them far off."""
    intrinsics, poses = fixture_intrinsics(size), fixture_poses(count)
    generator = torch.Generator().manual_seed(0)
    images, places, colors = [], [], []
    for pose in poses:
        color, depth = trace_room(pose, intrinsics, size)
        row = torch.randint(size[0], (points // count,), generator=generator)
        column = torch.randint(size[1], (points // count,), generator=generator)
        uv = torch.stack((column, row), -1) + 0.5
        places.append(unproject(uv.double(), depth[row, column], intrinsics, pose))
        colors.append(color[:, row, column].T)
        images.append(color)
    places = torch.cat(places)
    places[::200] *= 40.0  # what structure from motion finds through windows
    return Capture(images, poses, intrinsics, places, torch.cat(colors).int())

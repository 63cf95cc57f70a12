"""Scans that trainings are timed on: a furnished room's mesh, poses in it, and a field of its surfaces, as files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.room_mesh import ROOM, room_cameras, room_mesh
from dataloader import SceneTransform
from dataloader.perfception import FIELD_PREFIX
from dataloader.synthesis.scene_folder import write_ply
from model import PlenoxelGrid
from utils.cameras import rigid_inverse
from utils.images import write_image

PHOTOGRAPH = (48, 64)  # nothing but their size is looked at
_GRID = 0.9  # of the grid's half side that half of the room's longest side takes


def write_scan(folder: Path, name: str, views: int, seed: int, num_faces: int, resolution: int) -> None:
    """A scan in ScanNet's layout, ``folder/scans/NAME``, and its field, ``folder/fields/plenoxel_scannet_NAME``.

    Args:
        views: recorded poses.
        num_faces: of the mesh, about.
        resolution: of the grid; at 256 it has some 230,000 voxels, as published fields have.
    """
    vertices, faces = room_mesh(num_faces, seed)
    scan = folder / "scans" / name
    labels = np.array([1, 2, 3, 5, 7], np.uint16)[np.arange(len(vertices)) // 997 % 5]
    colors = np.full((len(vertices), 3), 127, np.uint8)
    scan.mkdir(parents=True)
    for suffix, given in (("", None), (".labels", labels)):
        write_ply(scan / f"{name}_vh_clean_2{suffix}.ply", vertices.numpy(), colors, faces.numpy(), given)
    for part in ("pose", "intrinsic"):
        (scan / part).mkdir()
    height, width = PHOTOGRAPH
    intrinsics = np.diag([0.9 * width, 0.9 * width, 1.0, 1.0])
    intrinsics[:2, 2] = width / 2, height / 2
    for camera in ("color", "depth"):
        np.savetxt(scan / "intrinsic" / f"intrinsic_{camera}.txt", intrinsics)
        np.savetxt(scan / "intrinsic" / f"extrinsic_{camera}.txt", np.eye(4))
    grey = torch.full((3, *PHOTOGRAPH), 127, dtype=torch.uint8)
    for view, pose in enumerate(rigid_inverse(room_cameras(views, seed))):
        np.savetxt(scan / "pose" / f"{view}.txt", pose.numpy())
        write_image(scan / "color" / f"{view}.jpg", grey)
    grid, transform = surface_field(vertices, faces, resolution, seed)
    grid.save(folder / "fields" / f"{FIELD_PREFIX}{name}", transform)


def surface_field(vertices: Tensor, faces: Tensor, resolution: int, seed: int) -> tuple[PlenoxelGrid, SceneTransform]:
    """A grid of the voxels that a room's mesh touches, with random values, and its placement."""
    transform = SceneTransform(torch.eye(4), torch.from_numpy(ROOM / 2), _GRID / (ROOM.max() / 2))
    corners = vertices[faces.long()]  # [F, 3, xyz]
    points = torch.cat((vertices, corners.mean(1), *((corners[:, k] + corners[:, k - 1]) / 2 for k in range(3))))
    voxels = ((transform.points_to_grid(points) + 1) / 2 * resolution).long().clamp(0, resolution - 1)
    occupied = torch.zeros((resolution,) * 3, dtype=torch.bool)
    occupied[tuple(voxels.T)] = True
    count = int(occupied.sum())
    generator = torch.Generator().manual_seed(seed)
    density = 10 + 90 * torch.rand(count, generator=generator)
    sh = torch.randn(count, 27, generator=generator) * math.sqrt(0.1)
    return PlenoxelGrid.from_mask(occupied, density, sh), transform

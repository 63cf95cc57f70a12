"""A tiny scene in ScanNet's layout whose labels are painted in its colours, for tests of any room.

Use: ``from tests.dataloader.scannet_fixture import write_scannet_scene``.

A box room of 4 x 3 x 2.5 m with +Z up. Each wall, the floor and the ceiling is a grid of patches; every patch is
one NYU40 class and has that class's benchmark colour, so colour and annotation images of a view must agree.
Images are ray-traced exactly at pixel centres.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from utils.cameras import camera_rays, look_at, ray_length_to_depth
from utils.depth_images import write_depth
from utils.images import write_image
from utils.labels import label_set

ROOM = (4.0, 3.0, 2.5)
PATCHES = 4  # patches along each edge of a face of the room


def write_scannet_scene(
    folder: Path | str,
    size: tuple[int, int] = (48, 64),
    depth_size: tuple[int, int] | None = None,
    num_frames: int = 12,
    lost_frames: tuple[int, ...] = (3,),
    image_format: str = "png",
    with_labels: bool = True,
) -> Path:
    """Write the scene and return its folder.

    Args:
        folder: becomes the scene; its name is the scene's name.
        size: (height, width) of the colour images.
        depth_size: of the depth images; default the same.
        num_frames: frames 0..n-1 along a circle, looking outwards (so that sorting by text goes wrong from 11 on).
        lost_frames: these get a pose of -inf.
        image_format: "png" (exact colours) or "jpg".
        with_labels: whether the labelled mesh holds labels.
    """
    folder = Path(folder)
    depth_size = depth_size or size
    intrinsics, depth_intrinsics = fixture_intrinsics(size), fixture_intrinsics(depth_size)
    for frame, pose in enumerate(fixture_poses(num_frames)):
        color, _ = trace_room(pose, intrinsics, size)
        _, depth = trace_room(pose, depth_intrinsics, depth_size)
        write_image(folder / "color" / f"{frame}.{image_format}", color)
        write_depth(folder / "depth" / f"{frame}.png", depth)
        written = torch.full((4, 4), -torch.inf) if frame in lost_frames else pose
        _write_matrix(folder / "pose" / f"{frame}.txt", written)
    for camera, matrix in (("color", intrinsics), ("depth", depth_intrinsics)):
        homogeneous = torch.eye(4, dtype=torch.float64)
        homogeneous[:3, :3] = matrix
        _write_matrix(folder / "intrinsic" / f"intrinsic_{camera}.txt", homogeneous)
        _write_matrix(folder / "intrinsic" / f"extrinsic_{camera}.txt", torch.eye(4))
    write_room_mesh(folder / f"{folder.name}_vh_clean_2.ply", with_labels=False)
    write_room_mesh(folder / f"{folder.name}_vh_clean_2.labels.ply", with_labels=with_labels)
    return folder


def fixture_intrinsics(size: tuple[int, int]) -> Tensor:
    """Intrinsics float64 ``[3, 3]`` of the scene's camera at ``size``: pixels are not square, the centre is off."""
    height, width = size
    return torch.tensor(
        [[0.80 * width, 0.0, 0.49 * width], [0.0, 1.05 * height, 0.52 * height], [0.0, 0.0, 1.0]], dtype=torch.float64
    )


def fixture_poses(count: int) -> Tensor:
    """Camera-to-world float64 ``[count, 4, 4]``: on a small circle in the middle of the room, looking outwards."""
    angle = torch.arange(count, dtype=torch.float64) * (2 * torch.pi / count) + 0.3
    outwards = torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), dim=-1)
    eye = torch.tensor([2.0, 1.5, 1.3], dtype=torch.float64) + 0.4 * outwards
    return look_at(eye, eye + outwards + torch.tensor([0.0, 0.0, -0.2], dtype=torch.float64))


def room_class(points: Tensor) -> Tensor:
    """Class index int64 ``[...]`` of points ``[..., 3]`` on the room's surface."""
    room = points.new_tensor(ROOM)
    relative = points / room
    distance = torch.cat((relative, 1 - relative), dim=-1)
    face = distance.argmin(dim=-1)
    axis = face % 3
    along = (relative * PATCHES).floor().long().clamp(0, PATCHES - 1)
    first = along.gather(-1, ((axis + 1) % 3)[..., None])[..., 0]
    second = along.gather(-1, ((axis + 2) % 3)[..., None])[..., 0]
    return 1 + (face * 7 + first * 3 + second * 5) % 20


def trace_room(camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Colour uint8 ``[3, H, W]`` and optical-axis depth ``[H, W]`` of the room from inside."""
    label, depth = trace_room_labels(camera_to_world, intrinsics, size)
    return torch.from_numpy(label_set().colors)[label].permute(2, 0, 1), depth


def trace_room_labels(camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Class index int64 ``[H, W]`` and depth ``[H, W]``."""
    origins, directions = (rays.double() for rays in camera_rays(camera_to_world, intrinsics, *size))
    room = torch.tensor(ROOM, dtype=torch.float64)
    to_wall = torch.where(directions > 0, room - origins, -origins) / directions
    distance = to_wall.amin(dim=-1)
    points = origins + distance[..., None] * directions
    return room_class(points), ray_length_to_depth(distance, intrinsics)


def write_room_mesh(path: Path, with_labels: bool, subdivisions: int = 2) -> None:
    """The room as binary PLY triangles; each patch has vertices of its own, so its labels do not blend."""
    vertices, faces = _room_patches(subdivisions)
    label = room_class(vertices.reshape(-1, (subdivisions + 1) ** 2, 3).mean(dim=1))
    label = label.repeat_interleave((subdivisions + 1) ** 2)
    fields = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("alpha", "u1")]
    table = np.zeros(len(vertices), dtype=fields + ([("label", "u2")] if with_labels else []))
    for k, axis in enumerate("xyz"):
        table[axis] = vertices[:, k].numpy()
    for k, channel in enumerate(("red", "green", "blue")):
        table[channel] = label_set().colors[label.numpy()][:, k]
    table["alpha"] = 255
    if with_labels:
        table["label"] = np.array(label_set().ids)[label.numpy()]
    face_table = np.zeros(len(faces), dtype=[("vertex_indices", "i4", (3,))])
    face_table["vertex_indices"] = faces.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    PlyData([PlyElement.describe(table, "vertex"), PlyElement.describe(face_table, "face")]).write(str(path))


def _room_patches(subdivisions: int) -> tuple[Tensor, Tensor]:
    steps = torch.linspace(0, 1, subdivisions + 1, dtype=torch.float64)
    first, second = (grid.reshape(-1) for grid in torch.meshgrid(steps, steps, indexing="ij"))
    corner = torch.arange((subdivisions + 1) ** 2).reshape(subdivisions + 1, -1)
    a, b, c, d = (part.reshape(-1) for part in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    patch_faces = torch.cat((torch.stack((a, b, c), -1), torch.stack((a, c, d), -1)))
    vertices, faces = [], []
    for side in (0.0, 1.0):
        for axis in range(3):
            for i in range(PATCHES):
                for j in range(PATCHES):
                    points = torch.full((len(first), 3), side, dtype=torch.float64)
                    points[:, (axis + 1) % 3] = (first + i) / PATCHES
                    points[:, (axis + 2) % 3] = (second + j) / PATCHES
                    faces.append(patch_faces + sum(map(len, vertices)))
                    vertices.append(points * torch.tensor(ROOM, dtype=torch.float64))
    return torch.cat(vertices), torch.cat(faces).int()


def _write_matrix(path: Path, matrix: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, matrix.double().numpy(), fmt="%.9f")

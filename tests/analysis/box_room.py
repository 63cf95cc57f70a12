"""A box room with box-shaped objects, ray cast exactly: labels and depth of any camera without mesh or rasterizer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from dataloader import CameraList, Mesh, ViewStoreWriter
from dataloader.synthesis.scene_folder import write_ply
from tests.dataloader.scannet_fixture import write_scannet_scene
from utils.cameras import camera_rays, look_at, project, seen_pixels
from utils.labels import class_index, label_set

SIZE = (48, 64)
INTRINSICS = torch.tensor([[50.0, 0.0, 32.0], [0.0, 50.0, 24.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
ROOM = ((0.0, 0.0, 0.0), (5.0, 4.0, 2.5))
OBJECTS = (
    ("sink", (2.2, 1.7, 0.0), (2.8, 2.3, 0.9)),
    ("toilet", (0.2, 0.2, 0.0), (0.7, 0.8, 0.7)),
    ("table", (3.6, 2.6, 0.0), (4.8, 3.8, 0.75)),
)
_SIDES = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))


def _slabs(origins, directions, low, high):
    low, high = torch.tensor(low, dtype=origins.dtype), torch.tensor(high, dtype=origins.dtype)
    first, second = (low - origins) / directions, (high - origins) / directions
    return torch.minimum(first, second), torch.maximum(first, second)


def ray_cast(poses, intrinsics=INTRINSICS, size=SIZE, lens=None):
    """Class index uint8 ``[N, H, W]`` and depth float32 ``[N, H, W]``; 0 in pixels that the lens does not see."""
    origins, directions = (x.double() for x in camera_rays(poses, intrinsics, *size, lens))
    _, leaving = _slabs(origins, directions, *ROOM)
    distance, axis = leaving.min(-1)
    is_floor = (axis == 2) & (directions[..., 2] < 0)
    labels = torch.where(is_floor, class_index("floor"), class_index("wall"))
    labels = torch.where((axis == 2) & (directions[..., 2] > 0), 0, labels)  # a ceiling has no benchmark class
    for name, low, high in OBJECTS:
        near, far = _slabs(origins, directions, low, high)
        entry, leave = near.max(-1).values, far.min(-1).values
        hit = (entry < leave) & (entry > 0) & (entry < distance)
        distance = torch.where(hit, entry, distance)
        labels = torch.where(hit, class_index(name), labels)
    if lens is not None and lens.is_fisheye:
        seen = seen_pixels(intrinsics, size, lens)
        return torch.where(seen, labels, 0).to(torch.uint8), torch.where(seen, distance, 0.0).float()
    forward = poses[..., None, None, :3, 2].double()
    return labels.to(torch.uint8), (distance * (directions * forward).sum(-1)).float()


def mesh() -> Mesh:
    """The same room as triangles; every side has its own vertices, so that labels do not mix."""
    vertices, faces, labels = [], [], []
    for name, low, high in (("room", *ROOM), *OBJECTS):
        for axis, end in _SIDES:
            corners = np.array([[x, y] for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))], dtype=float)
            quad = np.insert(corners, axis, end, axis=1) * (np.array(high) - low) + low
            faces += [[len(vertices), len(vertices) + 1, len(vertices) + 2],
                      [len(vertices), len(vertices) + 2, len(vertices) + 3]]
            vertices += quad.tolist()
            own = 1 if name == "room" else label_set().ids[class_index(name)]
            nyu40 = {(2, 0): 2, (2, 1): 22}.get((axis, end), own) if name == "room" else own
            labels += [nyu40] * 4
    return Mesh(torch.tensor(vertices, dtype=torch.float32), torch.tensor(faces, dtype=torch.int32), None,
                torch.tensor(labels, dtype=torch.int32))


def trajectory(count: int = 12) -> torch.Tensor:
    """Views from a circle around the sink, in turn towards the sink and towards the room's corners."""
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    eyes = torch.stack((2.5 + 1.5 * angles.cos(), 2.0 + 1.3 * angles.sin(), torch.full_like(angles, 1.5)), dim=-1)
    sink, toilet = torch.tensor([2.5, 2.0, 0.45]).double(), torch.tensor([0.45, 0.5, 0.35]).double()
    return look_at(eyes, torch.stack([toilet if k % 4 == 3 else sink for k in range(count)]))


def camera_list(poses, scene="room", info=None) -> CameraList:
    """A camera list of ``poses``, numbered frames."""
    return CameraList(
        scene=scene, names=[str(k) for k in range(len(poses))], camera_to_world=poses,
        intrinsics=INTRINSICS.expand(len(poses), 3, 3).clone(), image_size=SIZE,
        info=info or [{} for _ in range(len(poses))],
    )


def write_store(
    path: Path, poses=None, with_sh: bool = True, labels=None, depth=None, attributes=None
) -> Path:
    """A finished view store: rgb and SH depend on the class, SH also through a channel that rgb does not show."""
    poses = trajectory() if poses is None else poses
    true_labels, true_depth = ray_cast(poses)
    labels, depth = true_labels if labels is None else labels, true_depth if depth is None else depth
    channels = {"rgb": ("uint8", (3, *SIZE)), "depth": ("uint16", SIZE), "alpha": ("uint8", SIZE),
                "label": ("uint8", SIZE)}
    if with_sh:
        channels["sh"] = ("float16", (27, *SIZE))
    writer = ViewStoreWriter.create(path, camera_list(poses, Path(path).name), channels, {"test": True},
                                    attributes=attributes)
    random = torch.Generator().manual_seed(0)
    for view in writer.pending():
        noise = torch.rand(30, *SIZE, generator=random)
        rgb = (noise[:3] * 100 + true_labels[view] // 2).to(torch.uint8)
        values = {"rgb": rgb, "depth": depth[view], "label": labels[view],
                  "alpha": torch.ones(SIZE)}
        if with_sh:
            sh = noise[3:].clone()
            sh[5] += true_labels[view]
            values["sh"] = sh
        writer.write(view, values)
    writer.finish()
    return Path(path)


def pixel_of(point, pose) -> torch.Tensor:
    """Where a world point appears in a camera at ``pose``."""
    return project(torch.as_tensor(point, dtype=torch.float64), INTRINSICS, pose)[0]


def write_scan(folder: Path) -> Path:
    """A ScanNet folder whose labelled mesh is this room; its photographs are of another one."""
    folder = write_scannet_scene(folder, num_frames=2, lost_frames=())
    room = mesh()
    write_ply(folder / f"{folder.name}_vh_clean_2.labels.ply", room.vertices.numpy(),
              np.zeros((len(room.vertices), 3), np.uint8), room.faces.numpy(), room.labels.numpy().astype(np.uint16))
    return folder

"""One set of cameras and images written in each of the layouts without depth, for tests of any room."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.cameras import look_at, rigid_inverse
from utils.images import write_image


@dataclass
class Capture:
    """Images uint8 ``[3 or 4, H, W]``, poses float64 ``[N, 4, 4]`` (OpenCV), intrinsics ``[3, 3]``, points, colours."""

    images: list[Tensor]
    poses: Tensor
    intrinsics: Tensor
    points: Tensor | None = None
    point_colors: Tensor | None = None
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # k1, k2, p1, p2

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.images[0].shape[-2:])

    @property
    def names(self) -> list[str]:
        return [f"{index}" for index in range(len(self.images))]


def write_nsvf(folder: Path, capture: Capture, bounds: list[float] | None = None) -> Path:
    for name, image, pose in zip(capture.names, capture.images, capture.poses, strict=True):
        write_image(folder / "rgb" / f"{name}.png", image)
        (folder / "pose").mkdir(exist_ok=True)
        np.savetxt(folder / "pose" / f"{name}.txt", pose.numpy(), fmt="%.10f")
    matrix = np.eye(4)
    matrix[:3, :3] = capture.intrinsics.numpy()
    np.savetxt(folder / "intrinsics.txt", matrix)
    if bounds is not None:
        (folder / "bbox.txt").write_text(" ".join(map(str, bounds)) + " 0.1\n")
    return folder


def transforms(capture: Capture, suffix: str = ".png") -> dict:
    """The content of transforms.json."""
    (fx, _, cx), (_, fy, cy), _ = capture.intrinsics.tolist()
    poses = capture.poses.clone()
    poses[:, :3, 1:3] *= -1
    frames = [{"file_path": f"./images/{name}{suffix}", "transform_matrix": pose.tolist()}
              for name, pose in zip(capture.names, poses, strict=True)]  # fmt: skip
    values = dict(zip(("k1", "k2", "p1", "p2"), capture.distortion, strict=True))
    return {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "h": capture.size[0], "w": capture.size[1], **values,
            "frames": frames}  # fmt: skip


def write_transforms(folder: Path, capture: Capture, content: dict | None = None) -> Path:
    for name, image in zip(capture.names, capture.images, strict=True):
        write_image(folder / "images" / f"{name}.png", image)
    (folder / "transforms.json").write_text(json.dumps(content or transforms(capture)))
    return folder


def quaternion(rotation: Tensor) -> list[float]:
    """(w, x, y, z) of a rotation ``[3, 3]``, by scipy, so that the reader's formula has another to agree with."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation.numpy()).as_quat()
    return [float(w), float(x), float(y), float(z)]


def camera_parameters(capture: Capture, model: str) -> list[float]:
    """Parameters of a COLMAP camera model, as its documentation orders them."""
    (fx, _, cx), (_, fy, cy), _ = capture.intrinsics.tolist()
    k1, k2, p1, p2 = capture.distortion
    return {
        "SIMPLE_PINHOLE": [fx, cx, cy], "PINHOLE": [fx, fy, cx, cy], "SIMPLE_RADIAL": [fx, cx, cy, k1],
        "RADIAL": [fx, cx, cy, k1, k2], "OPENCV": [fx, fy, cx, cy, k1, k2, p1, p2],
        "OPENCV_FISHEYE": [fx, fy, cx, cy, k1, k2, p1, p2],
    }[model]  # fmt: skip


MODEL_NUMBERS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5}


def write_colmap(folder: Path, capture: Capture, model: str = "PINHOLE", binary: bool = True) -> Path:
    for name, image in zip(capture.names, capture.images, strict=True):
        write_image(folder / "images" / f"{name}.png", image)
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True, exist_ok=True)
    (_write_binary if binary else _write_text)(sparse, capture, model)
    return folder


def _write_text(sparse: Path, capture: Capture, model: str) -> None:
    height, width = capture.size
    parameters = " ".join(map(repr, camera_parameters(capture, model)))
    (sparse / "cameras.txt").write_text(f"# Camera list\n7 {model} {width} {height} {parameters}\n")
    lines = ["# Image list", "# two lines each"]
    for index, (name, pose) in enumerate(zip(capture.names, rigid_inverse(capture.poses), strict=True)):
        numbers = [*quaternion(pose[:3, :3]), *pose[:3, 3].tolist()]
        lines += [f"{index + 1} {' '.join(map(repr, numbers))} 7 {name}.png", "" if index % 2 else "1.5 2.5 -1 3 4 1"]
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{index} {x!r} {y!r} {z!r} {r} {g} {b} 0.5 1 0 2 0" for index, ((x, y, z), (r, g, b))
            in enumerate(zip(*_points(capture), strict=True))]  # fmt: skip
    (sparse / "points3D.txt").write_text("\n".join(["# points", *rows]) + "\n")


def _write_binary(sparse: Path, capture: Capture, model: str) -> None:
    height, width = capture.size
    parameters = camera_parameters(capture, model)
    head = struct.pack("<QiiQQ", 1, 7, MODEL_NUMBERS[model], width, height)
    (sparse / "cameras.bin").write_bytes(head + struct.pack(f"<{len(parameters)}d", *parameters))
    content = struct.pack("<Q", len(capture.images))
    for index, (name, pose) in enumerate(zip(capture.names, rigid_inverse(capture.poses), strict=True)):
        content += struct.pack("<i7d", index + 1, *quaternion(pose[:3, :3]), *pose[:3, 3].tolist())
        content += struct.pack("<i", 7) + f"{name}.png".encode() + b"\0"
        seen = index % 3
        content += struct.pack("<Q", seen) + struct.pack("<ddq", 1.5, 2.5, -1) * seen
    (sparse / "images.bin").write_bytes(content)
    positions, colors = _points(capture)
    content = struct.pack("<Q", len(positions))
    for index, (position, color) in enumerate(zip(positions, colors, strict=True)):
        seen = index % 4
        content += struct.pack("<Q3d3BdQ", index, *position, *color, 0.5, seen) + struct.pack("<ii", 1, 2) * seen
    (sparse / "points3D.bin").write_bytes(content)


def _points(capture: Capture) -> tuple[list, list]:
    if capture.points is None:
        return [], []
    return capture.points.tolist(), capture.point_colors.tolist()


def random_capture(
    count: int = 5, size: tuple[int, int] = (24, 32), channels: int = 3, square: bool = False
) -> Capture:
    """Noise from cameras on a circle; with ``square`` pixels for models that have one focal length."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.arange(count, dtype=torch.float64) * 2.3
    eye = torch.stack((3 * angle.cos(), 3 * angle.sin(), 0.3 * angle), -1)
    images = [torch.randint(256, (channels, *size), generator=generator, dtype=torch.uint8) for _ in range(count)]
    fy = 40.0 if square else 37.5
    intrinsics = torch.tensor([[40.0, 0, 15.2], [0, fy, 12.7], [0, 0, 1]], dtype=torch.float64)
    points = torch.rand(20, 3, generator=generator, dtype=torch.float64) - 0.5
    colors = torch.randint(256, (20, 3), generator=generator)
    return Capture(images, look_at(eye, torch.zeros(3, dtype=torch.float64)), intrinsics, points, colors)


LAYOUTS = {
    "nsvf": write_nsvf,
    "instant-ngp": write_transforms,
    "colmap": write_colmap,
    "colmap text": lambda folder, capture: write_colmap(folder, capture, binary=False),
}

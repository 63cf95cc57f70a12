"""Scene folders in NSVF's layout (Liu et al. 2020): Synthetic-NSVF, and its BlendedMVS and Tanks and Temples.

``rgb/NAME.png``, ``pose/NAME.txt`` (4x4 or 3x4 camera-to-world, OpenCV axes), ``intrinsics.txt``; optional
``bbox.txt`` (x y z of the lower corner, x y z of the upper, voxel size). Names may begin with ``0_`` (train), ``1_``
(val) or ``2_`` (test). ``near_and_far.txt`` bounds the samples along rays, which a voxel grid's box does already; it
is not read. ``intrinsics.txt`` is a 4x4 or 3x3 matrix, the same in one line, or Synthetic-NSVF's:

    focal cx cy 0.        lines without camera parameters        height width
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dataloader.calibrated_camera import CalibratedCamera
from dataloader.file_finder import IMAGE_SUFFIXES
from dataloader.posed_images import PosedImage, build_scene
from dataloader.scannet_files import frame_files, read_intrinsics, read_numbers
from dataloader.scene import Scene
from utils.errors import UserError, reading, short
from utils.files import read_text

IMAGE_FOLDERS = ("rgb", "images", "image")
POSE_FOLDERS = ("pose", "poses")
_SPLITS = {"0_": "train", "1_": "val", "2_": "test"}


def load_nsvf_scene(path: Path, background: float) -> Scene:
    """Open a scene folder in NSVF's layout; reads poses and image headers, no pixels.

    Args:
        background: grey level, 0 to 1, behind transparent pixels.

    Raises:
        UserError: files are missing or malformed, or no frame is valid.
    """
    images = _first_folder(path, IMAGE_FOLDERS, IMAGE_SUFFIXES)
    poses = _first_folder(path, POSE_FOLDERS, (".txt",))
    read_camera = _camera_reader(path / "intrinsics.txt")
    splits = {name: _SPLITS.get(name[:2]) for name in images}
    posed = [
        PosedImage(file, file.name, _read_pose(poses.get(name)), read_camera, splits[name])
        for name, file in images.items()
    ]
    return build_scene(path, "NSVF", posed, background, bounds=_read_bounds(path / "bbox.txt"))


def _first_folder(path: Path, names: tuple[str, ...], suffixes: tuple[str, ...]) -> dict[str, Path]:
    for name in names:
        if files := frame_files(path / name, suffixes):
            return files
    raise UserError(f"{path / names[0]} holds no files {'/'.join(suffixes)}; expected one for each frame of a scene in "
                    "NSVF's layout (rgb/NAME.png, pose/NAME.txt, intrinsics.txt)")


def _read_pose(path: Path | None) -> Tensor:
    """Camera-to-world ``[4, 4]``; another shape when the file is absent or malformed."""
    numbers = read_numbers(path) if path is not None else None
    if numbers is None or len(numbers) not in (12, 16):
        return torch.empty(0, dtype=torch.float64)
    bottom = [0.0, 0.0, 0.0, 1.0]
    return torch.tensor(numbers[:12] + (numbers[12:] or bottom), dtype=torch.float64).reshape(4, 4)


def _camera_reader(path: Path) -> Callable[[tuple[int, int]], CalibratedCamera]:
    """The camera of ``intrinsics.txt``, for images of a (height, width)."""
    rows = _number_rows(path)
    if sum(map(len, rows)) in (9, 16):
        return lambda size: _matrix_camera(path, size)
    if len(rows[0]) < 3:
        raise UserError(f"{path} holds {sum(map(len, rows))} numbers; expected a 4x4 or 3x3 matrix, or a first line "
                        "'focal cx cy 0'")
    focal, center_x, center_y = rows[0][:3]
    written_size = tuple(int(side) for side in rows[-1]) if len(rows) > 1 and len(rows[-1]) == 2 else None

    def camera_of(size: tuple[int, int]) -> CalibratedCamera:
        camera = CalibratedCamera(written_size or size, (focal, focal), (center_x, center_y), source=str(path))
        return camera.resized(size)

    return camera_of


def _matrix_camera(path: Path, size: tuple[int, int]) -> CalibratedCamera:
    matrix = read_intrinsics(path, size)
    (fx, skew, cx), (_, fy, cy) = matrix[:2].tolist()
    if abs(skew) > 1e-6 * fx:
        raise UserError(f"{path}: its pixels are skewed ({skew:g} in the first row); expected 0 there")
    return CalibratedCamera(size, (fx, fy), (cx, cy), source=str(path))


def _number_rows(path: Path) -> list[list[float]]:
    """Numbers of each line that has any."""
    what, advice = "rows of finite numbers", "expected a 4x4 or 3x3 matrix, or a first line 'focal cx cy 0'"
    text = read_text(path, what, advice).replace(",", " ")
    with reading(path, what, advice):
        rows = [[float(word) for word in line.split()] for line in text.splitlines() if line.strip()]
        if not rows or not all(math.isfinite(number) for row in rows for number in row):
            raise ValueError("it is empty, or holds NaN or infinity")
    return rows


def _read_bounds(path: Path) -> Tensor | None:
    """Corners ``[2, 3]`` of the box; None without the file."""
    if not path.exists():
        return None
    numbers = read_numbers(path) or []
    corners = torch.tensor(numbers[:6], dtype=torch.float64)
    if len(numbers) not in (6, 7) or not torch.isfinite(corners).all() or not (corners[3:] > corners[:3]).all():
        raise UserError(f"{path} holds {short(numbers)}; expected the lower corner (x y z), the upper corner and, if "
                        "you like, a voxel size: correct or delete it")
    return corners.reshape(2, 3)

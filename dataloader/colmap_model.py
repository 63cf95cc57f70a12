"""COLMAP's sparse models: cameras, images and points3D, as text or binary files.

https://colmap.github.io/format.html. Poses are world-to-camera, as a quaternion (w, x, y, z) and a translation;
pixel centres are at +0.5, and axes are OpenCV's, as everywhere here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.lens import Lens
from dataloader.scene import SparsePoints
from utils.cameras import rigid_inverse
from utils.errors import UserError, reading, short
from utils.names import readable_path
from utils.rotations import quaternion_to_matrix

# Name, number of parameters, and where among them are fx, fy, cx, cy, then the distortion (k1, k2, p1, p2).
_MODELS = {
    "SIMPLE_PINHOLE": (3, (0, 0, 1, 2), ()),
    "PINHOLE": (4, (0, 1, 2, 3), ()),
    "SIMPLE_RADIAL": (4, (0, 0, 1, 2), (3,)),
    "RADIAL": (5, (0, 0, 1, 2), (3, 4)),
    "OPENCV": (8, (0, 1, 2, 3), (4, 5, 6, 7)),
}
_MODEL_NAMES = (
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV",
    "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE",
)  # fmt: skip


@dataclass(frozen=True)
class ColmapImage:
    """A registered image: its name relative to the image folder, camera-to-world float64 ``[4, 4]``, camera id."""

    name: str
    camera_to_world: Tensor
    camera: int


@dataclass(frozen=True)
class ColmapModel:
    """Cameras by id, images in the file's order, and points; points are None without their file."""

    cameras: dict[int, Lens]
    images: list[ColmapImage]
    points: SparsePoints | None


def model_suffix(folder: Path) -> str | None:
    """".bin" or ".txt" for a folder with a model's cameras and images in that form; else None."""
    for suffix in (".bin", ".txt"):
        if (folder / f"cameras{suffix}").is_file() and (folder / f"images{suffix}").is_file():
            return suffix
    return None


def read_model(folder: Path) -> ColmapModel:
    """Read the model in ``folder``, binary if there is one, else text.

    Raises:
        UserError: a file is absent, damaged, or holds a camera model that is not a pinhole with at most OpenCV's
            four distortion parameters.
    """
    suffix = model_suffix(folder)
    if suffix is None:
        raise UserError(f"{folder} holds no COLMAP model; expected cameras.bin and images.bin, or both as .txt")
    binary = suffix == ".bin"
    cameras = _read(_read_cameras_binary if binary else _read_cameras_text, folder / f"cameras{suffix}")
    images = _read(_read_images_binary if binary else _read_images_text, folder / f"images{suffix}")
    for image in images:
        if image.camera not in cameras:
            raise UserError(f"{folder / f'images{suffix}'}: image {image.name} was taken by camera {image.camera}, "
                            f"which cameras{suffix} does not list; export the model again")
    path = folder / f"points3D{suffix}"
    points = _read(_read_points_binary if binary else _read_points_text, path) if path.is_file() else None
    return ColmapModel(cameras, images, points)


def _read(read: Callable[[Path], Any], path: Path) -> Any:
    with reading(path, "a COLMAP file", "export the model again (COLMAP's model_converter)"):
        return read(path)


def _lens(path: Path, camera: int, model: str, size: tuple[int, int], parameters: list[float]) -> Lens:
    count, pinhole, distortion = _MODELS[model]
    if len(parameters) != count:
        raise ValueError(f"camera {camera} of model {model} has {len(parameters)} parameters instead of {count}")
    fx, fy, cx, cy = (parameters[index] for index in pinhole)
    k1, k2, p1, p2 = [parameters[index] for index in distortion] + [0.0] * (4 - len(distortion))
    return Lens(size, (fx, fy), (cx, cy), (k1, k2, 0.0, 0.0), (p1, p2), source=str(path))


def _check_model(path: Path, camera: int, model: str) -> None:
    if model not in _MODELS:
        raise UserError(f"{path}: camera {camera} has the model {short(model)}; expected one of {', '.join(_MODELS)}: "
                        "undistort the images with COLMAP's image_undistorter, or choose one of these models")


def _image(
    source: Path, quaternion: tuple[float, ...], translation: tuple[float, ...], camera: int, name: str
) -> ColmapImage:
    world_to_camera = torch.eye(4, dtype=torch.float64)
    world_to_camera[:3, :3] = quaternion_to_matrix(quaternion)
    world_to_camera[:3, 3] = torch.tensor(translation, dtype=torch.float64)
    return ColmapImage(readable_path(name, source, "path of an image"), rigid_inverse(world_to_camera), camera)


def _text_rows(path: Path, words: int = -1) -> list[list[str]]:
    """The first words (all of them: -1) and the rest of each line that is neither blank nor a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split(None, words) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _read_cameras_text(path: Path) -> dict[int, Lens]:
    cameras = {}
    for camera, model, width, height, *parameters in _text_rows(path):
        _check_model(path, int(camera), model)
        size = (int(height), int(width))
        cameras[int(camera)] = _lens(path, int(camera), model, size, [float(word) for word in parameters])
    return cameras


def _read_images_text(path: Path) -> list[ColmapImage]:
    """Two lines per image; the second, its points, may be blank."""
    images = []
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        _, *pose, camera, name = line.strip().split(maxsplit=9)
        numbers = [float(word) for word in pose]
        if len(numbers) != 7:
            raise ValueError(f"an image with {len(numbers)} pose numbers instead of 7")
        images.append(_image(path, tuple(numbers[:4]), tuple(numbers[4:]), int(camera), name))
        next(lines, None)
    return images


def _read_points_text(path: Path) -> SparsePoints:
    rows = [row[1:7] for row in _text_rows(path, words=7)]
    numbers = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return _points(numbers[:, :3], numbers[:, 3:])


def _points(positions: np.ndarray, colors: np.ndarray) -> SparsePoints:
    with np.errstate(over="ignore"):  # points too large for float32 become infinite and are dropped
        positions = positions.astype(np.float32)
    finite = np.isfinite(positions).all(axis=1)
    if not ((colors >= 0) & (colors <= 255)).all():
        raise ValueError("a point's colour is not between 0 and 255")
    return SparsePoints(torch.from_numpy(positions[finite]), torch.from_numpy(colors[finite].astype(np.uint8)))


class _Bytes:
    """A little-endian file read from its beginning to its end."""

    def __init__(self, path: Path):
        self._content, self._at = path.read_bytes(), 0

    def take(self, layout: str) -> tuple:
        """Values in :mod:`struct`'s notation."""
        values = struct.unpack_from(f"<{layout}", self._content, self._at)
        self._at += struct.calcsize(f"<{layout}")
        return values

    def text(self) -> str:
        """Characters up to a zero byte."""
        end = self._content.index(b"\0", self._at)
        text = self._content[self._at : end].decode("utf-8")
        self._at = end + 1
        return text

    def skip(self, count: int) -> None:
        """Advance by ``count`` bytes, which must exist."""
        self._at += count
        if self._at > len(self._content):
            raise ValueError(f"the file ends at byte {len(self._content)}, expected {self._at} or more")


def _read_cameras_binary(path: Path) -> dict[int, Lens]:
    file, cameras = _Bytes(path), {}
    for _ in range(file.take("Q")[0]):
        camera, model_id, width, height = file.take("iiQQ")
        if not 0 <= model_id < len(_MODEL_NAMES):
            raise ValueError(f"camera {camera} has the unknown model number {model_id}")
        model = _MODEL_NAMES[model_id]
        _check_model(path, camera, model)
        cameras[camera] = _lens(path, camera, model, (height, width), list(file.take(f"{_MODELS[model][0]}d")))
    return cameras


def _read_images_binary(path: Path) -> list[ColmapImage]:
    file, images = _Bytes(path), []
    for _ in range(file.take("Q")[0]):
        _, *pose = file.take("i7d")
        (camera,), name = file.take("i"), file.text()
        file.skip(24 * file.take("Q")[0])  # two float64 and an int64 for each point seen
        images.append(_image(path, tuple(pose[:4]), tuple(pose[4:]), camera, name))
    return images


def _read_points_binary(path: Path) -> SparsePoints:
    file = _Bytes(path)
    count = file.take("Q")[0]
    positions, colors = [], []
    for _ in range(count):
        _, x, y, z, red, green, blue, _, seen_by = file.take("Q3d3BdQ")
        file.skip(8 * seen_by)  # two int32 for each image
        positions.append((x, y, z))
        colors.append((red, green, blue))
    return _points(np.array(positions).reshape(-1, 3), np.array(colors).reshape(-1, 3))

"""COLMAP's sparse models: cameras, images and points3D, as text or binary files.

https://colmap.github.io/format.html. Poses are world-to-camera, as a quaternion (w, x, y, z) and a translation;
pixel centres are at +0.5, and axes are OpenCV's, as everywhere here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.colmap_cameras import ColmapCamera, model_of_number
from dataloader.scene import SparsePoints
from utils.cameras import rigid_inverse
from utils.errors import UserError, reading
from utils.files import decode_text, read_text
from utils.names import readable_path
from utils.rotations import quaternion_to_matrix

_ANNOUNCED = re.compile(r"Number of images: (\d{1,9})\b")


@dataclass(frozen=True)
class ColmapImage:
    """A registered image: its name relative to the image folder, camera-to-world float64 ``[4, 4]``, camera id."""

    name: str
    camera_to_world: Tensor
    camera: int


@dataclass(frozen=True)
class ColmapModel:
    """Cameras by id, images in the file's order, and points; points are None without their file.

    ``announced`` is how many images the file says that it has, where it does.
    """

    cameras: dict[int, ColmapCamera]
    images: list[ColmapImage]
    points: SparsePoints | None
    announced: int | None = None


def model_suffix(folder: Path) -> str | None:
    """".bin" or ".txt" for a folder with a model's cameras and images in that form; else None."""
    for suffix in (".bin", ".txt"):
        if (folder / f"cameras{suffix}").is_file() and (folder / f"images{suffix}").is_file():
            return suffix
    return None


def read_model(folder: Path) -> ColmapModel:
    """Read the model in ``folder``, binary if there is one, else text.

    Raises:
        UserError: a file is absent or damaged.
    """
    suffix = model_suffix(folder)
    if suffix is None:
        raise UserError(f"{folder} holds no COLMAP model; expected cameras.bin and images.bin, or both as .txt")
    binary = suffix == ".bin"
    cameras = _read(_read_cameras_binary if binary else _read_cameras_text, folder / f"cameras{suffix}")
    images, announced = _read(_read_images_binary if binary else _read_images_text, folder / f"images{suffix}")
    for image in images:
        if image.camera not in cameras:
            raise UserError(f"{folder / f'images{suffix}'}: image {image.name} was taken by camera {image.camera}, "
                            f"which cameras{suffix} does not list; export the model again")
    path = folder / f"points3D{suffix}"
    points = _read(_read_points_binary if binary else _read_points_text, path) if path.is_file() else None
    return ColmapModel(cameras, images, points, announced)


def _read(read: Callable[[Path], Any], path: Path) -> Any:
    with reading(path, "a COLMAP file", "export the model again (COLMAP's model_converter)"):
        return read(path)


def _image(
    source: Path, quaternion: tuple[float, ...], translation: tuple[float, ...], camera: int, name: str
) -> ColmapImage:
    world_to_camera = torch.eye(4, dtype=torch.float64)
    world_to_camera[:3, :3] = quaternion_to_matrix(quaternion)
    world_to_camera[:3, 3] = torch.tensor(translation, dtype=torch.float64)
    return ColmapImage(readable_path(name, source, "path of an image"), rigid_inverse(world_to_camera), camera)


def _text_rows(path: Path, words: int = -1) -> list[list[str]]:
    """The first words (all of them: -1) and the rest of each line that is neither blank nor a comment."""
    lines = read_text(path).splitlines()
    return [line.split(None, words) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _read_cameras_text(path: Path) -> dict[int, ColmapCamera]:
    cameras = {}
    for camera, model, width, height, *parameters in _text_rows(path):
        numbers = tuple(float(word) for word in parameters)
        cameras[int(camera)] = ColmapCamera(path, int(camera), model, (int(height), int(width)), numbers)
    return cameras


def _read_images_text(path: Path) -> tuple[list[ColmapImage], int | None]:
    """A line for each image and one for its points, which may be blank, or missing as other programs write it."""
    images: list[ColmapImage] = []
    announced, points_may_follow = None, False
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.lstrip().startswith("#"):
            found = _ANNOUNCED.search(line)
            announced = int(found[1]) if found else announced
        elif not line.strip() or (points_may_follow and _is_points(line)):
            points_may_follow = False
        else:
            with reading(path, f"images of a model: its line {number}", "export the model again"):
                images.append(_text_image(path, line))
            points_may_follow = True
    return images, announced


def _text_image(path: Path, line: str) -> ColmapImage:
    _, *pose, camera, name = line.strip().split(maxsplit=9)
    numbers = [float(word) for word in pose]
    if len(numbers) != 7:
        raise ValueError(f"an image with {len(numbers)} pose numbers instead of 7")
    return _image(path, tuple(numbers[:4]), tuple(numbers[4:]), int(camera), name)


def _is_points(line: str) -> bool:
    """Whether a line holds x, y and a point's number, again and again. An image's has a name, or no multiple of 3."""
    words = line.split()
    if len(words) % 3:
        return False
    try:
        return all(float(word) is not None for word in words)
    except ValueError:
        return False


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
        text = decode_text(self._content[self._at : end])
        self._at = end + 1
        return text

    def skip(self, count: int) -> None:
        """Advance by ``count`` bytes, which must exist."""
        self._at += count
        if self._at > len(self._content):
            raise ValueError(f"the file ends at byte {len(self._content)}, expected {self._at} or more")

    def finish(self) -> None:
        """Raise unless all has been read."""
        if self._at != len(self._content):
            raise ValueError(f"{len(self._content) - self._at} bytes follow its last entry")


def _read_cameras_binary(path: Path) -> dict[int, ColmapCamera]:
    file, cameras = _Bytes(path), {}
    for _ in range(file.take("Q")[0]):
        camera, number, width, height = file.take("iiQQ")
        model, count = model_of_number(number, camera)
        cameras[camera] = ColmapCamera(path, camera, model, (height, width), file.take(f"{count}d"))
    file.finish()
    return cameras


def _read_images_binary(path: Path) -> tuple[list[ColmapImage], int | None]:
    file, images = _Bytes(path), []
    announced = file.take("Q")[0]
    for _ in range(announced):
        _, *pose = file.take("i7d")
        (camera,), name = file.take("i"), file.text()
        file.skip(24 * file.take("Q")[0])  # two float64 and an int64 for each point seen
        images.append(_image(path, tuple(pose[:4]), tuple(pose[4:]), camera, name))
    return images, announced


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

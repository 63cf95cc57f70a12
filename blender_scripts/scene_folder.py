"""Reads the text files of a ScanNet scene folder, and writes poses, in NumPy alone."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def read_matrix(path: str | Path) -> np.ndarray:
    """A whitespace-separated matrix; raises ``FileNotFoundError`` or ``ValueError`` with the file's name."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a matrix as text there")
    try:
        return np.loadtxt(path, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is not a matrix of numbers ({error})") from None


def read_poses(folder: str | Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Camera-to-world poses by frame name in numeric order, and the names of lost frames (-inf or NaN)."""
    paths = sorted(Path(folder).glob("*.txt"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no pose files; expected N.txt with a 4x4 matrix each")
    matrices = {path.stem: read_matrix(path) for path in paths}
    lost = [name for name, pose in matrices.items() if pose.shape != (4, 4) or not np.isfinite(pose).all()]
    return {name: pose for name, pose in matrices.items() if name not in lost}, lost


def write_pose(path: str | Path, camera_to_world: np.ndarray) -> None:
    """Write a pose file as ScanNet has them, with all digits."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, camera_to_world, fmt="%.9g")


def image_size(folder: str | Path) -> tuple[int, int]:
    """(height, width) of the first JPEG or PNG in ``folder``, read from its header."""
    for path in sorted(Path(folder).glob("*")):
        if path.suffix.lower() == ".png":
            width, height = struct.unpack(">II", path.read_bytes()[16:24])
            return height, width
        if path.suffix.lower() in (".jpg", ".jpeg"):
            return _jpeg_size(path.read_bytes(), path)
    raise FileNotFoundError(f"{folder} holds no JPEG or PNG; the intrinsics need the size of the colour images")


def _jpeg_size(data: bytes, path: Path) -> tuple[int, int]:
    position = 2
    while position + 9 < len(data):
        marker, length = data[position + 1], struct.unpack(">H", data[position + 2 : position + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return height, width
        position += 2 + length
    raise ValueError(f"{path} has no JPEG frame header; the file is damaged")


def find_mesh(scene: str | Path, labelled: bool = True) -> Path:
    """The labelled mesh of a scene folder if that is wanted, else its colour mesh; raises ``FileNotFoundError``."""
    scene = Path(scene)
    for pattern in ("*_vh_clean_2.labels.ply", "*_vh_clean_2.ply")[not labelled :]:
        found = sorted(scene.glob(pattern))
        if found:
            return found[0]
    raise FileNotFoundError(f"{scene} holds no {'*_vh_clean_2.labels.ply and no ' * labelled}*_vh_clean_2.ply")

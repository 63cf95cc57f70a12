"""The cameras of a generated fisheye capture, as nerfstudio writes them: ScanNet's layout has no lens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.files import write_json
from utils.lenses import Lens

COLOR_FOLDER = "images"  # a folder with color/ would be read as ScanNet's


def write_transforms(folder: Path, intrinsics: np.ndarray, size: tuple[int, int], lens: Lens) -> None:
    """``transforms.json`` of the frames whose poses are in ``pose/``; ``intrinsics`` is [3, 3].

    Lost frames have no matrix. Depth maps hold the distance along the ray in thousandths of a metre.
    """
    poses = {int(path.stem): np.loadtxt(path) for path in (folder / "pose").iterdir()}
    write_json(folder / "transforms.json", {
        "camera_model": "OPENCV_FISHEYE",
        "fl_x": intrinsics[0, 0], "fl_y": intrinsics[1, 1], "cx": intrinsics[0, 2], "cy": intrinsics[1, 2],
        "h": size[0], "w": size[1],
        **{f"k{number}": value for number, value in enumerate(lens.radial, start=1)},
        "fisheye_crop_radius": intrinsics[0, 0] * _edge(lens),
        "frames": [
            {"file_path": f"{COLOR_FOLDER}/{frame}.jpg", "depth_file_path": f"depth/{frame}.png",
             "transform_matrix": _opengl(poses[frame])}
            for frame in sorted(poses)
        ],
    })  # fmt: skip


def _edge(lens: Lens) -> float:
    """Radius of the image circle in focal lengths."""
    return lens.limit * (1 + sum(value * lens.limit ** (2 * power) for power, value in enumerate(lens.radial, start=1)))


def _opengl(pose: np.ndarray) -> list[list[float]] | None:
    """A camera-to-world pose with OpenGL's axes (y up, z backwards); None where it is lost."""
    return (pose * [1, -1, -1, 1]).tolist() if np.isfinite(pose).all() else None

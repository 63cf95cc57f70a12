"""Camera lists, ``SCENE.json``, as the project's ``render.cameras`` reads them; in NumPy alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

_PARTS = "expected scene, image_size [height, width] and cameras with name, camera_to_world (4x4) and intrinsics (3x3)"


class Cameras(NamedTuple):
    """Cameras of one image size; poses are OpenCV camera-to-world."""

    scene: str
    height: int
    width: int
    poses: dict[str, np.ndarray]  # [4, 4] by name
    intrinsics: dict[str, np.ndarray]  # [3, 3] by name


def read_cameras(path: str | Path) -> Cameras:
    """Read a camera list.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none, or two of its cameras have one name.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        height, width = (int(side) for side in content["image_size"])
        names = [str(camera["name"]) for camera in content["cameras"]]
        poses = {camera["name"]: _matrix(camera["camera_to_world"], 4) for camera in content["cameras"]}
        intrinsics = {camera["name"]: _matrix(camera["intrinsics"], 3) for camera in content["cameras"]}
        scene = str(content["scene"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no camera list ({type(error).__name__}: {error}); {_PARTS}") from None
    if "lens" in content:
        raise ValueError(f"{path} holds cameras with a lens, which Blender's cameras here have not; make the list with "
                         "LensOptions.keep = 'none'")
    if len(poses) != len(names) or not names:
        raise ValueError(f"{path} holds {len(names)} cameras with {len(poses)} names; each needs a name of its own")
    return Cameras(scene, height, width, poses, intrinsics)


def write_cameras(path: str | Path, cameras: Cameras) -> None:
    """Write a camera list; the file's name should be the scene's.

    Raises:
        ValueError: a name cannot be a file's, so that no view could be stored under it.
    """
    for name in (cameras.scene, *cameras.poses):
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"{name!r} cannot be a name of a camera or a scene; rename it without slashes")
    content = {
        "scene": cameras.scene, "image_size": [cameras.height, cameras.width],
        "cameras": [
            {"name": name, "camera_to_world": pose.tolist(), "intrinsics": cameras.intrinsics[name].tolist(),
             "info": {}}
            for name, pose in cameras.poses.items()
        ],
    }  # fmt: skip
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _matrix(values: list[list[float]], side: int) -> np.ndarray:
    matrix = np.array(values, dtype=np.float64)
    if matrix.shape != (side, side) or not np.isfinite(matrix).all():
        raise ValueError(f"a matrix is not {side}x{side} finite numbers")
    return matrix

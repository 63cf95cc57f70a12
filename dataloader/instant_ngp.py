"""Scene folders with ``transforms.json`` as instant-ngp, nerfstudio and the original NeRF write it.

One file, or ``transforms_train.json``, ``_val`` and ``_test``. Intrinsics (``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``,
``h``, or ``camera_angle_x``) and distortion (``k1``..``k4``, ``p1``, ``p2``, in OpenCV's sense) are at the top level or
in single frames, which take precedence. ``transform_matrix`` is camera-to-world with OpenGL's axes (y up, z backwards);
the world stays as it is. ``file_path`` is relative to the file; :mod:`dataloader.file_finder` finds it.

instant-ngp's box is [0, 1]^3 scaled by ``aabb_scale`` about its centre, in coordinates x * ``scale`` + ``offset`` (0.33
and 0.5 unless given).
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataloader.file_finder import FileFinder
from dataloader.lens import Lens
from dataloader.posed_images import PosedImage, build_scene
from dataloader.scene import Scene
from utils.errors import UserError, short
from utils.files import read_json
from utils.limits import FARTHEST
from utils.names import readable_path

SINGLE_FILE = "transforms.json"
SPLIT_FILES = {split: f"transforms_{split}.json" for split in ("train", "val", "test")}
_CAMERA_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL")
_OTHER_PROJECTIONS = ("is_fisheye", "ftheta_p0", "latlong", "equirectangular")
_DEFAULT_SCALE = 0.33
_DEFAULT_OFFSET = 0.5
_EXPORT_AGAIN = "write it again with the program that made it"


def load_transforms_scene(path: Path, background: float) -> Scene:
    """Open a folder with ``transforms.json`` or ``transforms_train.json``; reads it and image headers, no pixels.

    Args:
        background: grey level, 0 to 1, behind transparent pixels.

    Raises:
        UserError: a file is not what is described above, or no frame is valid.
    """
    single = path / SINGLE_FILE
    lists = {None: single} if single.is_file() else {
        split: path / name for split, name in SPLIT_FILES.items() if (path / name).is_file()
    }  # fmt: skip
    if not lists:
        raise UserError(f"{path} holds neither {SINGLE_FILE} nor {SPLIT_FILES['train']}; expected one of them")
    images: list[PosedImage] = []
    bounds, files = None, FileFinder(path)
    for split, file in lists.items():
        content = read_json(file, _EXPORT_AGAIN)
        if not isinstance(content, dict) or not isinstance(content.get("frames"), list) or not content["frames"]:
            raise UserError(f"{file} has no list 'frames'; expected a transforms.json as instant-ngp reads it")
        images += [_posed_image(file, content, frame, split, files) for frame in content["frames"]]
        bounds = _box(file, content) if bounds is None else bounds
    return build_scene(path, "instant-ngp", images, background, bounds=bounds, remarks=files.remarks())


def _posed_image(
    file: Path, content: dict[str, Any], frame: Any, split: str | None, files: FileFinder
) -> PosedImage:
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise UserError(f"{file} has a frame without 'file_path'; expected the image's path relative to the file")
    values = ChainMap(frame, content)
    path = readable_path(frame["file_path"], file, "path of an image")
    other = [name for name in _OTHER_PROJECTIONS if values.get(name)]
    model = values.get("camera_model", "OPENCV")
    if other or model not in _CAMERA_MODELS:
        raise UserError(f"{file}: the camera of {path} is no perspective camera "
                        f"({other[0] if other else short(model)}); expected one of {', '.join(_CAMERA_MODELS)}: "
                        "undistort the images first")
    relative = path.replace("\\", "/").removeprefix("./").lstrip("/")
    name = f"{split}/{relative}" if split else relative
    return PosedImage(
        path=files.find(path),
        relative=name,
        camera_to_world=_camera_to_world(frame.get("transform_matrix")),
        lens=lambda size: _lens(file, relative, values, size),
        split=split,
    )


def _camera_to_world(matrix: Any) -> Tensor:
    """OpenCV camera-to-world ``[4, 4]`` from OpenGL's; another shape when it is malformed."""
    try:
        pose = torch.tensor(matrix, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return torch.empty(0, dtype=torch.float64)
    if pose.shape == (16,) and pose[12:].tolist() == [0, 0, 0, 1]:
        pose = pose.reshape(4, 4)
    if pose.shape == (3, 4):
        pose = torch.cat((pose, pose.new_tensor([[0, 0, 0, 1]])))
    if pose.shape == (4, 4):
        pose[:3, 1:3] *= -1
    return pose


def _lens(file: Path, relative: str, values: Mapping[str, Any], size: tuple[int, int]) -> Lens:
    """The camera of one frame, for its image's size."""
    source = f"{file} ({relative})"
    width, height = (_number(source, values, name, side) for name, side in (("w", size[1]), ("h", size[0])))
    focal = _focal(source, values, width, height)
    center = (_number(source, values, "cx", width / 2), _number(source, values, "cy", height / 2))
    k1, k2, k3, k4, p1, p2 = (_number(source, values, name, 0.0) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    lens = Lens((round(height), round(width)), focal, center, (k1, k2, k3, k4), (p1, p2), source=str(file))
    return lens.resized(size)


def _focal(source: str, values: Mapping[str, Any], width: float, height: float) -> tuple[float, float]:
    """(fx, fy) from focal lengths or angles of view; one of the two serves for both."""
    focal: dict[str, float] = {}
    for axis, extent in (("x", width), ("y", height)):
        if f"fl_{axis}" in values:
            focal[axis] = _number(source, values, f"fl_{axis}")
        elif f"camera_angle_{axis}" in values:
            angle = _number(source, values, f"camera_angle_{axis}")
            if not 0 < angle < math.pi:
                raise UserError(f"{source}: camera_angle_{axis} is {angle:g}; expected radians between 0 and pi")
            focal[axis] = extent / 2 / math.tan(angle / 2)
    if not focal:
        raise UserError(f"{source} has no focal length; expected fl_x or camera_angle_x in the file or the frame")
    return focal.get("x", focal.get("y")), focal.get("y", focal.get("x"))


def _number(source: str, values: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -FARTHEST < value < FARTHEST:
        raise UserError(f"{source}: {name} is {short(value)}; expected a number of at most {FARTHEST:g}")
    return float(value)


def _box(file: Path, content: dict[str, Any]) -> Tensor | None:
    """Corners ``[2, 3]`` of instant-ngp's box in the file's coordinates; None where no ``aabb_scale`` is given."""
    if "aabb_scale" not in content:
        return None
    scale = _number(str(file), content, "scale", _DEFAULT_SCALE)
    half = _number(str(file), content, "aabb_scale") / 2
    offset = content.get("offset", [_DEFAULT_OFFSET] * 3)
    if not isinstance(offset, list) or len(offset) != 3 or scale <= 0 or half <= 0:
        raise UserError(f"{file}: aabb_scale {2 * half:g}, scale {scale:g} and offset {short(offset)} make no box; "
                        "expected positive numbers and an offset of three")
    offset = torch.tensor([_number(str(file), {"offset": value}, "offset") for value in offset], dtype=torch.float64)
    return torch.stack(((0.5 - half - offset) / scale, (0.5 + half - offset) / scale))

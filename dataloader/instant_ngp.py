"""Scene folders with ``transforms.json`` as instant-ngp, nerfstudio and the original NeRF write it.

One file, or ``transforms_train.json``, ``_val`` and ``_test``. Intrinsics (``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``,
``h``, or ``camera_angle_x``) and distortion (``k1``..``k4``, ``p1``, ``p2``, in OpenCV's sense) are at the top level or
in single frames, which take precedence. Where ``is_fisheye`` or the ``camera_model`` says so, they are Kannala and
Brandt's, ``fisheye_crop_radius`` is how many pixels from the middle the picture ends, and depth maps hold distances
along the rays. ``transform_matrix`` is camera-to-world with OpenGL's axes (y up, z backwards); the world stays as it
is. ``file_path`` is relative to the file; :mod:`dataloader.file_finder` finds it.

nerfstudio's additions are read: ``depth_file_path`` (whole numbers times ``depth_unit_scale_factor``, 0.001 unless
given, are units of the world), ``mask_path`` (white is kept), ``ply_file_path`` (sparse points), and the lists
``train_filenames``, ``val_filenames`` and ``test_filenames``; frames that these leave out are left out.

instant-ngp's box is [0, 1]^3 scaled by ``aabb_scale`` about its centre, in coordinates x * ``scale`` + ``offset`` (0.33
and 0.5 unless given).
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.calibrated_camera import CalibratedCamera
from dataloader.file_finder import FileFinder
from dataloader.ply import read_ply
from dataloader.posed_images import PosedImage, build_scene
from dataloader.scene import Scene, SparsePoints
from utils.depth_images import MILLIMETRES
from utils.errors import UserError, reading, short
from utils.files import read_json
from utils.lenses import FISHEYE, PERSPECTIVE, Lens
from utils.limits import FARTHEST
from utils.names import readable_path

SINGLE_FILE = "transforms.json"
SPLIT_FILES = {split: f"transforms_{split}.json" for split in ("train", "val", "test")}
_CAMERA_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL")
_FISHEYE_MODELS = ("OPENCV_FISHEYE", "EQUIDISTANT", "FISHEYE")
_OTHER_PROJECTIONS = ("ftheta_p0", "latlong", "equirectangular")
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
    bounds, points, steps, files = None, None, MILLIMETRES, FileFinder(path)
    unlisted: list[str] = []
    for split, file in lists.items():
        content = read_json(file, _EXPORT_AGAIN)
        if not isinstance(content, dict) or not isinstance(content.get("frames"), list) or not content["frames"]:
            raise UserError(f"{file} has no list 'frames'; expected a transforms.json as instant-ngp reads it")
        splits = _listed_splits(file, content)
        found = [_posed_image(file, content, frame, split, files, splits) for frame in content["frames"]]
        unlisted += [image.relative for image in found if splits and image.split is None]
        images += [image for image in found if not splits or image.split is not None]
        points = _sparse_points(file, content, files) if points is None else points
        steps = 1 / _unit_scale(file, content)
        bounds = _box(file, content) if bounds is None else bounds
    remarks = files.remarks()
    if unlisted:
        remarks.append(f"{len(unlisted)} frames are in none of the lists of file names, and left out (such as "
                       f"{short(unlisted[0])})")
    return build_scene(path, "instant-ngp", images, background, points, bounds, remarks, steps)


def _listed_splits(file: Path, content: dict[str, Any]) -> dict[str, str]:
    """The split of each image that ``train_filenames``, ``val_filenames`` or ``test_filenames`` lists.

    nerfstudio often lists the same images for validation and for test; the first of train, val and test counts.
    """
    splits: dict[str, str] = {}
    for split in SPLIT_FILES:
        names = content.get(f"{split}_filenames", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{file}: {split}_filenames is {short(names)}; expected a list of file names")
        for name in names:
            splits.setdefault(_relative(name), split)
    return splits


def _sparse_points(file: Path, content: dict[str, Any], files: FileFinder) -> SparsePoints | None:
    name = content.get("ply_file_path")
    if name is None:
        return None
    if not isinstance(name, str):
        raise UserError(f"{file}: ply_file_path is {short(name)}; expected a file's name")
    path = files.find(readable_path(name, file, "path of sparse points"))
    vertex = read_ply(path).get("vertex", {})
    with reading(path, "sparse points", _EXPORT_AGAIN):
        positions = np.stack([np.asarray(vertex[axis], dtype=np.float32) for axis in "xyz"], axis=1)
        known = all(color in vertex for color in ("red", "green", "blue"))
        colors = np.stack([np.asarray(vertex[color]) for color in ("red", "green", "blue")], axis=1) if known else \
            np.full(positions.shape, 128)
        if np.issubdtype(colors.dtype, np.floating):
            colors = colors * 255 if colors.size and colors.max() <= 1 else colors
        finite = np.isfinite(positions).all(1) & (np.abs(positions) < FARTHEST).all(1)
        colors = colors[finite].clip(0, 255).astype(np.uint8)
        return SparsePoints(torch.from_numpy(positions[finite]), torch.from_numpy(colors))


def _unit_scale(file: Path, content: dict[str, Any]) -> float:
    """What whole numbers of depth maps are multiplied by."""
    name = "integer_depth_scale" if "integer_depth_scale" in content else "depth_unit_scale_factor"
    scale = _number(str(file), content, name, 1 / MILLIMETRES)
    if not 1e-9 < scale < 1e3:
        raise UserError(f"{file}: {name} is {scale:g}; expected the size of a step of depth, such as 0.001")
    return scale


def _relative(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./").lstrip("/")


def _listed_file(frame: dict[str, Any], names: tuple[str, ...], file: Path, files: FileFinder) -> Path | None:
    """The file that a frame names under the first of ``names`` that it has."""
    name = next((frame[name] for name in names if frame.get(name) is not None), None)
    if name is None:
        return None
    if not isinstance(name, str):
        raise UserError(f"{file}: {names[0]} is {short(name)}; expected a file's name")
    return files.find(readable_path(name, file, f"path of {names[0]}"))


def _posed_image(
    file: Path, content: dict[str, Any], frame: Any, split: str | None, files: FileFinder, splits: dict[str, str]
) -> PosedImage:
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise UserError(f"{file} has a frame without 'file_path'; expected the image's path relative to the file")
    values = ChainMap(frame, content)
    path = readable_path(frame["file_path"], file, "path of an image")
    other = [name for name in _OTHER_PROJECTIONS if values.get(name)]
    model = values.get("camera_model", "OPENCV")
    known = (*_CAMERA_MODELS, *_FISHEYE_MODELS)
    if other or model not in known:
        raise UserError(f"{file}: the camera of {path} is neither a perspective nor a fisheye camera "
                        f"({other[0] if other else short(model)}); expected one of {', '.join(known)}: undistort the "
                        "images first")
    relative = _relative(path)
    name = f"{split}/{relative}" if split else relative
    return PosedImage(
        path=files.find(path),
        relative=name,
        camera_to_world=_camera_to_world(frame.get("transform_matrix")),
        camera=lambda size: _camera(file, relative, values, size),
        split=split or splits.get(relative),
        depth=_listed_file(frame, ("depth_file_path", "depth_path"), file, files),
        mask=_listed_file(frame, ("mask_path",), file, files),
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


def _camera(file: Path, relative: str, values: Mapping[str, Any], size: tuple[int, int]) -> CalibratedCamera:
    """The camera of one frame, for its image's size."""
    source = f"{file} ({relative})"
    fisheye = bool(values.get("is_fisheye")) or values.get("camera_model") in _FISHEYE_MODELS
    width, height = (_number(source, values, name, side) for name, side in (("w", size[1]), ("h", size[0])))
    focal = _focal(source, values, width, height, fisheye)
    center = (_number(source, values, "cx", width / 2), _number(source, values, "cy", height / 2))
    k1, k2, k3, k4, p1, p2 = (_number(source, values, name, 0.0) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    lens = Lens(FISHEYE if fisheye else PERSPECTIVE, (k1, k2, k3, k4), (0.0, 0.0) if fisheye else (p1, p2))
    if fisheye and values.get("fisheye_crop_radius") is not None:
        lens = _cropped(source, lens, _number(source, values, "fisheye_crop_radius") / focal[0])
    return CalibratedCamera((round(height), round(width)), focal, center, lens, source=str(file)).resized(size)


def _cropped(source: str, lens: Lens, radius: float) -> Lens:
    """The lens seeing no farther than a circle on its image plane, whose radius is in focal lengths."""
    if not radius > 0:
        raise UserError(f"{source}: fisheye_crop_radius is {radius:g} focal lengths; expected pixels above 0")
    edge, found = lens.undistort(torch.tensor([radius, 0.0], dtype=torch.float64))
    return replace(lens, limit=float(edge.norm())) if bool(found) else lens


def _focal(
    source: str, values: Mapping[str, Any], width: float, height: float, fisheye: bool
) -> tuple[float, float]:
    """(fx, fy) from focal lengths or, of a perspective camera, angles of view; one of the two serves for both."""
    focal: dict[str, float] = {}
    for axis, extent in (("x", width), ("y", height)):
        if f"fl_{axis}" in values:
            focal[axis] = _number(source, values, f"fl_{axis}")
        elif f"camera_angle_{axis}" in values and not fisheye:
            angle = _number(source, values, f"camera_angle_{axis}")
            if not 0 < angle < math.pi:
                raise UserError(f"{source}: camera_angle_{axis} is {angle:g}; expected radians between 0 and pi")
            focal[axis] = extent / 2 / math.tan(angle / 2)
    if not focal:
        raise UserError(f"{source} has no focal length; expected fl_x or, of a perspective camera, camera_angle_x in "
                        "the file or the frame")
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

"""Views as a data set that nerfstudio reads, and this project again (:mod:`dataloader.instant_ngp`).

``transforms.json`` with OpenGL's axes, ``images/NAME.png``, ``depth/NAME.png`` (16-bit thousandths of the world's unit,
0 = none), ``masks/NAME.png`` (white is kept) and ``points.ply``. The lists of training and held-out frames are written
too; nerfstudio needs all three, so what is held out is listed for validation and for test. Fisheye cameras are
OPENCV_FISHEYE with ``k1`` to ``k4``, and ``fisheye_crop_radius`` where their image circle ends; depth is then the
distance along the ray.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataloader.camera_list import CameraList
from dataloader.instant_ngp import SINGLE_FILE
from dataloader.ply_writer import write_elements
from dataloader.scene import SparsePoints
from utils.depth_images import MILLIMETRES, write_depth
from utils.errors import UserError
from utils.files import write_json
from utils.images import write_image
from utils.lenses import Lens

POINTS_FILE = "points.ply"
_FARTHEST = 65535 / MILLIMETRES
_MOST_SKEW = 1e-6


class View(NamedTuple):
    """One view's pictures: color uint8 ``[3, H, W]``; depth float32 ``[H, W]`` along the optical axis, in units of the
    world, 0 = none; mask bool ``[H, W]``, where the pixels are of the scene. The latter two may be None."""

    color: Tensor
    depth: Tensor | None = None
    mask: Tensor | None = None


def check_cameras(cameras: CameraList) -> None:
    """Raise :class:`UserError` unless the format can say these cameras."""
    names = cameras.names
    if len(set(names)) < len(names):
        raise UserError(f"{cameras.scene} has several cameras of the same name, so their pictures would share a file; "
                        "export views of a recorded trajectory")
    if cameras.lens is not None and not _is_opencv_fisheye(cameras.lens):
        raise UserError(f"{cameras.scene}: its views are of a {cameras.lens.projection} lens that transforms.json "
                        "cannot say (pinholes, and fisheye lenses with four radial coefficients, are written); leave "
                        "the form out, or undistort photographs on reading (LensOptions.keep = 'none')")
    if float(cameras.intrinsics[:, 0, 1].abs().max()) > _MOST_SKEW:
        raise UserError(f"{cameras.scene}: the intrinsics have a skew, which transforms.json cannot say; resample the "
                        "images to square axes first")


def write_nerfstudio(
    folder: Path, cameras: CameraList, views: Iterable[View], held_out: Iterable[str],
    points: SparsePoints | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the data set into a folder; returns its figures.

    Args:
        folder: is made if absent.
        cameras: one a view; OpenCV's axes, as everywhere here.
        views: in the cameras' order, read one by one.
        held_out: names of cameras that are not for training; others' names do not matter.
        points: on surfaces, in the world.

    Raises:
        UserError: the format cannot say these cameras (:func:`check_cameras`).
    """
    check_cameras(cameras)
    frames, beyond = [], 0
    for number, view in enumerate(views):
        frame = _frame(cameras, number)
        name = cameras.names[number]
        write_image(folder / frame["file_path"], view.color)
        if view.depth is not None and bool((view.depth > 0).any()):
            beyond += int((view.depth > _FARTHEST).sum())
            frame["depth_file_path"] = f"depth/{name}.png"
            write_depth(folder / frame["depth_file_path"], torch.where(view.depth > _FARTHEST, 0, view.depth))
        if view.mask is not None:
            frame["mask_path"] = f"masks/{name}.png"
            write_image(folder / frame["mask_path"], torch.where(view.mask, 255, 0).to(torch.uint8))
        frames.append(frame)
    if len(frames) != len(cameras):
        raise ValueError(f"{len(frames)} views, and {len(cameras)} cameras")
    content = {**_camera(cameras), **_splits(cameras.names, frames, set(held_out)), "frames": frames}
    if points is not None:
        _write_points(folder / POINTS_FILE, points)
        content["ply_file_path"] = POINTS_FILE
    write_json(folder / SINGLE_FILE, content)
    return {
        "views": len(frames), "held_out": len(content.get("test_filenames", [])),
        "depth_maps": sum("depth_file_path" in frame for frame in frames),
        "masks": sum("mask_path" in frame for frame in frames), "depth_beyond_range": beyond,
        "points": 0 if points is None else len(points.positions),
    }  # fmt: skip


def _is_opencv_fisheye(lens: Lens) -> bool:
    return lens.is_fisheye and not any((*lens.tangential, *lens.prism, *lens.divisor))


def _frame(cameras: CameraList, number: int) -> dict[str, Any]:
    pose = cameras.camera_to_world[number].double().clone()
    pose[:3, 1:3] *= -1
    frame = {"file_path": f"images/{cameras.names[number]}.png", "transform_matrix": pose.tolist()}
    same = bool((cameras.intrinsics == cameras.intrinsics[0]).all())
    return frame if same else {**frame, **_intrinsics(cameras, number)}


def _camera(cameras: CameraList) -> dict[str, Any]:
    height, width = cameras.image_size
    lens = cameras.lens
    model = {"camera_model": "OPENCV", "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0} if lens is None else {
        "camera_model": "OPENCV_FISHEYE", **{f"k{place}": value for place, value in enumerate(lens.radial, 1)}
    }  # fmt: skip
    size = {"w": width, "h": height}
    return {**model, **_intrinsics(cameras, 0), **size, "depth_unit_scale_factor": 1 / MILLIMETRES}


def _intrinsics(cameras: CameraList, number: int) -> dict[str, float]:
    matrix, lens = cameras.intrinsics[number], cameras.lens
    values = {"fl_x": float(matrix[0, 0]), "fl_y": float(matrix[1, 1]), "cx": float(matrix[0, 2]),
              "cy": float(matrix[1, 2])}  # fmt: skip
    if lens is not None and lens.limit < min(lens.fold_radius, math.pi):
        edge = lens.distort(torch.tensor([lens.limit, 0.0], dtype=torch.float64))
        values["fisheye_crop_radius"] = float(edge[0]) * values["fl_x"]
    return values


def _splits(names: list[str], frames: list[dict[str, Any]], held_out: set[str]) -> dict[str, list[str]]:
    """Lists of files; none where nothing is held out, since nerfstudio then holds out frames itself."""
    held = [frame["file_path"] for name, frame in zip(names, frames, strict=True) if name in held_out]
    kept = [frame["file_path"] for name, frame in zip(names, frames, strict=True) if name not in held_out]
    return {"train_filenames": kept, "val_filenames": held, "test_filenames": held} if held and kept else {}


def _write_points(path: Path, points: SparsePoints) -> None:
    positions, colors = points.positions.numpy().astype(np.float32), points.colors.numpy()
    columns = {axis: positions[:, number] for number, axis in enumerate("xyz")}
    write_elements(path, columns | {name: colors[:, number] for number, name in enumerate(("red", "green", "blue"))})

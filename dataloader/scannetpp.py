"""Scene folders of ScanNet++ (Yeshwanth et al., ICCV 2023): ``dslr/``, ``iphone/`` and ``scans/``.

Poses are COLMAP's (``colmap/``), whose world is that of ``scans/mesh_aligned_0.05.ply``: metres, z up. That of
``nerfstudio/transforms.json`` has other axes, so that file's poses are not read. ``train_test_lists.json`` says which
photographs are held out and whether there are masks, white where pixels are of the scene. The phone's frames are those
that the toolbox takes out of its film: ``rgb/``, ``depth/`` (millimetres) and ``rgb_masks/``; without ``colmap/``,
their poses and intrinsics are those of ``pose_intrinsic_imu.json`` (``aligned_pose``: camera-to-world, OpenCV axes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from dataloader.calibrated_camera import CalibratedCamera
from dataloader.colmap_model import ColmapModel, model_suffix, read_model
from dataloader.file_finder import IMAGE_SUFFIXES, FileFinder
from dataloader.posed_images import PosedImage, build_scene
from dataloader.scannet_files import frame_files, read_intrinsics
from dataloader.scene import SCANNETPP, Scene
from dataloader.sensors import DSLR, DSLR_UNDISTORTED, IPHONE, SensorOptions
from utils.depth_images import DEPTH_SUFFIXES
from utils.errors import UserError, reading, short
from utils.files import read_json
from utils.names import plain_name

MESH, LABEL_MESH = "scans/mesh_aligned_0.05.ply", "scans/mesh_aligned_0.05_semantic.ply"
_LISTS, _UNDISTORTED, _TRACKED = (
    "train_test_lists.json", "nerfstudio/transforms_undistorted.json", "pose_intrinsic_imu.json",
)  # fmt: skip
_MARKS = ("dslr/colmap", "dslr/resized_images", "iphone/colmap", f"iphone/{_TRACKED}", MESH)
_DOWNLOAD = "download it again"
_CameraOfSize = Callable[[tuple[int, int]], CalibratedCamera]


def is_scannetpp(path: Path) -> bool:
    """Whether a folder has what only a scene of ScanNet++ has."""
    return any((path / name).exists() for name in _MARKS)


def load_scannetpp_scene(path: Path, background: float) -> Scene:
    """Open a scene folder of ScanNet++; :class:`SensorOptions` says which camera's. Reads no pixels.

    Args:
        background: grey level, 0 to 1, behind transparent pixels; photographs have none.

    Raises:
        UserError: a file is missing or damaged, or no frame can be used.
    """
    sensor = SensorOptions().scannetpp
    folder = path / (IPHONE if sensor == IPHONE else "dslr")
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; SensorOptions.scannetpp = {sensor!r} reads it: download it, or "
                        "choose the camera that is there")
    read = _read_phone(folder) if sensor == IPHONE else _read_dslr(folder, sensor == DSLR_UNDISTORTED)
    points = read.model.points if read.model is not None else None
    points = points if points is not None and len(points.positions) else None
    scene = build_scene(path, SCANNETPP, read.images, background, points, remarks=read.remarks)
    return replace(scene, metric=True, mesh_path=path / MESH, label_mesh_path=path / LABEL_MESH)


@dataclass(frozen=True)
class _Camera:
    """Photographs of one camera; ``model`` is None where poses are the phone's own."""

    images: list[PosedImage]
    model: ColmapModel | None
    remarks: list[str]


def _read_dslr(folder: Path, undistorted: bool) -> _Camera:
    model, path = _model(folder), folder / _LISTS
    splits, has_masks = _read_lists(path) if path.is_file() else ({}, False)
    pictures, masks = ("resized_undistorted_images", "resized_undistorted_masks") if undistorted else (
        "resized_images", "resized_anon_masks"
    )  # fmt: skip
    if not (folder / pictures).is_dir():
        made = " (the toolbox's dslr.undistort makes it)" if undistorted else ""
        raise UserError(f"{folder / pictures} does not exist; SensorOptions.scannetpp = "
                        f"{DSLR_UNDISTORTED if undistorted else DSLR!r} reads photographs there{made}")
    pinhole = _pinhole(folder / _UNDISTORTED).resized if undistorted else None
    files, images = FileFinder(folder / pictures), []
    cameras = {} if undistorted else _cameras(model)
    for image in model.images:
        name = PurePosixPath(image.name).name
        mask = folder / masks / f"{PurePosixPath(name).stem}.png"
        images.append(PosedImage(
            files.find(name), name, image.camera_to_world, pinhole or cameras[image.camera], splits.get(name),
            mask=mask if has_masks or mask.is_file() else None,
            problem=f"in neither list of {_LISTS}" if splits and name not in splits else None,
        ))  # fmt: skip
    unknown = sorted(splits.keys() - {image.relative for image in images})
    there = {file.name for file in frame_files(folder / pictures, IMAGE_SUFFIXES).values()}
    extra = there - {image.path.name for image in images}
    remarks = [*files.remarks(), *([] if splits else [f"{path} is absent: nothing says which photographs to hold out"])]
    if unknown:
        remarks.append(f"{len(unknown)} photographs of {path.name} have no pose in colmap/ and are left out (such as "
                       f"{short(unknown[0])})")
    if extra:
        remarks.append(f"{len(extra)} of {len(there)} photographs of {pictures}/ have no pose and are not read")
    return _Camera(images, model, remarks + _announced(model))


def _read_phone(folder: Path) -> _Camera:
    pictures = frame_files(folder / "rgb", IMAGE_SUFFIXES)
    if not pictures:
        raise UserError(f"{folder / 'rgb'} holds no frames; take them out of rgb.mkv with the toolbox's "
                        "iphone.prepare_iphone_data, and the depth maps with them")
    model = _model(folder) if model_suffix(folder / "colmap") else None
    posed = _posed_by_colmap(model) if model is not None else _posed_by_phone(folder / _TRACKED)
    depths, masks = frame_files(folder / "depth", DEPTH_SUFFIXES), frame_files(folder / "rgb_masks", IMAGE_SUFFIXES)
    images = []
    for name, pose, camera in posed:
        file = pictures.get(name, folder / "rgb" / f"{name}.jpg")
        images.append(PosedImage(file, file.name, pose, camera, depth=depths.get(name), mask=masks.get(name)))
    remarks = [f"poses and intrinsics are the phone's own ({_TRACKED}), since there is no colmap/"] if model is None \
        else _announced(model)
    names = [name for name, _, _ in posed]
    extra = pictures.keys() - set(names)
    if extra:
        remarks.append(f"{len(extra)} of {len(pictures)} frames of rgb/ have no pose and are not read")
    without = sum(name in pictures and name not in depths for name in names)
    if without:
        remarks.append(f"{without} frames have no depth map in depth/")
    return _Camera(images, model, remarks)


def _model(folder: Path) -> ColmapModel:
    model = read_model(folder / "colmap")
    if not model.images:
        raise UserError(f"{folder / 'colmap'} lists no photographs in images.txt or images.bin; {_DOWNLOAD}")
    return model


def _cameras(model: ColmapModel) -> dict[int, _CameraOfSize]:
    used = sorted({image.camera for image in model.images})
    try:
        return {number: model.cameras[number].calibrated().resized for number in used}
    except UserError as error:
        raise UserError(f"{error}; or read what the toolbox's dslr.undistort makes: SensorOptions.scannetpp = "
                        f"{DSLR_UNDISTORTED!r}") from None


def _announced(model: ColmapModel) -> list[str]:
    if model.announced in (None, len(model.images)):
        return []
    return [f"colmap/ says that it has {model.announced} photographs and lists {len(model.images)}"]


def _posed_by_colmap(model: ColmapModel) -> list[tuple[str, Tensor, _CameraOfSize]]:
    cameras = _cameras(model)
    return [(PurePosixPath(image.name).stem, image.camera_to_world, cameras[image.camera]) for image in model.images]


@dataclass(frozen=True)
class _IntrinsicEntry:
    """The intrinsics of one frame of ``pose_intrinsic_imu.json``, as :func:`read_intrinsics` reads a matrix."""

    path: Path
    frame: str
    rows: Any

    def __str__(self) -> str:
        return f"{self.path} ({self.frame}: intrinsic)"

    def is_file(self) -> bool:
        """Whether the frame has intrinsics."""
        return self.rows is not None

    def numbers(self) -> list[float] | None:
        """None when they are none."""
        numbers = _matrix(self.rows).reshape(-1).tolist()
        return numbers or None

    def camera(self, size: tuple[int, int]) -> CalibratedCamera:
        """The frame's pinhole camera, for pictures of ``size`` (height, width)."""
        (fx, _, cx), (_, fy, cy) = read_intrinsics(self, size)[:2].tolist()
        return CalibratedCamera(size, (fx, fy), (cx, cy), source=str(self))


def _posed_by_phone(path: Path) -> list[tuple[str, Tensor, _CameraOfSize]]:
    content = read_json(path, _DOWNLOAD, dict)
    posed = []
    for name, entry in content.items():
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {short(name)} is {short(entry)}; expected its pose and intrinsics: {_DOWNLOAD}")
        camera = _IntrinsicEntry(path, plain_name(name, path, "frame's name"), entry.get("intrinsic")).camera
        posed.append((name, _matrix(entry.get("aligned_pose")), camera))
    return posed


def _matrix(rows: Any) -> Tensor:
    """float64 of any shape; empty where it is no array of numbers."""
    try:
        return torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return torch.empty(0, dtype=torch.float64)


def _read_lists(path: Path) -> tuple[dict[str, str], bool]:
    """The split of each photograph, and whether all have masks."""
    content = read_json(path, _DOWNLOAD, dict)
    splits: dict[str, str] = {}
    for split in ("train", "test"):
        names = content.get(split)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path}: {split!r} is {short(names)}; expected a list of photographs: {_DOWNLOAD}")
        for name in names:
            if splits.setdefault(name, split) != split:
                raise UserError(f"{path}: {short(name)} is in both lists, 'train' and 'test'; {_DOWNLOAD}")
    return splits, bool(content.get("has_masks"))


def _pinhole(path: Path) -> CalibratedCamera:
    """The camera of the undistorted photographs."""
    content = read_json(path, "run the toolbox's dslr.undistort again", dict)
    with reading(path, "the camera of undistorted photographs", "run the toolbox's dslr.undistort again"):
        width, height, *numbers = (float(content[name]) for name in ("w", "h", "fl_x", "fl_y", "cx", "cy"))
        if content.get("camera_model") != "PINHOLE" or any(content.get(name) for name in ("k1", "k2", "k3", "k4")):
            raise ValueError(f"its camera_model is {short(content.get('camera_model'))} with distortion "
                             f"{[content.get(name) for name in ('k1', 'k2', 'k3', 'k4')]}, and no pinhole")
        size = (int(height), int(width))
        return CalibratedCamera(size, tuple(numbers[:2]), tuple(numbers[2:]), source=str(path))

"""Scene folders with a COLMAP reconstruction: ``images/`` and ``sparse/0/`` (text or binary) or similar."""

from __future__ import annotations

import logging
from pathlib import Path

from dataloader.colmap_model import ColmapModel, model_suffix, read_model
from dataloader.file_finder import FileFinder
from dataloader.posed_images import PosedImage, build_scene
from dataloader.scene import Scene
from utils.errors import UserError
from utils.names import is_system_name

logger = logging.getLogger(__name__)

IMAGE_FOLDERS = ("images", "rgb", "color", "", "images_2", "images_4", "images_8")
MODEL_FOLDERS = ("sparse", "colmap/sparse", "colmap_sparse", "dense/sparse", "")


def model_folders(path: Path) -> list[Path]:
    """Folders under ``path`` that hold a model: those that COLMAP's mapper numbered, or a single one."""
    for name in MODEL_FOLDERS:
        base = path / name
        inside = sorted(base.iterdir()) if name and base.is_dir() else []
        candidates = [base, *(folder for folder in inside if not is_system_name(folder.name))]
        if found := [folder for folder in candidates if folder.is_dir() and model_suffix(folder)]:
            return found
    return []


def load_colmap_scene(path: Path, background: float) -> Scene:
    """Open a folder with a COLMAP model; reads the model and image headers, no pixels.

    Of several models (the mapper makes one for each group of images it cannot connect), the one with most images.

    Args:
        background: grey level, 0 to 1, behind transparent pixels.

    Raises:
        UserError: the model or all images are missing, a file is damaged, or a camera model is not supported.
    """
    folders = model_folders(path)
    if not folders:
        raise UserError(f"{path} holds no COLMAP model; expected sparse/0/cameras.bin, images.bin and points3D.bin, or "
                        "the same as .txt")
    models = {folder: read_model(folder) for folder in folders}
    folder = max(models, key=lambda one: len(models[one].images))
    model = models[folder]
    if len(models) > 1:
        logger.warning("%s: COLMAP made %d models that are not connected; taking %s with %d images", path.name,
                       len(models), folder.relative_to(path), len(model.images))
    if not model.images:
        raise UserError(f"{folder} has no registered image; reconstruct the scene again")
    used = sorted({image.camera for image in model.images})
    cameras = {number: model.cameras[number].calibrated() for number in used}
    images = _image_folder(path, model)
    files = FileFinder(images)
    posed = [
        PosedImage(files.find(image.name), image.name, image.camera_to_world, cameras[image.camera].resized)
        for image in model.images
    ]
    points = model.points if model.points is not None and len(model.points.positions) else None
    remarks = [*files.remarks()]
    if images.name.startswith("images_"):
        remarks.append(f"images are read from {images.name}/, since none is in images/")
    if model.announced not in (None, len(model.images)):
        remarks.append(f"{folder} says that it has {model.announced} images and lists {len(model.images)}")
    return build_scene(path, "COLMAP", posed, background, points=points, remarks=remarks)


def _image_folder(path: Path, model: ColmapModel) -> Path:
    """The folder that holds most of the model's images; the first candidate when none holds any."""
    folders = [path / name for name in IMAGE_FOLDERS]
    return max(folders, key=lambda folder: sum((folder / image.name).exists() for image in model.images))

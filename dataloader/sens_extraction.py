"""From a ``.sens`` stream to a scene folder in ScanNet's layout, resumable frame by frame."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataloader.sens import SensFrame, SensReader
from utils.depth_images import write_depth
from utils.errors import UserError
from utils.files import atomic_path, write_text
from utils.identity import FileSet
from utils.images import write_image
from utils.outputs import SETTINGS_FILE, commit_output, prepare_output
from utils.plans import Item, plan_output
from utils.progress import progress

logger = logging.getLogger(__name__)
_COLOR_SUFFIX = {"jpeg": ".jpg", "png": ".png", "raw": ".png"}


def extraction_inputs(stream: Path, frame_skip: int, depth: bool) -> dict[str, Any]:
    """What determines an extracted scene: the stream, the meshes beside it, and the settings."""
    meshes = {mesh.name: mesh for mesh in meshes_beside(stream)}
    return {"stream": FileSet({"stream": stream}), "meshes": FileSet(meshes), "frame_skip": frame_skip, "depth": depth}


def plan_extraction(stream: Path, scene: Path, frame_skip: int, depth: bool, overwrite: bool) -> Item:
    """What :func:`extract_scene` would do; reads the stream's header.

    Raises:
        UserError: as :func:`extract_scene`.
    """
    _check_target(scene)
    with SensReader(stream) as reader:
        _check_depth(reader, stream, depth)
        detail = f"{len(range(0, reader.header.num_frames, frame_skip))} frames"
    return plan_output(scene.name, scene, extraction_inputs(stream, frame_skip, depth), overwrite, detail)


def extract_scene(
    stream: Path, scene: Path, frame_skip: int = 1, depth: bool = True, overwrite: bool = False
) -> dict[str, int] | None:
    """Write a stream's frames as a scene folder; meshes beside the stream are linked.

    JPEG and PNG images keep their bytes. A frame's pose is written last: if it exists, the frame is complete.

    Args:
        stream: the ``.sens`` file.
        scene: the folder to make.
        frame_skip: take every n-th frame; frames keep their numbers in the stream.
        depth: write depth images.
        overwrite: make it again although it is there with other settings.

    Returns:
        counts of frames, of lost poses, of frames left out because their images are damaged, and of meshes linked, or
        None when the folder is there already.

    Raises:
        UserError: the stream ends early, has no frame that can be read, or ``scene`` exists and is something else.
    """
    _check_target(scene)
    with SensReader(stream) as reader:
        _check_depth(reader, stream, depth)
        folder = prepare_output(scene, extraction_inputs(stream, frame_skip, depth), overwrite)
        if folder is None:
            return None
        numbers = range(0, reader.header.num_frames, frame_skip)
        missing = {index for index in numbers if not _pose_path(folder, index).exists()}
        frames = reader.frames(frame_skip, missing)
        lost = 0
        damaged: list[str] = []
        for frame in progress(frames, stream.stem, len(missing), "frame"):
            try:
                _write_frame(folder, reader, frame, depth)
            except UserError as error:
                damaged.append(str(error))
                continue
            lost += not bool(torch.isfinite(frame.camera_to_world).all())
        if len(damaged) == len(numbers):
            raise UserError(damaged[0] if damaged else f"{stream} holds no frames; download it again")
        if damaged:
            logger.warning("%s: %d of %d frames left out, because they are damaged; the first: %s", stream.stem,
                           len(damaged), len(numbers), damaged[0])
        _write_calibration(folder, reader)
    _bring_meshes(stream, folder)
    commit_output(scene)
    return {"frames": len(numbers) - len(damaged), "extracted": len(missing) - len(damaged), "lost_poses": lost,
            "damaged": len(damaged), "meshes": len(meshes_beside(stream))}  # fmt: skip


def _check_target(scene: Path) -> None:
    if scene.exists() and not (scene / SETTINGS_FILE).exists():
        raise UserError(f"{scene} is there and was not made by 'extract'; choose another scans_dir")


def _check_depth(reader: SensReader, stream: Path, depth: bool) -> None:
    if depth and reader.header.depth_coding == "occi":
        raise UserError(f"{stream} stores depth in the 'occi' coding, which is not read; set extract.depth = False")


def _write_frame(folder: Path, reader: SensReader, frame: SensFrame, depth: bool) -> None:
    header = reader.header
    metres = reader.decode_depth(frame) if depth else None
    color_path = folder / "color" / f"{frame.index}{_COLOR_SUFFIX[header.color_coding]}"
    if header.color_coding == "raw":
        write_image(color_path, reader.decode_color(frame))
    else:
        with atomic_path(color_path, flushed=False) as temporary:
            temporary.write_bytes(frame.color_data)
    if metres is not None:
        write_depth(folder / "depth" / f"{frame.index}.png", metres)
    _write_matrix(_pose_path(folder, frame.index), frame.camera_to_world)


def _write_calibration(folder: Path, reader: SensReader) -> None:
    header = reader.header
    for name, matrix in (
        ("intrinsic_color", header.color_intrinsics),
        ("extrinsic_color", header.color_extrinsics),
        ("intrinsic_depth", header.depth_intrinsics),
        ("extrinsic_depth", header.depth_extrinsics),
    ):
        _write_matrix(folder / "intrinsic" / f"{name}.txt", matrix)


def meshes_beside(stream: Path) -> list[Path]:
    """The scene's meshes beside its stream."""
    return sorted(stream.parent.glob(f"{stream.stem}_vh_clean_2*.ply"))


def _bring_meshes(stream: Path, folder: Path) -> None:
    """Link the scene's meshes beside the stream into the folder; copy where the file system cannot link."""
    for mesh in meshes_beside(stream):
        target = folder / mesh.name
        target.unlink(missing_ok=True)
        try:
            os.link(mesh, target)
        except OSError:
            shutil.copyfile(mesh, target)


def _pose_path(folder: Path, index: int) -> Path:
    return folder / "pose" / f"{index}.txt"


def _write_matrix(path: Path, matrix: Tensor) -> None:
    # Nine significant digits give every float32 back exactly.
    text = "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in matrix.tolist())
    write_text(path, text, flushed=False)

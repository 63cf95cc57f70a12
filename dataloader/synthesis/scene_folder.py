"""Rooms on disk, in ScanNet's layout, or in nerfstudio's where their pictures are taken through a lens."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloader.ply_writer import write_elements
from dataloader.synthesis.lighting import illuminate
from dataloader.synthesis.pictures import PINHOLE, PictureOptions, noisy_pose, take_picture
from dataloader.synthesis.room import Room, RoomOptions, build_room
from dataloader.synthesis.shading import Shader
from dataloader.synthesis.transforms import COLOR_FOLDER, write_transforms
from dataloader.synthesis.walk import camera_path
from utils.depth_images import write_depth
from utils.files import write_text
from utils.images import write_image
from utils.outputs import commit_output, prepare_output
from utils.seeding import numpy_generator

logger = logging.getLogger(__name__)
FORMAT_VERSION = 1  # increased whenever the same settings give other bytes
FIRST_SCENE = 9000


def room_name(index: int) -> str:
    """The name of room ``index``: ScanNet's own numbers end at 806."""
    return f"scene{FIRST_SCENE + index:04d}_00"


def room_inputs(seed: int, index: int, room_options: RoomOptions, picture_options: PictureOptions) -> dict[str, Any]:
    """What determines a room's bytes."""
    pictures = dataclasses.asdict(picture_options)
    if picture_options.lens == PINHOLE:
        del pictures["lens"]  # rooms that were made before there was a choice stay valid
    return {"format": FORMAT_VERSION, "seed": seed, "index": index, "room": dataclasses.asdict(room_options),
            "pictures": pictures}


def write_room(folder: str | Path, seed: int, index: int, room_options: RoomOptions, picture_options: PictureOptions,
               overwrite: bool = False) -> bool:
    """Write one room as ``folder`` unless it is there with the same settings.

    Its bytes do not depend on interruptions. Returns whether anything was written.

    Raises:
        UserError: the folder was made with other settings, or the room cannot be furnished.
    """
    folder = Path(folder)
    target = prepare_output(folder, room_inputs(seed, index, room_options, picture_options), overwrite)
    if target is None:
        logger.info("%s is finished already", folder)
        return False
    room = build_room(seed, index, room_options)
    shader = Shader(room, illuminate(room, numpy_generator(seed, "light", index)))
    poses = camera_path(room, picture_options.frames, numpy_generator(seed, "walk", index))
    _write_meshes(target, folder.name, room)
    lens = picture_options.camera_lens()
    if lens is None:
        _write_intrinsics(target / "intrinsic", picture_options)
    for frame in range(picture_options.frames):
        _write_frame(target, room, shader, poses, picture_options, seed, index, frame)
    if lens is not None:
        write_transforms(target, picture_options.intrinsics(), picture_options.size, lens)
    commit_output(folder)
    logger.info("%s: %s, %d faces, %d frames", folder.name, room.kind, len(room.faces), picture_options.frames)
    return True


def _write_frame(target: Path, room: Room, shader: Shader, poses: np.ndarray, options: PictureOptions, seed: int,
                 index: int, frame: int) -> None:
    """Write one frame; its pose comes last, so that a frame with a pose is complete."""
    pose_path = target / "pose" / f"{frame}.txt"
    if pose_path.exists():
        return
    rng = numpy_generator(seed, "sensor", index, frame)
    lost = rng.random() < options.lost_share
    hand = numpy_generator(seed, "hand", index, frame)
    picture = take_picture(room, shader, poses[frame], options, rng, hand)
    color_folder = "color" if options.lens == PINHOLE else COLOR_FOLDER
    write_image(target / color_folder / f"{frame}.jpg", torch.from_numpy(picture.color))
    write_depth(target / "depth" / f"{frame}.png", torch.from_numpy(picture.depth))
    tracked = noisy_pose(poses[frame], options.pose_noise, hand) if any(options.pose_noise) else poses[frame]
    write_text(pose_path, _matrix_text(np.full((4, 4), -np.inf) if lost else tracked), flushed=False)


def _write_intrinsics(folder: Path, options: PictureOptions) -> None:
    intrinsics = np.eye(4)
    intrinsics[:3, :3] = options.intrinsics()
    for sensor in ("color", "depth"):
        write_text(folder / f"intrinsic_{sensor}.txt", _matrix_text(intrinsics))
        write_text(folder / f"extrinsic_{sensor}.txt", _matrix_text(np.eye(4)))


def _matrix_text(matrix: np.ndarray) -> str:
    return "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in matrix)


def _write_meshes(folder: Path, name: str, room: Room) -> None:
    colors = room.vertex_colors()
    write_ply(folder / f"{name}_vh_clean_2.ply", room.vertices, colors, room.faces)
    write_ply(folder / f"{name}_vh_clean_2.labels.ply", room.vertices, colors, room.faces, room.labels)


def write_ply(path: Path, vertices: np.ndarray, colors: np.ndarray, faces: np.ndarray,
              labels: np.ndarray | None = None) -> None:
    """Write a binary little-endian PLY with ScanNet's properties.

    Args:
        vertices: [N, 3] float32, metres.
        colors: [N, 3] uint8.
        faces: [F, 3] int32.
        labels: [N] uint16 NYU40 ids, as in ``*.labels.ply``; None leaves the property out.
    """
    positions, opaque = np.asarray(vertices, np.float32), np.full(len(vertices), 255, np.uint8)
    properties = {axis: positions[:, number] for number, axis in enumerate("xyz")}
    properties |= {name: colors[:, number] for number, name in enumerate(("red", "green", "blue"))}
    properties["alpha"] = opaque
    if labels is not None:
        properties["label"] = np.asarray(labels, np.uint16)
    write_elements(path, properties, faces)

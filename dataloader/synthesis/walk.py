"""Hand-held camera paths: around the room through free space, looking around."""

from __future__ import annotations

import numpy as np
import scipy  # loads its parts when they are used
import torch

from dataloader.synthesis.piece import Nyu40
from dataloader.synthesis.room import Room
from utils.cameras import look_at
from utils.errors import UserError
from utils.labels import UNANNOTATED, benchmark_set

CELL = 0.05  # metres, of the map of free space
LOW_FURNITURE = 0.8  # metres: what is lower than this, a camera may pass over
CLEARANCE = 0.42  # metres between the path and anything higher
CAMERA_HEIGHT = (1.2, 1.7)  # metres
ANGLES = 180
SMOOTHING = 9  # angles
LOOKED_AT = 1500  # points of the furniture that the camera looks at
ATTENTION_WIDTH = 0.6  # radians to either side of the heading
LOWEST_TILT = np.radians(-45)
USUAL_TILT = np.radians(-6)  # hand-held cameras look down a little


def camera_path(room: Room, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Camera-to-world poses [frames, 4, 4] float64 along a closed walk, mostly looking across the room.

    Raises:
        UserError: the room has no free space for a camera.
    """
    centre, radius = _walkable_loop(room)
    loops = max(1, round(frames / 24))
    time = np.arange(frames) / frames
    angle = 2 * np.pi * (rng.random() + loops * time)
    reach = 0.80 + 0.18 * np.sin(2 * np.pi * (2 * loops + 1) * time + rng.uniform(0, 6))
    distance = reach * np.interp(angle, np.arange(ANGLES) * 2 * np.pi / ANGLES, radius, period=2 * np.pi)
    height = np.mean(CAMERA_HEIGHT) + 0.22 * np.sin(2 * np.pi * (loops + 1) * time + rng.uniform(0, 6))
    eye = np.stack([centre[0] + distance * np.cos(angle), centre[1] + distance * np.sin(angle), height], axis=-1)
    yaw = angle + np.pi + 0.6 * np.sin(2 * np.pi * max(1, round(frames / 14)) * time + rng.uniform(0, 6))
    pitch = np.radians(17) * np.sin(2 * np.pi * max(1, round(frames / 9)) * time + rng.uniform(0, 6))
    turn, tilt = _attention(room, eye, yaw, rng)
    yaw, pitch = yaw + turn, pitch + tilt + USUAL_TILT
    forward = np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], axis=-1)
    poses = look_at(torch.from_numpy(eye), torch.from_numpy(eye + forward)).numpy()
    return _rolled(poses, np.radians(2.0) * np.sin(2 * np.pi * 5 * time + rng.uniform(0, 6)))


def _attention(room: Room, eye: np.ndarray, yaw: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of yaw and pitch from ``yaw`` [N] that look at furniture, above all of rare classes.

    Every frame looks at the mean direction of the furniture near its heading; smoothed over the walk.
    """
    kinds = benchmark_set().class_of_id[room.labels]
    furniture = np.flatnonzero((kinds != UNANNOTATED) & (room.labels != Nyu40.WALL) & (room.labels != Nyu40.FLOOR))
    interest = 1 / np.sqrt(np.bincount(kinds[furniture], minlength=benchmark_set().num_classes) + 1.0)
    weight = interest[kinds[furniture]]
    chosen = rng.choice(len(furniture), LOOKED_AT, p=weight / weight.sum())
    offset = room.vertices[furniture[chosen]] - eye[:, None]
    turn = np.arctan2(offset[..., 1], offset[..., 0]) - yaw[:, None]
    turn = np.arctan2(np.sin(turn), np.cos(turn))
    elevation = np.arctan2(offset[..., 2], np.hypot(offset[..., 0], offset[..., 1]))
    near = np.exp(-((turn / ATTENTION_WIDTH) ** 2)) + 1e-3
    near /= near.sum(axis=1, keepdims=True)
    return tuple(
        scipy.ndimage.gaussian_filter1d(strength * (near * direction).sum(axis=1), 1.0, mode="wrap")
        for strength, direction in ((0.7, turn), (0.85, np.maximum(elevation, LOWEST_TILT)))
    )


def _rolled(poses: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Poses rotated about their optical axes by ``angle`` [N] radians."""
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    rolled = poses.copy()
    rolled[:, :3, 0] = cosine * poses[:, :3, 0] + sine * poses[:, :3, 1]
    rolled[:, :3, 1] = cosine * poses[:, :3, 1] - sine * poses[:, :3, 0]
    return rolled


def _walkable_loop(room: Room) -> tuple[np.ndarray, np.ndarray]:
    """A centre [2] and the free distance from it at each of ``ANGLES`` angles, smoothed inwards."""
    free, room_left = _free_space(room)
    x, y = (np.arange(count) * CELL + CELL / 2 for count in free.shape)
    from_middle = np.hypot(*np.meshgrid(x - room.size[0] / 2, y - room.size[1] / 2, indexing="ij"))
    score = np.where(free, np.minimum(room_left, 0.9) - 0.25 * from_middle, -np.inf)
    best = np.unravel_index(np.argmax(score), score.shape)
    if not free[best]:
        raise UserError(f"a {room.kind} of {room.size[0]:.1f} x {room.size[1]:.1f} m leaves no room for a camera; "
                        "take another seed")
    centre = np.array([x[best[0]], y[best[1]]])
    steps = np.arange(0, max(room.size), CELL / 2)
    angle = np.arange(ANGLES) * 2 * np.pi / ANGLES
    i = np.floor((centre[0] + steps * np.cos(angle)[:, None]) / CELL).astype(int)
    j = np.floor((centre[1] + steps * np.sin(angle)[:, None]) / CELL).astype(int)
    inside = (i >= 0) & (i < free.shape[0]) & (j >= 0) & (j < free.shape[1])
    open_cell = inside & free[np.clip(i, 0, free.shape[0] - 1), np.clip(j, 0, free.shape[1] - 1)]
    reach = steps[np.argmin(open_cell, axis=1)]
    nearest = scipy.ndimage.minimum_filter1d(reach, SMOOTHING, mode="wrap")
    reach = scipy.ndimage.uniform_filter1d(nearest, SMOOTHING, mode="wrap")
    return centre, reach


def _free_space(room: Room) -> tuple[np.ndarray, np.ndarray]:
    """Cells [X, Y] in which a camera may be, and the metres from each to the next obstacle."""
    shape = tuple(int(np.ceil(length / CELL)) for length in room.size[:2])
    high = (room.vertices[:, 2] > LOW_FURNITURE) & (room.vertices[:, 2] < CAMERA_HEIGHT[1] + 0.4)
    points = room.vertices[high & (room.labels != Nyu40.CEILING)]
    cell = np.clip((points[:, :2] / CELL).astype(int), 0, np.array(shape) - 1)
    blocked = np.zeros(shape, dtype=bool)
    blocked[cell[:, 0], cell[:, 1]] = True
    room_left = scipy.ndimage.distance_transform_edt(~blocked) * CELL
    return room_left >= CLEARANCE, room_left

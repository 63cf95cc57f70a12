"""Hand-held camera paths: round the room through free space while looking about."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from dataloader.synthesis.piece import Nyu40
from dataloader.synthesis.room import Room
from utils.cameras import look_at
from utils.errors import UserError

CELL = 0.05  # metres, of the map of free space
LOW_FURNITURE = 0.8  # metres: what is lower than this, a camera may pass over
CLEARANCE = 0.42  # metres between the path and anything higher
CAMERA_HEIGHT = (1.2, 1.7)  # metres
ANGLES = 180
SMOOTHING = 9  # angles


def camera_path(room: Room, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Camera-to-world poses [frames, 4, 4] float64 along a closed walk, mostly looking across the room.

    Raises:
        UserError: the room has no place to stand in.
    """
    centre, radius = _walkable_loop(room)
    loops = max(1, round(frames / 24))
    time = np.arange(frames) / frames
    angle = 2 * np.pi * (rng.random() + loops * time)
    reach = 0.80 + 0.18 * np.sin(2 * np.pi * (2 * loops + 1) * time + rng.uniform(0, 6))
    distance = reach * np.interp(angle, np.arange(ANGLES) * 2 * np.pi / ANGLES, radius, period=2 * np.pi)
    height = np.mean(CAMERA_HEIGHT) + 0.22 * np.sin(2 * np.pi * (loops + 1) * time + rng.uniform(0, 6))
    eye = np.stack([centre[0] + distance * np.cos(angle), centre[1] + distance * np.sin(angle), height], axis=-1)
    swing = 0.7 * np.sin(2 * np.pi * max(1, round(frames / 14)) * time + rng.uniform(0, 6))
    yaw = angle + np.pi + swing
    pitch = np.radians(-15) + np.radians(17) * np.sin(2 * np.pi * max(1, round(frames / 9)) * time + rng.uniform(0, 6))
    forward = np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], axis=-1)
    poses = look_at(torch.from_numpy(eye), torch.from_numpy(eye + forward)).numpy()
    return _rolled(poses, np.radians(2.0) * np.sin(2 * np.pi * 5 * time + rng.uniform(0, 6)))


def _rolled(poses: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Poses turned about their optical axes by ``angle`` [N] radians."""
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    rolled = poses.copy()
    rolled[:, :3, 0] = cosine * poses[:, :3, 0] + sine * poses[:, :3, 1]
    rolled[:, :3, 1] = cosine * poses[:, :3, 1] - sine * poses[:, :3, 0]
    return rolled


def _walkable_loop(room: Room) -> tuple[np.ndarray, np.ndarray]:
    """A centre [2] and how far one can go from it at each of ``ANGLES`` angles, smoothed inwards."""
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
    reach = ndimage.uniform_filter1d(ndimage.minimum_filter1d(reach, SMOOTHING, mode="wrap"), SMOOTHING, mode="wrap")
    return centre, reach


def _free_space(room: Room) -> tuple[np.ndarray, np.ndarray]:
    """Cells [X, Y] in which a camera may be, and the metres from each to the next obstacle."""
    shape = tuple(int(np.ceil(length / CELL)) for length in room.size[:2])
    high = (room.vertices[:, 2] > LOW_FURNITURE) & (room.vertices[:, 2] < CAMERA_HEIGHT[1] + 0.4)
    points = room.vertices[high & (room.labels != Nyu40.CEILING)]
    cell = np.clip((points[:, :2] / CELL).astype(int), 0, np.array(shape) - 1)
    blocked = np.zeros(shape, dtype=bool)
    blocked[cell[:, 0], cell[:, 1]] = True
    room_left = ndimage.distance_transform_edt(~blocked) * CELL
    return room_left >= CLEARANCE, room_left

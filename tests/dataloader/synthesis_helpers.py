"""What the tests of generated rooms share: coarse rooms, small pictures, a whole room's worth of frames."""

from functools import lru_cache

import numpy as np
import torch

from dataloader.synthesis import (
    PictureOptions,
    Room,
    RoomOptions,
    Shader,
    build_room,
    camera_path,
    illuminate,
)
from lib.raster import rasterize
from utils.cameras import rigid_inverse
from utils.seeding import numpy_generator

SEED = 0
ROOMS = 6
ROOM_OPTIONS = RoomOptions(edge=0.1)
PICTURE_OPTIONS = PictureOptions(size=(60, 80), frames=24)


@lru_cache(maxsize=ROOMS)
def default_room(index: int) -> Room:
    return build_room(SEED, index, ROOM_OPTIONS)


@lru_cache(maxsize=ROOMS)
def default_path(index: int) -> np.ndarray:
    return camera_path(default_room(index), PICTURE_OPTIONS.frames, numpy_generator(SEED, "walk", index))


@lru_cache(maxsize=ROOMS)
def default_shader(index: int) -> Shader:
    return Shader(default_room(index), illuminate(default_room(index), numpy_generator(SEED, "light", index)))


def faces_seen(room: Room, poses: np.ndarray, options: PictureOptions) -> np.ndarray:
    """Visible face [N, H, W] of each pose, -1 where nothing is hit."""
    intrinsics = torch.from_numpy(options.intrinsics()).expand(len(poses), 3, 3)
    return rasterize(
        torch.from_numpy(room.vertices), torch.from_numpy(room.faces), rigid_inverse(torch.from_numpy(poses)),
        intrinsics, *options.size,
    ).face.numpy()

"""The images of a room: colour and depth."""

from __future__ import annotations

from dataclasses import dataclass

import gin
import numpy as np
import torch

from dataloader.synthesis.room import Room
from dataloader.synthesis.shading import Shader
from lib.raster import rasterize
from utils.cameras import rigid_inverse, scale_intrinsics
from utils.errors import UserError

SUPERSAMPLING = 2
GLASS_SHININESS = 60.0  # materials with such narrow highlights count as glass for the depth sensor


@gin.configurable
@dataclass(frozen=True)
class PictureOptions:
    """The images taken of each room.

    Attributes:
        size: (height, width) of colour and depth images.
        frames: images per room.
        field_of_view: horizontal, in degrees.
        noise: standard deviation of the colour sensor's noise, in units of white.
        depth_holes: no depth on glass and mirrors, as with real sensors.
        lost_share: share of frames whose pose is written as -inf, as where ScanNet's tracking was lost.
    """

    size: tuple[int, int] = (240, 320)
    frames: int = 48
    field_of_view: float = 60.0
    noise: float = 0.004
    depth_holes: bool = False
    lost_share: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        if len(self.size) != 2 or min(self.size) < 8:
            raise UserError(f"PictureOptions.size = {self.size}; expected (height, width) of at least 8 pixels")
        if self.frames < 1 or not 10 <= self.field_of_view <= 140 or not 0 <= self.lost_share < 1:
            raise UserError("PictureOptions: expected frames >= 1, field_of_view in 10..140 and lost_share in 0..1; "
                            f"found {self.frames}, {self.field_of_view} and {self.lost_share}")

    def intrinsics(self) -> np.ndarray:
        """3x3 float64. As in real cameras fx != fy and the principal point is a little off the centre."""
        height, width = self.size
        focal = 0.5 * width / np.tan(np.radians(self.field_of_view) / 2)
        return np.array([[focal, 0, 0.507 * width], [0, 1.006 * focal, 0.492 * height], [0, 0, 1]])


@dataclass(frozen=True)
class Picture:
    """One frame."""

    color: np.ndarray  # [3, H, W] uint8
    depth: np.ndarray  # [H, W] float32, metres along the optical axis, 0 where unknown


def take_picture(room: Room, shader: Shader, pose: np.ndarray, options: PictureOptions,
                 rng: np.random.Generator) -> Picture:
    """The room from a camera-to-world ``pose`` [4, 4]; ``rng`` draws the sensor's noise."""
    height, width = options.size
    fine_size = (height * SUPERSAMPLING, width * SUPERSAMPLING)
    intrinsics = torch.from_numpy(options.intrinsics())
    face, barycentric, _ = _rasterized(room, pose, scale_intrinsics(intrinsics, options.size, fine_size), fine_size)
    light = shader(face.reshape(-1), barycentric.reshape(-1, 3), pose[:3, 3])
    light = light.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING, 3)
    color = np.sqrt((light[:, 0, :, 0] + light[:, 0, :, 1] + light[:, 1, :, 0] + light[:, 1, :, 1]) / 4)
    if options.noise > 0:
        color = color + np.float32(options.noise) * rng.standard_normal(color.shape, dtype=np.float32)
    color = np.round(np.clip(color, 0, 1) * 255).astype(np.uint8)

    face, _, depth = _rasterized(room, pose, intrinsics, options.size)
    if options.depth_holes:
        glass = room.materials.shininess[shader.material_of(face)] >= GLASS_SHININESS
        depth = np.where(glass, np.float32(0), depth)
    return Picture(np.ascontiguousarray(color.transpose(2, 0, 1)), depth)


def _rasterized(room: Room, pose: np.ndarray, intrinsics: torch.Tensor,
                size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Face [H, W], barycentrics [H, W, 3] and depth [H, W] of one view."""
    world_to_camera = rigid_inverse(torch.from_numpy(pose)).float()
    fragments = rasterize(torch.from_numpy(room.vertices), torch.from_numpy(room.faces), world_to_camera[None],
                          intrinsics.float()[None], *size)
    return fragments.face[0].numpy(), fragments.barycentric[0].numpy(), fragments.depth[0].numpy()

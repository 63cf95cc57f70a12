"""The images of a room: colour and depth."""

from __future__ import annotations

from dataclasses import dataclass

import gin
import numpy as np
import scipy  # loads its parts when they are used
import torch

from dataloader.synthesis.room import Room
from dataloader.synthesis.shading import Shader
from lib.raster import rasterize
from utils.cameras import rigid_inverse, scale_intrinsics
from utils.errors import UserError, check_choice
from utils.lenses import FISHEYE, Lens

SUPERSAMPLING = 2
SHUTTER_SAMPLES = 4
PINHOLE = "pinhole"
WIDEST = {PINHOLE: 140, "fisheye": 240}
"""Largest field of view, in degrees, of each lens."""
DISTORTION = (-0.02, 0.004, -0.001, 1e-4)  # k1..k4 of the fisheye lens, about a real one's
GLASS_SHININESS = 60.0  # materials with such narrow highlights count as glass for the depth sensor


@gin.configurable
@dataclass(frozen=True)
class PictureOptions:
    """The images taken of each room.

    Attributes:
        size: (height, width) of colour and depth images.
        frames: images per room.
        field_of_view: horizontal, in degrees; of a fisheye lens, of its whole image circle, which is as wide as the
            pictures.
        lens: "pinhole", or "fisheye" for an equidistant lens with a little distortion. Its rooms are written in
            nerfstudio's layout, and their depth is the distance along the ray.
        noise: standard deviation of the colour sensor's noise, in units of white.
        depth_holes: no depth on glass and mirrors, as with real sensors.
        lost_share: share of frames whose pose is written as -inf, as where ScanNet's tracking was lost.
        exposure: standard deviation of the frames' exposures, in stops (factors of two of the light).
        motion_blur: standard deviation of how far the camera turns while the shutter is open, in degrees.
        pose_noise: standard deviations of the error of the written poses: metres along each axis, and degrees.
    """

    size: tuple[int, int] = (240, 320)
    frames: int = 48
    field_of_view: float = 60.0
    noise: float = 0.004
    depth_holes: bool = False
    lost_share: float = 0.0
    exposure: float = 0.0
    motion_blur: float = 0.0
    pose_noise: tuple[float, float] = (0.0, 0.0)
    lens: str = PINHOLE

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "pose_noise", tuple(self.pose_noise))
        if len(self.pose_noise) != 2 or min(self.noise, self.exposure, self.motion_blur, *self.pose_noise) < 0:
            raise UserError("PictureOptions: expected noise, exposure, motion_blur and both of pose_noise from 0 on; "
                            f"found {self.noise}, {self.exposure}, {self.motion_blur} and {self.pose_noise}")
        if len(self.size) != 2 or min(self.size) < 8:
            raise UserError(f"PictureOptions.size = {self.size}; expected (height, width) of at least 8 pixels")
        check_choice("PictureOptions.lens", self.lens, WIDEST)
        widest = WIDEST[self.lens]
        if self.frames < 1 or not 10 <= self.field_of_view <= widest or not 0 <= self.lost_share < 1:
            raise UserError(f"PictureOptions: expected frames >= 1, field_of_view in 10..{widest} and lost_share in "
                            f"0..1; found {self.frames}, {self.field_of_view} and {self.lost_share}")

    def intrinsics(self) -> np.ndarray:
        """3x3 float64. As in real cameras fx != fy and the principal point is a little off the centre."""
        height, width = self.size
        angle = np.radians(self.field_of_view) / 2
        focal = 0.5 * width / (np.tan(angle) if self.lens == PINHOLE else angle * _radial_scale(angle))
        return np.array([[focal, 0, 0.507 * width], [0, 1.006 * focal, 0.492 * height], [0, 0, 1]])


    def camera_lens(self) -> Lens | None:
        """The lens; None for a pinhole."""
        if self.lens == PINHOLE:
            return None
        return Lens(FISHEYE, DISTORTION, limit=float(np.radians(self.field_of_view) / 2))


def _radial_scale(angle: float) -> float:
    return 1 + sum(value * angle ** (2 * power) for power, value in enumerate(DISTORTION, start=1))


@dataclass(frozen=True)
class Picture:
    """One frame."""

    color: np.ndarray  # [3, H, W] uint8
    depth: np.ndarray  # [H, W] float32, metres along the optical axis, a fisheye lens's along the ray, 0 where unknown


def take_picture(room: Room, shader: Shader, pose: np.ndarray, options: PictureOptions,
                 rng: np.random.Generator, hand: np.random.Generator) -> Picture:
    """The room from a camera-to-world ``pose`` [4, 4].

    Args:
        rng: draws the sensor's noise.
        hand: draws exposure and motion.
    """
    intrinsics = torch.from_numpy(options.intrinsics())
    gain = np.float32(2.0 ** (options.exposure * hand.standard_normal()))
    light = gain * _light(room, shader, pose, intrinsics, options, hand)
    color = np.sqrt(light)
    if options.noise > 0:
        color = color + np.float32(options.noise) * rng.standard_normal(color.shape, dtype=np.float32)
    color = np.round(np.clip(color, 0, 1) * 255).astype(np.uint8)

    face, _, depth = _rasterized(room, pose, intrinsics, options.size, options.camera_lens())
    if options.depth_holes:
        glass = room.materials.shininess[shader.material_of(face)] >= GLASS_SHININESS
        depth = np.where(glass, np.float32(0), depth)
    return Picture(np.ascontiguousarray(color.transpose(2, 0, 1)), depth)


def _light(room: Room, shader: Shader, pose: np.ndarray, intrinsics: torch.Tensor, options: PictureOptions,
           hand: np.random.Generator) -> np.ndarray:
    """Mean light [H, W, 3] of each pixel over its area, or, where the camera moves, over the time of the shutter."""
    (height, width), lens = options.size, options.camera_lens()
    if options.motion_blur > 0:
        poses = moving_poses(pose, options.motion_blur, hand)
        lights = (_shaded(room, shader, each, intrinsics, options.size, lens) for each in poses)
        return sum(lights) / np.float32(len(poses))
    fine_size = (height * SUPERSAMPLING, width * SUPERSAMPLING)
    light = _shaded(room, shader, pose, scale_intrinsics(intrinsics, options.size, fine_size), fine_size, lens)
    light = light.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING, 3)
    return (light[:, 0, :, 0] + light[:, 0, :, 1] + light[:, 1, :, 0] + light[:, 1, :, 1]) / 4


def _shaded(room: Room, shader: Shader, pose: np.ndarray, intrinsics: torch.Tensor,
            size: tuple[int, int], lens: Lens | None) -> np.ndarray:
    face, barycentric, _ = _rasterized(room, pose, intrinsics, size, lens)
    return shader(face.reshape(-1), barycentric.reshape(-1, 3), pose[:3, 3]).reshape(*size, 3)


def moving_poses(pose: np.ndarray, degrees: float, hand: np.random.Generator) -> list[np.ndarray]:
    """Poses while the shutter is open, ``pose`` in their middle: the camera turns about an axis drawn at random.

    The angle from first to last is normally distributed with a standard deviation of ``degrees``.
    """
    axis = hand.standard_normal(3)
    turn = np.radians(degrees) * hand.standard_normal() * axis / np.linalg.norm(axis)
    return [_turned(pose, share * turn) for share in np.linspace(-0.5, 0.5, SHUTTER_SAMPLES)]


def noisy_pose(pose: np.ndarray, noise: tuple[float, float], hand: np.random.Generator) -> np.ndarray:
    """A pose with an error: standard deviations in metres along each axis, and in degrees about each."""
    moved = _turned(pose, np.radians(noise[1]) * hand.standard_normal(3))
    moved[:3, 3] += noise[0] * hand.standard_normal(3)
    return moved


def _turned(pose: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The camera turned about its own axes by a rotation vector [3] in radians."""
    turned = pose.copy()
    turned[:3, :3] = pose[:3, :3] @ scipy.spatial.transform.Rotation.from_rotvec(turn).as_matrix()
    return turned


def _rasterized(room: Room, pose: np.ndarray, intrinsics: torch.Tensor, size: tuple[int, int],
                lens: Lens | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Face [H, W], barycentrics [H, W, 3] and depth [H, W] of one view."""
    world_to_camera = rigid_inverse(torch.from_numpy(pose)).float()
    fragments = rasterize(torch.from_numpy(room.vertices), torch.from_numpy(room.faces), world_to_camera[None],
                          intrinsics.float()[None], *size, lens=lens, tree=room.ray_tree if lens else None)
    return fragments.face[0].numpy(), fragments.barycentric[0].numpy(), fragments.depth[0].numpy()

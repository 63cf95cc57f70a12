"""Conversion between ScanNet's cameras and Blender's, in NumPy alone.

ScanNet poses are camera-to-world with OpenCV axes (x right, y down, z forward); Blender's cameras look along -z with
y up. Blender has one focal length and a shift; fx != fy becomes the pixel aspect of the scene's render settings.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SENSOR_WIDTH = 36.0
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


class CameraSettings(NamedTuple):
    """Blender's camera settings for ``sensor_fit = 'HORIZONTAL'``; lens and sensor width in millimetres."""

    lens: float
    sensor_width: float
    shift_x: float
    shift_y: float
    pixel_aspect_x: float
    pixel_aspect_y: float


def to_blender(camera_to_world: np.ndarray) -> np.ndarray:
    """A Blender camera's world matrix ``[4, 4]`` from an OpenCV camera-to-world pose."""
    return np.asarray(camera_to_world, dtype=np.float64) @ _FLIP


def from_blender(matrix_world: np.ndarray) -> np.ndarray:
    """An OpenCV camera-to-world pose from a Blender camera's world matrix; the object's scale is removed."""
    pose = np.asarray(matrix_world, dtype=np.float64) @ _FLIP
    pose[:3, :3] /= np.linalg.norm(pose[:3, :3], axis=0, keepdims=True)
    return pose


def settings_from_intrinsics(intrinsics: np.ndarray, height: int, width: int) -> CameraSettings:
    """Settings for pinhole intrinsics ``[3, 3]`` (or ScanNet's ``[4, 4]``) of a ``height`` x ``width`` image."""
    fx, fy, cx, cy = (intrinsics[0][0], intrinsics[1][1], intrinsics[0][2], intrinsics[1][2])
    pixel_height = fx / fy  # in pixel widths
    return CameraSettings(
        lens=SENSOR_WIDTH * fx / width,
        sensor_width=SENSOR_WIDTH,
        shift_x=(width / 2 - cx) / width,
        shift_y=(cy - height / 2) * pixel_height / width,
        pixel_aspect_x=max(1.0, 1.0 / pixel_height),
        pixel_aspect_y=max(1.0, pixel_height),
    )


def intrinsics_from_settings(settings: CameraSettings, height: int, width: int) -> np.ndarray:
    """The inverse of :func:`settings_from_intrinsics`."""
    pixel_height = settings.pixel_aspect_y / settings.pixel_aspect_x
    fx = settings.lens / settings.sensor_width * width
    cx = width / 2 - settings.shift_x * width
    cy = height / 2 + settings.shift_y * width / pixel_height
    return np.array([[fx, 0.0, cx], [0.0, fx / pixel_height, cy], [0.0, 0.0, 1.0]])


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """OpenCV camera-to-world pose of an upright camera (+Z is up) at ``eye [3]`` that faces ``target [3]``."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    length = np.linalg.norm(right)
    right = right / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, eye
    return pose


def dome_poses(
    target: np.ndarray, radius: float, azimuths: int = 8, elevations: tuple[float, ...] = (20.0, 40.0, 60.0)
) -> np.ndarray:
    """Poses ``[N, 4, 4]`` on a dome of ``radius`` metres around ``target [3]``; elevations in degrees, upward."""
    target = np.asarray(target, dtype=np.float64)
    poses = []
    for elevation in np.radians(elevations):
        for azimuth in np.arange(azimuths) * 2 * np.pi / azimuths:
            offset = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
            poses.append(look_at(target + radius * np.array(offset), target))
    return np.stack(poses)

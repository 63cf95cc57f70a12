"""Conversion between viser's cameras and ours.

Viser's cameras have our axes (OpenCV: x right, y down, z forward). They are a position, a unit quaternion
``(w, x, y, z)`` from camera to world, a vertical field of view in radians, and an aspect ratio, width over height. The
principal point is the centre and pixels are square, so a ScanNet camera is matched in pose and vertical field of view
only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dataloader import CameraList
from utils.rotations import quaternion_to_matrix

_WIDEST_SHOWN = math.radians(140)


@dataclass(frozen=True)
class BrowserCamera:
    """The camera of a browser's view.

    Attributes:
        camera_to_world: float64 ``[4, 4]``.
        fov: vertical field of view, radians.
        aspect: width over height.
    """

    camera_to_world: Tensor
    fov: float
    aspect: float

    @classmethod
    def from_viser(cls, wxyz: np.ndarray, position: np.ndarray, fov: float, aspect: float) -> BrowserCamera:
        """From the properties of a viser camera handle."""
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = quaternion_to_matrix(wxyz)
        pose[:3, 3] = torch.as_tensor(np.asarray(position, dtype=np.float64))
        return cls(pose, float(fov), float(aspect))

    def intrinsics(self, size: tuple[int, int]) -> Tensor:
        """Intrinsics float64 ``[3, 3]`` of an image of ``size`` that shows exactly what the browser shows.

        Rows scale independently: rounding a size to whole pixels stretches the pixels, not the view.
        """
        height, width = size
        focal = height / (2 * math.tan(self.fov / 2))
        focal_x = width / (2 * math.tan(self.fov / 2) * self.aspect)
        return torch.tensor([[focal_x, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)

    def size(self, height: int) -> tuple[int, int]:
        """An image size of that height and the browser's aspect ratio, at least one pixel wide."""
        return height, max(1, round(height * self.aspect))

    def size_at_focal(self, focal_x: float, focal_y: float, limit: int = 1024) -> tuple[int, int]:
        """The size at which the view has given focal lengths, in pixels: objects as large as in a training view."""
        height = 2 * focal_y * math.tan(self.fov / 2)
        width = 2 * focal_x * math.tan(self.fov / 2) * self.aspect
        shrink = min(1.0, limit / max(height, width))
        return max(16, round(height * shrink)), max(16, round(width * shrink))


def vertical_fov(intrinsics: Tensor, height: int) -> float:
    """Vertical field of view, radians, of a camera whose principal point is assumed to be the centre."""
    return 2 * math.atan(height / (2 * float(intrinsics[1, 1])))


def view_aspect(intrinsics: Tensor, size: tuple[int, int]) -> float:
    """Aspect ratio of the view itself, width over height, whatever the aspect of its pixels."""
    height, width = size
    return (width / float(intrinsics[0, 0])) / (height / float(intrinsics[1, 1]))


def view_shape(cameras: CameraList, index: int) -> tuple[float, float]:
    """Vertical field of view in radians and aspect ratio of the pinhole view that stands for a camera's.

    Through a lens: that with the same angles to the borders, up to 140 degrees across, beyond which no pinhole view is
    worth looking at.
    """
    intrinsics, (height, width) = cameras.intrinsics[index], cameras.image_size
    if cameras.lens is None:
        return vertical_fov(intrinsics, height), view_aspect(intrinsics, (height, width))
    across, down = width / 2 / float(intrinsics[0, 0]), height / 2 / float(intrinsics[1, 1])
    directions, found = cameras.lens.directions(torch.tensor([[across, 0.0], [0.0, down]], dtype=torch.float64))
    reach = cameras.lens.reach if cameras.lens.is_fisheye else math.atan(cameras.lens.reach)
    angles = torch.where(found, torch.atan2(directions[:, :2].norm(dim=1), directions[:, 2]), reach)
    across, down = torch.tan(angles.clamp(max=_WIDEST_SHOWN / 2)).tolist()
    return 2 * math.atan(down), across / down


def interpolate_path(cameras: Sequence[BrowserCamera], frames: int) -> list[BrowserCamera]:
    """A path of ``frames`` cameras through all given ones: slerp of rotations, cubic spline of positions.

    The field of view is interpolated linearly; the aspect ratio is the first camera's.

    Raises:
        ValueError: fewer than two cameras or frames.
    """
    from scipy.interpolate import CubicSpline
    from scipy.spatial.transform import Rotation, Slerp

    if len(cameras) < 2 or frames < 2:
        raise ValueError(f"a path needs two cameras and two frames, found {len(cameras)} and {frames}")
    poses = torch.stack([camera.camera_to_world for camera in cameras]).numpy()
    times, wanted = np.linspace(0, 1, len(cameras)), np.linspace(0, 1, frames)
    rotations = Slerp(times, Rotation.from_matrix(poses[:, :3, :3]))(wanted).as_matrix()
    positions = CubicSpline(times, poses[:, :3, 3])(wanted)
    fovs = np.interp(wanted, times, [camera.fov for camera in cameras])
    path = np.tile(np.eye(4), (frames, 1, 1))
    path[:, :3, :3], path[:, :3, 3] = rotations, positions
    return [
        BrowserCamera(torch.from_numpy(pose), float(fov), cameras[0].aspect)
        for pose, fov in zip(path, fovs, strict=True)
    ]

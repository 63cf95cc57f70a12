"""A calibrated camera: pinhole intrinsics and Brown-Conrady distortion, as in OpenCV and COLMAP.

A point (x, y) of the normalised image plane projects to the pixel (fx x' + cx, fy y' + cy), where, with
r^2 = x^2 + y^2 and s = 1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8:

    x' = s x + 2 p1 x y + p2 (r^2 + 2 x^2),    y' = s y + p1 (r^2 + 2 y^2) + 2 p2 x y
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError, short
from utils.limits import LARGEST_SIDE

_BORDER_SAMPLES = 128
_NEWTON_STEPS = 50
_CONVERGED = 1e-10
_SAME_ASPECT = 0.01
_LARGEST_NUMBER = 1e9
_SHORTEST, _LONGEST = 1e-3, 1e4  # focal lengths, as shares of the picture's width or height


class Rectangle(NamedTuple):
    """A camera's field of view, on the normalised image plane."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """0 when it is empty."""
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def intersection(self, other: Rectangle) -> Rectangle:
        """The common part."""
        return Rectangle(max(self.left, other.left), max(self.top, other.top),
                         min(self.right, other.right), min(self.bottom, other.bottom))  # fmt: skip


@dataclass(frozen=True)
class Lens:
    """See the module's docstring. Pixel centres are at +0.5.

    Attributes:
        size: (height, width) of its images.
        focal: (fx, fy) in pixels.
        center: (cx, cy), the principal point, in pixels.
        radial: (k1, k2, k3, k4).
        tangential: (p1, p2).
        source: the file it was read from, for messages.
    """

    size: tuple[int, int]
    focal: tuple[float, float]
    center: tuple[float, float]
    radial: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    tangential: tuple[float, float] = (0.0, 0.0)
    source: str = ""

    def __post_init__(self) -> None:
        numbers = torch.tensor([*self.focal, *self.center, *self.radial, *self.tangential], dtype=torch.float64)
        sound = 1 <= min(self.size) and max(self.size) <= LARGEST_SIDE and float(numbers.abs().max()) < _LARGEST_NUMBER
        if not sound or not is_plausible_focal(self.focal, self.size):
            raise UserError(f"{self.source}: a camera of {short(self.size[1])}x{short(self.size[0])} pixels with focal "
                            f"lengths {self.focal}, principal point {self.center} and distortion "
                            f"{(*self.radial, *self.tangential)}; expected finite numbers and focal lengths of about "
                            "the pictures' size")

    @property
    def is_pinhole(self) -> bool:
        """Whether there is no distortion."""
        return not any(self.radial) and not any(self.tangential)

    @property
    def intrinsics(self) -> Tensor:
        """float64 ``[3, 3]`` of the pinhole, without the distortion."""
        (fx, fy), (cx, cy) = self.focal, self.center
        return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)

    def resized(self, size: tuple[int, int]) -> Lens:
        """The same camera for images resized to ``size``.

        Raises:
            UserError: the images have another aspect ratio: they were cropped or rotated.
        """
        if size == self.size:
            return self
        factor_y, factor_x = size[0] / self.size[0], size[1] / self.size[1]
        if abs(factor_x / factor_y - 1) > _SAME_ASPECT:
            raise UserError(f"{self.source}: a camera of {self.size[1]}x{self.size[0]} pixels, but its images are "
                            f"{size[1]}x{size[0]}, which is another aspect ratio; take the images that the camera was "
                            "calibrated with")
        return replace(self, size=size, focal=(self.focal[0] * factor_x, self.focal[1] * factor_y),
                       center=(self.center[0] * factor_x, self.center[1] * factor_y))  # fmt: skip

    def distort(self, points: Tensor) -> Tensor:
        """Distorted points (x', y') of points (x, y) ``[..., 2]`` of the normalised image plane."""
        x, y = points.unbind(-1)
        squared = x * x + y * y
        scale = self._radial_scale(squared)
        p1, p2 = self.tangential
        return torch.stack((
            scale * x + 2 * p1 * x * y + p2 * (squared + 2 * x * x),
            scale * y + p1 * (squared + 2 * y * y) + 2 * p2 * x * y,
        ), dim=-1)  # fmt: skip

    def undistort(self, distorted: Tensor) -> Tensor:
        """Inverse of :meth:`distort` for ``[..., 2]`` float64, by Newton's method.

        Raises:
            UserError: no point is mapped there, or several are.
        """
        points = distorted.clone()
        for _ in range(_NEWTON_STEPS):
            error = self.distort(points) - distorted
            if float(error.abs().max()) < _CONVERGED:
                break
            step, _ = torch.linalg.solve_ex(self._jacobian(points), error[..., None])
            points = points - step[..., 0]
        converged = bool((self.distort(points) - distorted).abs().max() < 1e-6)
        if not converged or not bool((points.norm(dim=-1) < self.fold_radius).all()):
            raise self._folds()
        return points

    @property
    def fold_radius(self) -> float:
        """Distance from the axis, on the normalised plane, beyond which the radial distortion is not monotonic."""
        slopes = [(2 * power + 1) * value for power, value in reversed(list(enumerate((1.0, *self.radial))))]
        roots = np.roots(slopes)
        squared = roots[(np.abs(roots.imag) < 1e-12 * np.abs(roots)) & (roots.real > 0)].real
        return math.sqrt(squared.min()) if len(squared) else math.inf

    def _folds(self) -> UserError:
        return UserError(f"{self.source}: distortion {self.radial[:2]} folds the images before their border, so "
                         "they cannot be made pinhole images; calibrate the camera again with other parameters, or "
                         "crop the images first")

    def to_pixels(self, points: Tensor) -> Tensor:
        """Pixels (u, v) ``[..., 2]`` of points (x, y) of the normalised image plane."""
        return self.distort(points) * points.new_tensor(self.focal) + points.new_tensor(self.center)

    def visible_rectangle(self) -> Rectangle:
        """The largest box between the undistorted borders: a pinhole camera that sees it has no blank pixels.

        Where the border itself cannot be undistorted, as often with a wide lens's corners, the largest box of the
        aspect ratio that the axes allow.

        Raises:
            UserError: that is less than half of the image's width or height.
        """
        try:
            return self._rectangle_between_borders()
        except UserError:
            return self._rectangle_before_fold()

    def _rectangle_between_borders(self) -> Rectangle:
        height, width = self.size
        along = torch.linspace(0, 1, _BORDER_SAMPLES + 1, dtype=torch.float64)
        zero, one = torch.zeros_like(along), torch.ones_like(along)
        edges = torch.stack((
            torch.stack((zero, along), -1), torch.stack((along, zero), -1),
            torch.stack((one, along), -1), torch.stack((along, one), -1),
        ))  # fmt: skip
        pixels = edges * edges.new_tensor([width, height])
        plane = (pixels - pixels.new_tensor(self.center)) / pixels.new_tensor(self.focal)
        left, top, right, bottom = (plane if self.is_pinhole else self.undistort(plane)).unbind(0)
        return Rectangle(float(left[:, 0].max()), float(top[:, 1].max()), float(right[:, 0].min()),
                         float(bottom[:, 1].min()))  # fmt: skip

    def _rectangle_before_fold(self) -> Rectangle:
        directions = torch.tensor([[-1.0, 0], [0, -1], [1, 0], [0, 1]], dtype=torch.float64)
        reach = [_largest(lambda length, axis=axis: self._sees(length * axis[None]), self.fold_radius)
                 for axis in directions]  # fmt: skip
        full = Rectangle(-reach[0], -reach[1], reach[2], reach[3])
        share = _largest(lambda factor: self._sees(_border(full, factor)), 1.0)
        box = Rectangle(*(share * side for side in full))
        shown = self.to_pixels(torch.tensor([[box.left, 0], [box.right, 0], [0, box.top], [0, box.bottom]]).double())
        height, width = self.size
        if shown[1, 0] - shown[0, 0] < 0.5 * width or shown[3, 1] - shown[2, 1] < 0.5 * height:
            raise self._folds()
        return box

    def _sees(self, points: Tensor) -> bool:
        """Whether all points ``[P, 2]`` of the normalised plane project into the image, before the fold."""
        pixels = self.to_pixels(points)
        height, width = self.size
        inside = (pixels >= 0).all() and (pixels[:, 0] <= width).all() and (pixels[:, 1] <= height).all()
        return bool(inside and (points.norm(dim=-1) < self.fold_radius).all())

    def _radial_scale(self, squared: Tensor) -> Tensor:
        scale = torch.zeros_like(squared)
        for coefficient in reversed(self.radial):
            scale = (scale + coefficient) * squared
        return 1 + scale

    def _jacobian(self, points: Tensor) -> Tensor:
        """Derivatives ``[..., 2, 2]`` of :meth:`distort`."""
        x, y = points.unbind(-1)
        squared = x * x + y * y
        scale = self._radial_scale(squared)
        slope = sum((k + 1) * c * squared**k for k, c in enumerate(self.radial)) * torch.ones_like(squared)
        p1, p2 = self.tangential
        cross = 2 * slope * x * y + 2 * p1 * x + 2 * p2 * y
        return torch.stack((
            torch.stack((scale + 2 * slope * x * x + 2 * p1 * y + 6 * p2 * x, cross), -1),
            torch.stack((cross, scale + 2 * slope * y * y + 6 * p1 * y + 2 * p2 * x), -1),
        ), -2)  # fmt: skip


def is_plausible_focal(focal: tuple[float, float], size: tuple[int, int]) -> bool:
    """Whether focal lengths (fx, fy) can belong to pictures of ``size`` (height, width): neither 1e-300 nor NaN."""
    return all(_SHORTEST * side < length < _LONGEST * side for length, side in zip(focal, size[::-1], strict=True))


def _largest(holds: Callable[[float], bool], limit: float) -> float:
    """The largest number in 0..``limit`` up to which ``holds`` does, by bisection."""
    low, high = 0.0, limit
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _border(box: Rectangle, factor: float) -> Tensor:
    """Points ``[P, 2]`` on the border of the box times ``factor``."""
    along = torch.linspace(0, 1, _BORDER_SAMPLES, dtype=torch.float64)
    x, y = box.left + along * (box.right - box.left), box.top + along * (box.bottom - box.top)
    sides = [(torch.full_like(y, box.left), y), (torch.full_like(y, box.right), y),
             (x, torch.full_like(x, box.top)), (x, torch.full_like(x, box.bottom))]  # fmt: skip
    return factor * torch.cat([torch.stack(side, -1) for side in sides])

"""A calibrated camera: its pictures' size, the pinhole's intrinsics, and its lens (:mod:`utils.lenses`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from utils.errors import UserError, short
from utils.lenses import Lens
from utils.limits import LARGEST_SIDE

_BORDER_SAMPLES = 128
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
class CalibratedCamera:
    """See the module's docstring. Pixel centres are at +0.5.

    Attributes:
        size: (height, width) of its images.
        focal: (fx, fy) in pixels.
        center: (cx, cy), the principal point, in pixels.
        lens: what its directions go through.
        source: the file it was read from, for messages.
    """

    size: tuple[int, int]
    focal: tuple[float, float]
    center: tuple[float, float]
    lens: Lens = Lens()
    source: str = ""

    def __post_init__(self) -> None:
        numbers = torch.tensor([*self.focal, *self.center, *self.lens.coefficients], dtype=torch.float64)
        sound = 1 <= min(self.size) and max(self.size) <= LARGEST_SIDE and float(numbers.abs().max()) < _LARGEST_NUMBER
        if not sound or not is_plausible_focal(self.focal, self.size):
            raise UserError(f"{self.source}: a camera of {short(self.size[1])}x{short(self.size[0])} pixels with focal "
                            f"lengths {self.focal}, principal point {self.center} and distortion "
                            f"{self.lens.coefficients}; expected finite numbers and focal lengths of about the "
                            "pictures' size")

    @property
    def intrinsics(self) -> Tensor:
        """float64 ``[3, 3]`` of the pinhole, without the distortion."""
        (fx, fy), (cx, cy) = self.focal, self.center
        return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)

    def identity(self) -> dict[str, Any]:
        """What determines its pictures, JSON-able. What is not as usual is put beside, so that old ones stay equal."""
        lens = self.lens
        usual = not lens.is_fisheye and lens == Lens(radial=lens.radial, tangential=lens.tangential)
        return {"size": self.size, "focal": self.focal, "center": self.center, "radial": lens.radial,
                "tangential": lens.tangential, "source": None, **({} if usual else {"lens": lens.to_json()})}

    def resized(self, size: tuple[int, int]) -> CalibratedCamera:
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

    def undistort(self, distorted: Tensor) -> Tensor:
        """Points (x, y) ``[..., 2]`` of the plane at depth 1 that are seen at distorted positions ``[..., 2]`` float64.

        Raises:
            UserError: no point is seen there, or several are.
        """
        plane, found = self.lens.undistort(distorted)
        if not bool(found.all()):
            raise self._folds()
        return plane

    def _folds(self) -> UserError:
        return UserError(f"{self.source}: distortion {self.lens.radial[:2]} folds the images before their border, so "
                         "they cannot be made pinhole images; calibrate the camera again with other parameters, or "
                         "crop the images first")

    def to_pixels(self, points: Tensor) -> Tensor:
        """Pixels (u, v) ``[..., 2]`` of points (x, y) ``[..., 2]`` of the plane at depth 1, seen or not."""
        plane = points
        if self.lens.is_fisheye:
            length = points.norm(dim=-1, keepdim=True)
            plane = points * torch.where(length > 0, torch.atan(length) / length.clamp(min=1e-300), 1.0)
        return self.lens.distort(plane) * points.new_tensor(self.focal) + points.new_tensor(self.center)

    def visible_rectangle(self) -> Rectangle:
        """The largest box between the undistorted borders: a pinhole camera that sees it has no blank pixels.

        Where the border itself cannot be undistorted, as often with a wide lens's corners, the largest box of the
        aspect ratio that the axes allow. Of a fisheye lens, whose border may be 90 degrees from the axis, the view of
        a pinhole with its focal lengths and its pictures' size, or as much of it as it sees.

        Raises:
            UserError: that is less than half of the image's width or height.
        """
        if self.lens.is_fisheye:
            return self._rectangle_of_size()
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
        left, top, right, bottom = (plane if self.lens.is_pinhole else self.undistort(plane)).unbind(0)
        return Rectangle(float(left[:, 0].max()), float(top[:, 1].max()), float(right[:, 0].min()),
                         float(bottom[:, 1].min()))  # fmt: skip

    def _rectangle_of_size(self) -> Rectangle:
        (height, width), (fx, fy), (cx, cy) = self.size, self.focal, self.center
        whole = Rectangle(-cx / fx, -cy / fy, (width - cx) / fx, (height - cy) / fy)
        share = _largest(lambda factor: self._sees(_border(whole, factor)), 1.0)
        return Rectangle(*(share * side for side in whole))

    def _rectangle_before_fold(self) -> Rectangle:
        directions = torch.tensor([[-1.0, 0], [0, -1], [1, 0], [0, 1]], dtype=torch.float64)
        reach = [_largest(lambda length, axis=axis: self._sees(length * axis[None]), self.lens.reach)
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
        radius = points.norm(dim=-1)
        return bool(inside and ((torch.atan(radius) if self.lens.is_fisheye else radius) < self.lens.reach).all())


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

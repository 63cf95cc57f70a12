"""Lenses: how directions map to the image plane where a camera is no pinhole.

A point (X, Y, Z) in the camera's frame has the plane position q = (x, y): (X, Y) / Z in a perspective projection, and
theta (X, Y) / |(X, Y)| in an equidistant ("fisheye") one, with theta its angle from the optical axis. Distortion moves
it, with r = |q| and s = (1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8) / (1 + d1 r^2 + d2 r^4 + d3 r^6), to

    x' = s x + 2 p1 x y + p2 (r^2 + 2 x^2) + s1 r^2,    y' = s y + p1 (r^2 + 2 y^2) + 2 p2 x y + s2 r^2

and the intrinsics' matrix takes (x', y') to pixels. These are Brown's model, OpenCV's rational one
(whose k4, k5, k6 are d1, d2, d3) and Kannala and Brandt's (2006), as OpenCV and COLMAP have them. No lens (None) is a
pinhole.

Depth is along the optical axis in perspective projections, as for a pinhole, and the distance along the ray in fisheye
ones, which see to the side and behind. Functions here speak of *directions of depth one*: times a depth, they are
points.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

PERSPECTIVE, FISHEYE = "perspective", "fisheye"
INVERSE_BOUND = 1e-9
"""Largest distance on the image plane, in focal lengths, between a position and the image of its direction."""
_STEPS = 100
_WIDEST_PLANE = 100.0  # focal lengths from the axis: 89.4 degrees


@dataclass(frozen=True)
class Lens:
    """See the module's docstring.

    Attributes:
        projection: "perspective" or "fisheye".
        radial: (k1, k2, k3, k4).
        tangential: (p1, p2).
        prism: (s1, s2).
        divisor: (d1, d2, d3).
        limit: radians from the optical axis, beyond which nothing is seen: where the image circle ends.

    Raises:
        ValueError: an unknown projection, or numbers that are not finite.
    """

    projection: str = PERSPECTIVE
    radial: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    tangential: tuple[float, float] = (0.0, 0.0)
    prism: tuple[float, float] = (0.0, 0.0)
    limit: float = math.pi
    divisor: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        lengths = (len(self.radial), len(self.tangential), len(self.prism), len(self.divisor))
        numbers = (*self.coefficients, self.limit)
        if self.projection not in (PERSPECTIVE, FISHEYE) or lengths != (4, 2, 2, 3):
            raise ValueError(f"no lens: projection {self.projection!r}, {lengths} coefficients")
        if not all(math.isfinite(number) for number in numbers) or not 0 < self.limit <= math.pi:
            raise ValueError(f"no lens: coefficients {numbers[:-1]}, limit {self.limit}")

    @property
    def coefficients(self) -> tuple[float, ...]:
        """All of them; 0 where nothing is distorted."""
        return (*self.radial, *self.tangential, *self.prism, *self.divisor)

    @property
    def is_pinhole(self) -> bool:
        """Whether it does nothing at all, so that None says the same."""
        return self.projection == PERSPECTIVE and not any(self.coefficients) and self.limit >= math.pi / 2

    @property
    def is_fisheye(self) -> bool:
        """Whether depth is the distance along the ray."""
        return self.projection == FISHEYE

    @cached_property
    def fold_radius(self) -> float:
        """Distance from the axis on the undistorted plane, beyond which the radial distortion is not monotonic.

        There the derivative of r N(r^2) / D(r^2) is 0, (N + 2 q N') D = 2 q N D' with q = r^2, or D is.
        """
        numerator, divisor = np.poly1d((*self.radial[::-1], 1.0)), np.poly1d((*self.divisor[::-1], 1.0))
        q = np.poly1d((2.0, 0.0))
        slope = (numerator + q * numerator.deriv()) * divisor - q * numerator * divisor.deriv()
        roots = np.concatenate((slope.roots, divisor.roots))
        squared = roots[(np.abs(roots.imag) < 1e-12 * np.abs(roots)) & (roots.real > 0)].real
        return math.sqrt(squared.min()) if len(squared) else math.inf

    @cached_property
    def reach(self) -> float:
        """Distance from the axis on the undistorted plane up to which the lens sees: the fold, or the limit."""
        if self.is_fisheye:
            return min(self.fold_radius, self.limit)
        edge = math.tan(self.limit) if self.limit < math.pi / 2 else math.inf
        return min(self.fold_radius, edge, _WIDEST_PLANE)

    def distort(self, plane: Tensor) -> Tensor:
        """Positions (x', y') ``[..., 2]`` of undistorted positions (x, y)."""
        x, y = plane.unbind(-1)
        squared = x * x + y * y
        scale = self._radial_scale(squared)
        (p1, p2), (s1, s2) = self.tangential, self.prism
        return torch.stack((
            scale * x + 2 * p1 * x * y + p2 * (squared + 2 * x * x) + s1 * squared,
            scale * y + p1 * (squared + 2 * y * y) + 2 * p2 * x * y + s2 * squared,
        ), dim=-1)  # fmt: skip

    def undistort(self, distorted: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse of :meth:`distort` for ``[..., 2]`` float64: positions, and whether there is one within reach.

        Newton's method: along the radius within brackets, so that it cannot leave them, then in the plane where the
        lens is not symmetric. Where there is one, it is found to :data:`INVERSE_BOUND`; elsewhere (0, 0) is returned.
        """
        length = distorted.norm(dim=-1)
        radius = self._radius_of(length)
        plane = distorted * torch.where(length > 0, radius / length.clamp(min=1e-300), 1.0)[..., None]
        if any((*self.tangential, *self.prism)):
            plane = self._polished(plane, distorted)
        found = (self.distort(plane) - distorted).norm(dim=-1) < INVERSE_BOUND
        found &= plane.norm(dim=-1) <= self.reach * (1 + 1e-12)
        return torch.where(found[..., None], plane, 0.0), found

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Distorted positions ``[..., 2]`` of points ``[..., 3]`` in the camera's frame, and whether they are seen.

        The position of what is not seen is meaningless.
        """
        across, z = points[..., :2], points[..., 2]
        if self.is_fisheye:
            length = across.norm(dim=-1)
            angle = torch.atan2(length, z)
            factor = torch.where(length > 0, angle / length.clamp(min=torch.finfo(length.dtype).tiny), 1 / z)
            plane, radius = across * factor[..., None], angle
            seen = radius <= self.reach
        else:
            plane = across / z[..., None]
            radius = plane.norm(dim=-1)
            seen = (z > 0) & (radius <= self.reach)
        return self.distort(torch.where(seen[..., None], plane, 0.0)), seen

    def directions(self, distorted: Tensor) -> tuple[Tensor, Tensor]:
        """Directions of depth one ``[..., 3]`` of distorted positions ``[..., 2]``, and whether there are any.

        The optical axis where there is none: outside the image circle, or beyond the fold.
        """
        plane, found = self.undistort(distorted)
        if not self.is_fisheye:
            return torch.cat((plane, torch.ones_like(plane[..., :1])), dim=-1), found
        angle = plane.norm(dim=-1, keepdim=True)
        return torch.cat((plane * torch.sinc(angle / math.pi), torch.cos(angle)), dim=-1), found

    def depth_of(self, points: Tensor) -> Tensor:
        """Depth ``[...]`` of points ``[..., 3]`` in the camera's frame."""
        return points.norm(dim=-1) if self.is_fisheye else points[..., 2]

    def jacobian(self, points: Tensor) -> Tensor:
        """Derivatives ``[..., 2, 3]`` of :meth:`project` at points ``[..., 3]`` that are seen."""
        x, y, z = points.unbind(-1)
        if self.is_fisheye:
            across = (x * x + y * y).sqrt().clamp(min=1e-12)
            squared = x * x + y * y + z * z
            angle = torch.atan2(across, z)
            ratio = torch.where(across > 1e-9 * squared.sqrt(), angle / across, 1 / squared.sqrt())
            # d(ratio) = (d(angle) - ratio d(across)) / across, with d(angle) = (z d(across) - across dz) / squared
            bend = torch.where(across > 1e-6 * squared.sqrt(), (z / squared - ratio) / across**2, 0.0)
            plane = torch.stack((x, y), -1) * ratio[..., None]
            base = torch.stack((
                torch.stack((ratio + bend * x * x, bend * x * y, -x / squared), -1),
                torch.stack((bend * x * y, ratio + bend * y * y, -y / squared), -1),
            ), -2)  # fmt: skip
        else:
            plane = torch.stack((x / z, y / z), -1)
            zero = torch.zeros_like(z)
            base = torch.stack((
                torch.stack((1 / z, zero, -x / z**2), -1), torch.stack((zero, 1 / z, -y / z**2), -1),
            ), -2)  # fmt: skip
        return self._distortion_jacobian(plane) @ base

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Lens:
        """Read what :meth:`to_json` wrote; raises ValueError, KeyError or TypeError where it is no lens."""
        names = ("radial", "tangential", "prism", "divisor")
        numbers = {name: tuple(float(value) for value in content[name]) for name in names}
        return cls(str(content["projection"]), limit=float(content["limit"]), **numbers)

    def _radial_scale(self, squared: Tensor) -> Tensor:
        scale = _polynomial(self.radial, squared)
        return scale / _polynomial(self.divisor, squared) if any(self.divisor) else scale

    def _radial_slope(self, squared: Tensor) -> Tensor:
        """Derivative of the radial scale by r^2."""
        slope = _polynomial_slope(self.radial, squared)
        if not any(self.divisor):
            return slope
        divisor = _polynomial(self.divisor, squared)
        return (slope - self._radial_scale(squared) * _polynomial_slope(self.divisor, squared)) / divisor

    def _radius_of(self, length: Tensor) -> Tensor:
        """The undistorted radius ``[...]`` of a distorted one, at most :attr:`reach`."""
        low, high = torch.zeros_like(length), torch.full_like(length, self.reach)
        radius = torch.minimum(length, high)
        for _ in range(_STEPS):
            squared = radius * radius
            scale = self._radial_scale(squared)
            error = radius * scale - length
            low, high = torch.where(error < 0, radius, low), torch.where(error < 0, high, radius)
            slope = scale + 2 * squared * self._radial_slope(squared)
            step = radius - error / torch.where(slope.abs() > 1e-12, slope, 1e-12)
            following = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
            moved = float((following - radius).abs().max()) if radius.numel() else 0.0
            radius = following
            if moved < 1e-14:
                break
        return radius

    def _polished(self, plane: Tensor, distorted: Tensor) -> Tensor:
        """Newton's steps for both coordinates; what diverges fails the caller's check."""
        for _ in range(_STEPS):
            error = self.distort(plane) - distorted
            step, _ = torch.linalg.solve_ex(self._distortion_jacobian(plane), error[..., None])
            step = step[..., 0].nan_to_num(0, 0, 0).clamp(-1, 1)
            plane = plane - step
            if not step.numel() or float(step.abs().max()) < 1e-14:
                break
        return plane

    def _distortion_jacobian(self, plane: Tensor) -> Tensor:
        """Derivatives ``[..., 2, 2]`` of :meth:`distort`."""
        x, y = plane.unbind(-1)
        squared = x * x + y * y
        scale, slope = self._radial_scale(squared), self._radial_slope(squared)
        (p1, p2), (s1, s2) = self.tangential, self.prism
        cross = 2 * slope * x * y + 2 * p1 * x + 2 * p2 * y
        return torch.stack((
            torch.stack((scale + 2 * slope * x * x + 2 * p1 * y + (6 * p2 + 2 * s1) * x, cross + 2 * s1 * y), -1),
            torch.stack((cross + 2 * s2 * x, scale + 2 * slope * y * y + (6 * p1 + 2 * s2) * y + 2 * p2 * x), -1),
        ), -2)  # fmt: skip


def _polynomial(coefficients: tuple[float, ...], q: Tensor) -> Tensor:
    """1 + c1 q + c2 q^2 + ..."""
    total = torch.zeros_like(q)
    for coefficient in reversed(coefficients):
        total = (total + coefficient) * q
    return 1 + total


def _polynomial_slope(coefficients: tuple[float, ...], q: Tensor) -> Tensor:
    """Its derivative by q."""
    return sum((k + 1) * c * q**k for k, c in enumerate(coefficients)) * torch.ones_like(q)

"""Placement of the grid in the world: a cube around the bounding box of everything observed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dataloader import SceneTransform

_MARGIN = 0.04
_OUTLIER_SHARE = 0.002
_MOST_POINTS = 1 << 20
SPACE_AROUND_CAMERAS = 0.1


@dataclass(frozen=True)
class Placement:
    """A box in the world and the cube around it, which becomes [-1, 1]^3.

    Attributes:
        lower, upper: float64 ``[3]``, corners of the box in the world's unit.
    """

    lower: Tensor
    upper: Tensor

    @property
    def middle(self) -> Tensor:
        """float64 ``[3]``, metres."""
        return (self.lower + self.upper) / 2

    @property
    def scale(self) -> float:
        """Grid units per metre; a margin separates the box's faces from the cube's."""
        return (1 - _MARGIN) / (float((self.upper - self.lower).max()) / 2)

    def transform(self, frame_ids: list[str] | None = None) -> SceneTransform:
        """From the world to the grid's frame, with the world's axes."""
        return SceneTransform(torch.eye(4, dtype=torch.float64), self.middle, self.scale, frame_ids or [])

    def inner(self, halvings: int) -> Placement:
        """The middle of the cube, halved so many times along each axis: where grids nested in it are."""
        half = (self.upper - self.lower).max() / 2 * 0.5**halvings
        return Placement(self.middle - half, self.middle + half)

    def box_mask(self, resolution: int) -> Tensor:
        """Which cells of the cube, bool ``[R, R, R]``, intersect the box dilated by the margin."""
        reach = ((self.upper - self.lower) / 2 * self.scale + _MARGIN).float()
        nearest = (((torch.arange(resolution) + 0.5) * 2 / resolution - 1).abs() - 1 / resolution)[:, None] <= reach
        return nearest[:, None, None, 0] & nearest[None, :, None, 1] & nearest[None, None, :, 2]


def place(points: Tensor, camera_centers: Tensor, space: float = SPACE_AROUND_CAMERAS) -> Placement:
    """The box around points and cameras.

    A few outliers among the points are cut off, since depth cameras produce them; the cameras are always inside.

    Args:
        points: world points ``[P, 3]``; may be empty.
        camera_centers: ``[N, 3]``.
        space: around the cameras.
    """
    cameras = camera_centers.double().cpu()
    lower = cameras.amin(0) - space
    upper = cameras.amax(0) + space
    if len(points):
        sample = points[:: len(points) // _MOST_POINTS + 1].double().cpu()
        lower = torch.minimum(lower, sample.quantile(_OUTLIER_SHARE, dim=0))
        upper = torch.maximum(upper, sample.quantile(1 - _OUTLIER_SHARE, dim=0))
    return Placement(lower, upper)

"""Where the grid stands in the world: the cube around everything that was seen."""

from __future__ import annotations

import torch
from torch import Tensor

_MARGIN = 0.04
_OUTLIER_SHARE = 0.002
_MOST_POINTS = 1 << 20
_SPACE_AROUND_CAMERAS = 0.1


def enclosing_cube(points: Tensor, camera_centers: Tensor) -> tuple[Tensor, float]:
    """Middle ``[3]`` float64 and scale of the cube that becomes [-1, 1]^3.

    A few outliers among the points are cut off, since depth cameras make them; the cameras are always inside.

    Args:
        points: world points ``[P, 3]``, metres; may be empty.
        camera_centers: ``[N, 3]``.

    Returns:
        The middle, and what metres are multiplied by.
    """
    cameras = camera_centers.double().cpu()
    lower = cameras.amin(0) - _SPACE_AROUND_CAMERAS
    upper = cameras.amax(0) + _SPACE_AROUND_CAMERAS
    if len(points):
        sample = points[:: len(points) // _MOST_POINTS + 1].double().cpu()
        lower = torch.minimum(lower, sample.quantile(_OUTLIER_SHARE, dim=0))
        upper = torch.maximum(upper, sample.quantile(1 - _OUTLIER_SHARE, dim=0))
    half = float((upper - lower).max()) / 2
    return (lower + upper) / 2, (1 - _MARGIN) / half

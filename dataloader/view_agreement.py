"""How well depth maps and poses agree, as they are and under the usual suppositions.

Pixels of a few depth maps are put into the world and seen from cameras of other frames: where both saw the same
surface, its distance from the second camera is the depth measured there. Only pixels that the camera's movement
displaces count, since a turn alone says nothing of lengths.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataloader.scene import Scene
from utils.cameras import pixel_directions, pixel_grid, project_local, rigid_inverse, scale_intrinsics
from utils.errors import UserError
from utils.lenses import Lens
from utils.threads import ordered_map

_ANCHORS, _GAPS = 10, (1, 3, 10, 30, 100)
_LONGEST_SIDE, _POINTS = 96, 400
_SAME_DEPTH = 0.05  # share of the depth within which two measurements are of one surface
_DISPLACED = 0.03  # share of the picture's longer side
RATIO_STEP = 0.05  # between logarithms of the ratios that are tried
_RATIOS = np.exp(np.arange(math.log(1e-4), math.log(1e4), RATIO_STEP))
SAME_RATIO = 1.2
_NEARLY, _AS_GOOD = 0.95, 0.97
_FEWEST_PIXELS = 2000
_FLIP = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
AS_GIVEN = "as they are"
POSES = {
    AS_GIVEN: lambda pose: pose,
    "inverted: the files hold world-to-camera": rigid_inverse,
    "with y and z axes reversed: the files have OpenGL's axes": lambda pose: pose @ _FLIP,
    "inverted, then with y and z axes reversed: the files hold OpenGL's world-to-camera":
        lambda pose: rigid_inverse(pose) @ _FLIP,
}  # fmt: skip


class Pairs(NamedTuple):
    """Pixels of first frames and the depth maps of second ones.

    first, second: int64 ``[P]``, frames of the scene.
    points: float64 ``[P, K, 3]``, the pixels' points in the first camera's frame, in depth's unit.
    depths: float32 ``[P, h, w]`` of the second frames, 0 = none.
    intrinsics: float64 ``[3, 3]`` of these.
    lens: of all frames; None for pinholes.
    """

    first: Tensor
    second: Tensor
    points: Tensor
    depths: Tensor
    intrinsics: Tensor
    lens: Lens | None

    @property
    def is_fisheye(self) -> bool:
        """Whether depth is the distance along the ray."""
        return self.lens is not None and self.lens.is_fisheye


class Supposition(NamedTuple):
    """The supposition that fits best: which poses, and what depth is multiplied by to be in the poses' unit."""

    share: float
    poses: str
    ratio: float

    @property
    def has_ratio_one(self) -> bool:
        return 1 / SAME_RATIO < self.ratio < SAME_RATIO

    @property
    def is_as_given(self) -> bool:
        return self.poses == AS_GIVEN and self.has_ratio_one


def choose_pairs(scene: Scene) -> Pairs | None:
    """Pairs of frames some steps apart, along the whole trajectory; None with too few depth maps."""
    frames = [index for index, path in enumerate(scene.depth_paths) if path is not None]
    if len(frames) < 3:
        return None
    anchors = np.unique(np.linspace(0, len(frames) - 2, _ANCHORS).round().astype(int)).tolist()
    chosen = [(frames[at], frames[at + gap]) for at in anchors for gap in _GAPS if at + gap < len(frames)]
    size = tuple(max(1, round(side * min(1.0, _LONGEST_SIDE / max(scene.image_size)))) for side in scene.image_size)

    def read(index: int) -> Tensor | None:
        try:
            return scene.read_depth(index, size)
        except UserError:  # is told elsewhere
            return None

    wanted = sorted({index for pair in chosen for index in pair})
    depths = {index: depth for index, depth in zip(wanted, ordered_map(read, wanted), strict=True) if depth is not None}
    chosen = [pair for pair in chosen if pair[0] in depths and pair[1] in depths]
    if not chosen or sum(int((depth > 0).sum()) for depth in depths.values()) < _FEWEST_PIXELS:
        return None
    intrinsics = scale_intrinsics(scene.intrinsics, scene.image_size, size)
    points = {index: _points_of(depths[index], intrinsics, scene.lens) for index in {first for first, _ in chosen}}
    return Pairs(
        torch.tensor([first for first, _ in chosen]), torch.tensor([second for _, second in chosen]),
        torch.stack([points[first] for first, _ in chosen]), torch.stack([depths[second] for _, second in chosen]),
        intrinsics, scene.lens,
    )  # fmt: skip


def _points_of(depth: Tensor, intrinsics: Tensor, lens: Lens | None) -> Tensor:
    """Points ``[K, 3]`` in the camera's frame of pixels spread over the depth map; NaN where there are fewer."""
    known = (depth > 0).nonzero()
    points = torch.full((_POINTS, 3), torch.nan, dtype=torch.float64)
    if not len(known):
        return points
    rows, columns = known[torch.linspace(0, len(known) - 1, min(_POINTS, len(known))).round().long()].unbind(1)
    uv = pixel_grid(*depth.shape, dtype=torch.float64)[rows, columns]
    points[: len(rows)] = pixel_directions(uv, intrinsics, lens) * depth[rows, columns, None].double()
    return points


class Seen(NamedTuple):
    """Points from second cameras.

    pixels: ``[..., 2]``, far outside where a point is behind the camera.
    depth: ``[...]``, of the points.
    measured: ``[...]``, by the depth map at the pixel; 0 = not in the picture, or nothing was measured.
    """

    pixels: Tensor
    depth: Tensor
    measured: Tensor


def project(points: Tensor, pairs: Pairs) -> Seen:
    """What second cameras see of points ``[P, K, 3]`` in their frames; NaN are points that there are not."""
    uv, depth = project_local(points, pairs.intrinsics, pairs.lens)
    uv = torch.where(depth[..., None] > 0, uv, -1e6).nan_to_num(-1e6, -1e6, -1e6).clamp(-1e6, 1e6)
    height, width = pairs.depths.shape[1:]
    inside = (uv >= 0).all(-1) & (uv[..., 0] < width) & (uv[..., 1] < height) & (depth > 0)
    which = torch.arange(len(pairs.depths))[:, None].expand(inside.shape)
    measured = torch.zeros(inside.shape, dtype=torch.float64)
    measured[inside] = pairs.depths[which[inside], uv[..., 1][inside].long(), uv[..., 0][inside].long()].double()
    return Seen(uv, depth, measured)


def agreement(pairs: Pairs, poses: Tensor, ratios: np.ndarray) -> np.ndarray:
    """For each ratio of depth to the poses' unit: of the displaced points that second cameras see where depth was
    measured, weighted by how many there are, the share that lies at the measured depth."""
    relative = rigid_inverse(poses[pairs.second]) @ poses[pairs.first]
    turned = pairs.points @ relative[:, :3, :3].transpose(1, 2)
    still = project(turned, pairs)
    known = float(torch.isfinite(pairs.points[..., 0]).sum())
    shares = np.zeros(len(ratios))
    for number, ratio in enumerate(ratios):
        moved = project(turned + relative[:, None, :3, 3] / ratio, pairs)
        displaced = (moved.pixels - still.pixels).abs().amax(-1) > _DISPLACED * max(pairs.depths.shape[1:])
        displaced |= (moved.depth / still.depth - 1).abs() > 2 * _SAME_DEPTH
        seen = displaced & (moved.measured > 0)
        same = seen & ((moved.depth - moved.measured).abs() < _SAME_DEPTH * moved.measured)
        # Points that no camera sees do not speak for a supposition: they count as a half would.
        shares[number] = float(same.sum()) / max(float(seen.sum()), 0.1 * known, 1.0)
    return shares


def best_supposition(pairs: Pairs, poses: Tensor) -> Supposition:
    """The supposition with the largest share; of those that are nearly as good, the first of ``POSES``."""
    found = []
    for name, change in POSES.items():
        shares = agreement(pairs, change(poses), _RATIOS)
        best = shares >= _AS_GOOD * shares.max()  # the middle of those that are as good within the tolerance
        found.append(Supposition(float(shares.max()), name, float(np.exp(np.log(_RATIOS[best]).mean()))))
    most = max(each.share for each in found)
    return next(each for each in found if each.share >= _NEARLY * most)

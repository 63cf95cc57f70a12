"""Do depth maps belong to the frames whose names they bear, or to their neighbours?

Where files are numbered from 1 in one folder and from 0 in another, each frame has the depth of the next one. Every
file is sound, and so are units and axes. Points of the depth map of frame i, put into the world with the pose of frame
i + 1, are then nearer to what other depth maps measured than with the pose of frame i.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dataloader.contradiction import Contradiction
from dataloader.scene import Scene
from dataloader.view_agreement import Pairs, project
from utils.cameras import rigid_inverse

_FARTHEST = 3  # frames
_MOST_ERROR = 0.1  # share of the depth; what is farther off is of another surface, and counts as this much
_FITTING = 0.04  # mean error, from there on the shifted poses fit no better than chance
_CLEARLY = 0.7  # of the error as it is
_FEWEST_POINTS, _FEWEST_OF_PAIR = 500, 40
_FEWEST_PAIRS, _MOST_PAIRS = 3, 0.75  # the share of pairs that must be better


class _Errors(NamedTuple):
    """Relative errors of depth ``[P, K]``, NaN where nothing was measured."""

    shift: int
    each: Tensor

    @property
    def known(self) -> Tensor:
        return torch.isfinite(self.each)

    @property
    def mean(self) -> float:
        return float(self.each[self.known].mean())

    @property
    def of_pairs(self) -> Tensor:
        """Mean of each pair ``[P]``, NaN with few points."""
        return torch.where(self.known.sum(1) >= _FEWEST_OF_PAIR, self.each.nanmean(1), torch.nan)


def find_shift(scene: Scene, pairs: Pairs) -> Contradiction | None:
    """That depth maps are those of frames before or after their names', or None."""
    poses = scene.camera_to_world
    given = _errors(pairs, poses, 0)
    shifted = [_errors(pairs, poses, sign * count) for count in range(1, _FARTHEST + 1) for sign in (1, -1)]
    shifted = [errors for errors in shifted if int(errors.known.sum()) >= _FEWEST_POINTS]
    if not shifted or not given.known.any():
        return None
    best = min(shifted, key=lambda errors: errors.mean)
    if best.mean > min(_FITTING, _CLEARLY * given.mean) or not _in_most_pairs(best, given):
        return None
    return _told(scene, best, given)


def _in_most_pairs(best: _Errors, given: _Errors) -> bool:
    """Where the camera moved evenly or stood still, poses of neighbours do as well: chance does not decide."""
    before, after = given.of_pairs, best.of_pairs
    both = torch.isfinite(before) & torch.isfinite(after)
    better = int((after < before)[both].sum())
    return int(both.sum()) >= _FEWEST_PAIRS and better >= _MOST_PAIRS * int(both.sum())


def _errors(pairs: Pairs, poses: Tensor, shift: int) -> _Errors:
    """How far points of first depth maps are off what second ones measured, with the poses ``shift`` frames later."""
    first, second = pairs.first + shift, pairs.second + shift
    exist = (torch.minimum(first, second) >= 0) & (torch.maximum(first, second) < len(poses))
    first, second = first.clamp(0, len(poses) - 1), second.clamp(0, len(poses) - 1)
    relative = rigid_inverse(poses[second]) @ poses[first]
    points = pairs.points @ relative[:, :3, :3].transpose(1, 2) + relative[:, None, :3, 3]
    seen = project(points, pairs)
    measured = torch.where(exist[:, None], seen.measured, 0)
    error = (seen.depth / measured - 1).abs().clamp(max=_MOST_ERROR)
    return _Errors(shift, torch.where(measured > 0, error, torch.nan))


def _told(scene: Scene, best: _Errors, given: _Errors) -> Contradiction:
    frames, count = scene.frames, abs(best.shift)
    middle = min(len(frames) // 2, len(frames) - 1 - count)
    here, there = (middle, middle + count) if best.shift > 0 else (middle + count, middle)
    by = "one frame" if count == 1 else f"{count} frames"
    return Contradiction(
        f"its depth maps are {by} off: the depth of frame {frames[here]} agrees with the pose of frame "
        f"{frames[there]}, and so on (as it is, depth is {given.mean:.1%} off what other cameras measured; then "
        f"{best.mean:.1%})",
        "rename the depth maps, or the poses and colour images, so that those of one moment have the same name (such "
        f"as {scene.depth_paths[here] or 'its depth'})",
    )

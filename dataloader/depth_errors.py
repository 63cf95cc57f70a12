"""How far depth maps and poses are off one another, and whether a supposition makes it clearly better.

The mean of relative errors tells finer differences than the share of points that agree (``view_agreement``), which is
what unknown units need: neighbours' poses, or distances along rays, often move points by a few hundredths of their
depth only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dataloader.view_agreement import Pairs, project
from utils.cameras import rigid_inverse

FEWEST_POINTS = 500
_MOST_ERROR = 0.1  # share of the depth; what is farther off is of another surface, and counts as this much
_FITTING = 0.04  # mean error, from there on a supposition fits no better than chance
_CLEARLY = 0.7  # of the error as it is
_FEWEST_OF_PAIR = 40
_FEWEST_PAIRS, _MOST_PAIRS = 3, 0.75  # the share of pairs that must be better


class DepthErrors(NamedTuple):
    """Relative errors of depth ``[P, K]``, NaN where nothing was measured."""

    each: Tensor

    @property
    def count(self) -> int:
        """How many points a second camera measured."""
        return int(torch.isfinite(self.each).sum())

    @property
    def mean(self) -> float:
        return float(self.each.nanmean())

    @property
    def of_pairs(self) -> Tensor:
        """Mean of each pair ``[P]``, NaN with few points."""
        known = torch.isfinite(self.each).sum(1)
        return torch.where(known >= _FEWEST_OF_PAIR, self.each.nanmean(1), torch.nan)

    @property
    def is_telling(self) -> bool:
        """Whether there are enough points, of enough pairs of frames."""
        return self.count >= FEWEST_POINTS and int(torch.isfinite(self.of_pairs).sum()) >= _FEWEST_PAIRS

    @property
    def are_of_chance(self) -> bool:
        """Whether depth maps are as far off one another as those of other scenes would be."""
        return self.is_telling and self.mean > _FITTING

    def clearly_better(self, given: DepthErrors) -> bool:
        """Than as it is, and in most pairs of frames: where a supposition changes little, chance does not decide."""
        enough = self.is_telling and given.is_telling
        if not enough or self.mean > min(_FITTING, _CLEARLY * given.mean):
            return False
        before, after = given.of_pairs, self.of_pairs
        both = torch.isfinite(before) & torch.isfinite(after)
        better = int((after < before)[both].sum())
        return int(both.sum()) >= _FEWEST_PAIRS and better >= _MOST_PAIRS * int(both.sum())


def depth_errors(pairs: Pairs, poses: Tensor, shift: int = 0) -> DepthErrors:
    """How far points of first depth maps are off what second ones measured, with the poses ``shift`` frames later."""
    first, second = pairs.first + shift, pairs.second + shift
    exist = (torch.minimum(first, second) >= 0) & (torch.maximum(first, second) < len(poses))
    first, second = first.clamp(0, len(poses) - 1), second.clamp(0, len(poses) - 1)
    relative = rigid_inverse(poses[second]) @ poses[first]
    points = pairs.points @ relative[:, :3, :3].transpose(1, 2) + relative[:, None, :3, 3]
    seen = project(points, pairs)
    measured = torch.where(exist[:, None], seen.measured, 0)
    error = (seen.depth / measured - 1).abs().clamp(max=_MOST_ERROR)
    return DepthErrors(torch.where(measured > 0, error, torch.nan))

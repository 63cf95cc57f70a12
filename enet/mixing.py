"""How views of several folders are mixed: originals, renders of the same poses, novel views.

What is drawn decides what a class's share of the training is, so class weights are computed from it: a rare class that
novel views show often is not weighted as if it were still rare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import gin
import torch
from torch import Tensor

from utils.errors import UserError

_SUM_TOLERANCE = 1e-6


@gin.configurable
@dataclass(frozen=True)
class MixOptions:
    """Which share of the views of an epoch comes from which folder of train.views.

    Attributes:
        shares: one for each folder, adding up to 1; None draws from all views alike, so that folders count by how many
            views they have.
        first_shares: those of the first epoch, from which they go to ``shares`` linearly; None begins with ``shares``.
        ramp_epochs: the epoch, counted from 0, in which ``shares`` are reached.
    """

    shares: Sequence[float] | None = None
    first_shares: Sequence[float] | None = None
    ramp_epochs: int = 0

    def __post_init__(self) -> None:
        for name in ("shares", "first_shares"):
            values = getattr(self, name)
            if values is None:
                continue
            if min(values, default=-1) < 0 or not math.isclose(sum(values), 1, abs_tol=_SUM_TOLERANCE):
                raise UserError(f"MixOptions.{name} = {tuple(values)}: expected shares from 0 on that add up to 1")
        if self.first_shares is not None and (self.shares is None or len(self.shares) != len(self.first_shares)):
            raise UserError(f"MixOptions.first_shares = {tuple(self.first_shares)} needs as many MixOptions.shares, "
                            f"found {self.shares}")
        if (self.first_shares is None) != (self.ramp_epochs == 0) or self.ramp_epochs < 0:
            raise UserError(f"MixOptions.ramp_epochs = {self.ramp_epochs}: expected at least 1 with first_shares, and "
                            "0 without")

    def check(self, folders: Sequence[object]) -> None:
        """Raise :class:`UserError` unless there is a share for each folder."""
        if self.shares is not None and len(self.shares) != len(folders):
            raise UserError(f"MixOptions.shares has {len(self.shares)} entries, train.views has {len(folders)} "
                            "folders; give one share for each")

    def shares_at(self, epoch: int) -> tuple[float, ...] | None:
        """Shares in an epoch, counted from 0; None where all views are drawn alike."""
        if self.shares is None or self.first_shares is None or epoch >= self.ramp_epochs:
            return None if self.shares is None else tuple(self.shares)
        done = epoch / self.ramp_epochs
        return tuple(
            first + done * (last - first) for first, last in zip(self.first_shares, self.shares, strict=True)
        )  # fmt: skip

    def expected_draws(
        self,
        folder: Tensor,  # int64 [N], the folder of each view
        epochs: int,
    ) -> Tensor:  # float64 [N]
        """How often each view is drawn in a training of ``epochs``, relative to the mean of all views."""
        if self.shares is None:
            return torch.ones(len(folder), dtype=torch.float64)
        shares = torch.tensor([self.shares_at(epoch) for epoch in range(epochs)], dtype=torch.float64).mean(0)
        sizes = torch.bincount(folder, minlength=len(shares))
        return (shares * len(folder) / sizes.clamp(min=1))[folder]


def views_of_shares(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers in proportion to ``shares`` that add up to ``total``; the largest remainders are rounded up."""
    exact = [share / sum(shares) * total for share in shares]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: (counts[k] - exact[k], k))
    for k in by_remainder[: total - sum(counts)]:
        counts[k] += 1
    return counts


def mixed_order(
    folder: Tensor,  # int64 [N], the folder of each view
    shares: Sequence[float],
    total: int,
    random: torch.Generator,
) -> Tensor:  # int64 [total]
    """Numbers of ``total`` views in random order, of each folder its share.

    Views of a folder come without repetition, or in several whole passes and a part of one where more are drawn than
    there are.

    Raises:
        UserError: a folder with a share has no view.
    """
    chosen = []
    for number, count in enumerate(views_of_shares(shares, total)):
        views = (folder == number).nonzero()[:, 0]
        if count and not len(views):
            raise UserError(f"folder {number} of train.views has a share of {shares[number]:g}, but no training view")
        passes = -(-count // max(len(views), 1))
        chosen += [views[torch.randperm(len(views), generator=random)] for _ in range(passes)]
        if passes:
            chosen[-1] = chosen[-1][: count - (passes - 1) * len(views)]
    order = torch.cat(chosen)
    return order[torch.randperm(len(order), generator=random)]

"""The order in which views are drawn, as a function of seed and epoch alone, so that a run can be resumed exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from utils.seeding import generator


@dataclass(frozen=True)
class Step:
    """The views of one batch of one process.

    Attributes:
        views: int64 [B], their numbers in the source.
        draws: float32 [B, D], uniform random numbers of each view; None where nothing is random.
    """

    views: Tensor
    draws: Tensor | None = None

    def to(self, device: torch.device) -> Step:
        """The same on another device."""
        draws = None if self.draws is None else self.draws.to(device, non_blocking=True)
        return Step(self.views.to(device, non_blocking=True), draws)


@dataclass(frozen=True)
class TrainingOrder:
    """The schedule of a process's training views, a function of the epoch. Its length is an epoch's steps.

    Attributes:
        epoch_views: views of an epoch, over all processes.
        batch_size: views of a batch of each process.
        seed: together with the epoch, determines everything random.
        rank: of this process.
        world_size: how many processes there are.
    """

    epoch_views: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return max(self.epoch_views // (self.batch_size * self.world_size), 1)

    def shuffled(self, num_views: int, num_draws: int, epoch: int) -> list[Step]:
        """Steps of ``epoch``, over ``num_views`` views that get ``num_draws`` random numbers each.

        Views come without repetition, or in several whole passes and a part of one when an epoch has more than there
        are. Over several processes, batch k of one process of a twice as large batch is the union of the batches k of
        two. The last, incomplete batch of an epoch is left out unless it is the only one.
        """
        order_generator = generator(self.seed, "order", epoch)
        passes = -(-self.epoch_views // num_views)
        order = torch.cat([torch.randperm(num_views, generator=order_generator) for _ in range(passes)])
        draws = torch.rand(self.epoch_views, num_draws, generator=generator(self.seed, "augmentation", epoch))
        # Fewer views than one joint batch are shared out equally.
        views = min(self.batch_size, self.epoch_views // self.world_size)
        shape = (len(self), self.world_size, views)
        used = len(self) * self.world_size * views
        mine = (slice(None), self.rank)
        steps = zip(order[:used].reshape(shape)[mine], draws[:used].reshape(*shape, num_draws)[mine], strict=True)
        return [Step(*step) for step in steps]


def in_order(num_views: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Step]:
    """Every view once, the last batch as short as it comes; of several processes each takes every n-th batch."""
    return [Step(views) for views in torch.arange(num_views).split(batch_size)[rank::world_size]]

"""The order in which views are drawn, as a function of seed and epoch alone, so that a run can be resumed exactly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from utils.seeding import generator


class EpochSampler:
    """Batches of view indices for training, with random numbers for each view's augmentation.

    Each epoch draws ``epoch_views`` views without repetition, or several whole passes and a part of one when it is
    more than there are. Over several processes, batch k of one process of a twice as large batch is the union of the
    batches k of two. The last, incomplete batch of an epoch is left out unless it is the only one.

    Args:
        num_views: views there are.
        epoch_views: views of an epoch, over all processes.
        batch_size: views of a batch of this process.
        seed: together with the epoch, determines everything.
        num_draws: random numbers each view gets.
        rank, world_size: this process, and how many there are.
    """

    def __init__(
        self,
        num_views: int,
        epoch_views: int,
        batch_size: int,
        seed: int,
        num_draws: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self._num_views, self._epoch_views = num_views, epoch_views
        self._batch_size, self._seed, self._num_draws = batch_size, seed, num_draws
        self._rank, self._world_size = rank, world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch, counted from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return max(self._epoch_views // (self._batch_size * self._world_size), 1)

    def epoch_batches(self) -> tuple[Tensor, Tensor]:
        """View indices int64 [steps, batch], and uniform random numbers float32 [steps, batch, num_draws]."""
        order_generator = generator(self._seed, "order", self._epoch)
        passes = -(-self._epoch_views // self._num_views)
        order = torch.cat([torch.randperm(self._num_views, generator=order_generator) for _ in range(passes)])
        draws = torch.rand(
            self._epoch_views, self._num_draws, generator=generator(self._seed, "augmentation", self._epoch)
        )
        # Fewer views than one joint batch are shared out equally.
        views = min(self._batch_size, self._epoch_views // self._world_size)
        shape = (len(self), self._world_size, views)
        used = len(self) * self._world_size * views
        mine = (slice(None), self._rank)
        return order[:used].reshape(shape)[mine], draws[:used].reshape(*shape, self._num_draws)[mine]


class OrderedSampler:
    """Every view once, in order, the last batch as short as it comes; of several processes each takes every n-th batch.

    Args:
        num_views, batch_size, rank, world_size: as in :class:`EpochSampler`.
    """

    def __init__(self, num_views: int, batch_size: int, rank: int = 0, world_size: int = 1):
        self._batches = list(torch.arange(num_views).split(batch_size))[rank::world_size]

    def __len__(self) -> int:
        return len(self._batches)

    def epoch_batches(self) -> tuple[Sequence[Tensor], None]:
        """View indices, int64 [batch] each, and no random numbers."""
        return self._batches, None

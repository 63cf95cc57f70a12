"""The order in which views are drawn, as a function of seed and epoch alone, so that a run can be resumed exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.seeding import generator

NUM_DRAWS = 7


class EpochSampler:
    """Batches of view indices for training, with the random numbers that their augmentation uses.

    Each epoch draws ``epoch_views`` views without repetition, or several whole passes and a part of one when it is
    more than there are. Over several processes, batch k of one process of a twice as large batch is the union of the
    batches k of two. The last, incomplete batch of an epoch is left out unless it is the only one.

    Args:
        num_views: views there are.
        epoch_views: views of an epoch, over all processes.
        batch_size: views of a batch of this process.
        seed: together with the epoch, determines everything.
        rank, world_size: this process, and how many there are.
    """

    def __init__(
        self, num_views: int, epoch_views: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ):
        self._num_views, self._epoch_views = num_views, epoch_views
        self._batch_size, self._seed = batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch, counted from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return max(self._epoch_views // (self._batch_size * self._world_size), 1)

    def epoch_batches(self) -> tuple[Tensor, Tensor]:
        """View indices int64 [steps, batch], and uniform random numbers float32 [steps, batch, NUM_DRAWS]."""
        order_generator = generator(self._seed, "order", self._epoch)
        passes = -(-self._epoch_views // self._num_views)
        order = torch.cat([torch.randperm(self._num_views, generator=order_generator) for _ in range(passes)])
        draws = torch.rand(
            self._epoch_views, NUM_DRAWS, generator=generator(self._seed, "augmentation", self._epoch)
        )
        used = min(len(self) * self._batch_size * self._world_size, self._epoch_views)
        used -= used % self._world_size
        shape = (len(self), self._world_size, -1)
        mine = (slice(None), self._rank)
        return order[:used].reshape(*shape)[mine], draws[:used].reshape(*shape, NUM_DRAWS)[mine]


def evaluation_batches(num_views: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Tensor]:
    """View indices in order, the last batch as short as it comes; of several processes each takes every n-th batch."""
    return list(torch.arange(num_views).split(batch_size))[rank::world_size]

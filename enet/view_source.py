"""The interface of view sources, stored or rendered, for training and evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from enet.augmentation import NUM_DRAWS
from enet.statistics import TrainingStatistics, compute_statistics
from enet.view_batch import DeferredBatch
from enet.view_order import Step, TrainingOrder, in_order


class ViewSource(ABC):
    """Annotated views, numbered from 0, that become batches on any device.

    A source is the same in every process: it is pickled into those that share a training, without its data on a
    device. Its batches depend on the steps it is given and on nothing else, so that a resumed training sees the same.

    Attributes:
        scenes: names of the scenes that are seen, sorted, each once.
        size: (height, width) of the views.
        has_sh: whether batches hold SH images.
        has_weight: whether batches hold weights.
        num_draws: random numbers that each training view gets; the first NUM_DRAWS are the augmentation's.
    """

    scenes: list[str]
    size: tuple[int, int]
    has_sh: bool
    has_weight: bool
    num_draws: int = NUM_DRAWS

    @abstractmethod
    def __len__(self) -> int:
        """Views there are."""

    @abstractmethod
    def identity(self) -> Any:
        """JSON-able; equal for equal views, so that a run knows whether it was made from them."""

    def describe(self, view: int) -> str:
        """Which view a number is, for people."""
        return f"view {view}"

    @abstractmethod
    def batches(self, steps: Sequence[Step], device: torch.device) -> Iterator[DeferredBatch]:
        """One batch for every step, on ``device``. All steps are known at once, so a source can prepare them ahead."""

    def training_steps(self, order: TrainingOrder, epoch: int) -> Sequence[Step]:
        """What this process trains on in ``epoch``: as many steps in every process.

        A source that does not have all views in every process and at every time overrides this.
        """
        return order.shuffled(len(self), self.num_draws, epoch)

    def ordered_steps(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Sequence[Step]:
        """This process's share of steps that evaluate every view once, unaugmented."""
        return in_order(len(self), batch_size, rank, world_size)

    def statistics(self, batch_size: int, device: torch.device) -> TrainingStatistics:
        """Class frequencies and normalisation of the views; over all of them, unless a source has too many."""
        return compute_statistics(self.batches(self.ordered_steps(batch_size), device))

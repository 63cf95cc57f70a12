"""View sources as Lightning's training and validation loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import gin
import torch

from enet.lightning import pl
from enet.view_source import DeferredBatch, Step, TrainingOrder, ViewSource

_DESCRIBED = 3  # views in a message
_CONFIG = "gin config"


class ViewLoader:
    """A source's batches, epoch by epoch.

    Args:
        source: of the views.
        device: where batches are made.
        steps: the steps of an epoch.
        count: how many there are in any epoch.
    """

    batch_sampler = None  # Lightning looks for one

    def __init__(
        self, source: ViewSource, device: torch.device, steps: Callable[[int], Sequence[Step]], count: int
    ):
        self._source, self._device, self._steps, self._count = source, device, steps, count
        self._epoch = 0

    @property
    def sampler(self) -> ViewLoader:
        """Lightning sets the epoch through this attribute."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch, counted from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[DeferredBatch]:
        # A generator: when a training is resumed, Lightning sets the epoch after it has asked for the iterator.
        yield from self._source.batches(self._steps(self._epoch), self._device)


class SegmentationDataModule(pl.LightningDataModule):
    """Two sources to train and validate on; each process makes its batches on its own device.

    Args:
        training, validation: the sources.
        batch_size: views of a batch of each process.
        epoch_views: training views of an epoch, over all processes.
        seed: with the epoch, determines the order of the training views and their random numbers.
    """

    def __init__(self, training: ViewSource, validation: ViewSource, batch_size: int, epoch_views: int, seed: int):
        super().__init__()
        self._training, self._validation = training, validation
        self._batch_size, self._epoch_views, self._seed = batch_size, epoch_views, seed

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, _CONFIG: gin.config_str()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a process that shares the training, option groups and the label set are then as configured here."""
        config = state.pop(_CONFIG)
        if config != gin.config_str():
            gin.parse_config(config, skip_unknown=True)  # it was read strictly before
        self.__dict__.update(state)

    def train_dataloader(self) -> ViewLoader:
        order = self._order()
        return self._loader(self._training, partial(self._training.training_steps, order), len(order))

    def describe_step(self, epoch: int, step: int) -> str:
        """Which views this process trained on in a step, for people."""
        views = self._training.training_steps(self._order(), epoch)[step].views.tolist()
        names = [self._training.describe(view) for view in views[:_DESCRIBED]]
        return ", ".join(names) + (f" and {len(views) - _DESCRIBED} more" if len(views) > _DESCRIBED else "")

    def _order(self) -> TrainingOrder:
        return TrainingOrder(
            self._epoch_views, self._batch_size, self._seed, self.trainer.global_rank, self.trainer.world_size
        )

    def val_dataloader(self) -> ViewLoader:
        steps = self._validation.ordered_steps(
            self._batch_size, self.trainer.global_rank, self.trainer.world_size
        )  # fmt: skip
        return self._loader(self._validation, lambda epoch: steps, len(steps))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Nothing to do: batches are made on the device."""
        return batch

    def _loader(self, source: ViewSource, steps: Callable[[int], Sequence[Step]], count: int) -> ViewLoader:
        return ViewLoader(source, self.trainer.strategy.root_device, steps, count)

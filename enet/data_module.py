"""Batches of views for Lightning: from a cache in the device's memory, or read from disk all the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from enet.augmentation import ViewBatch
from enet.options import AugmentationOptions, ViewOptions
from enet.sampling import EpochSampler, evaluation_batches
from enet.statistics import TrainingStatistics, compute_statistics
from enet.view_decoder import StoredBatch, ViewDecoder
from enet.view_table import CachedViews, StoreViews, ViewTable


class _StoredBatches(Dataset):
    """Stored values of whole batches, read from the memory-mapped stores; for worker processes."""

    def __init__(self, table: ViewTable, batches: Sequence[Tensor]):
        self._table, self._batches = table, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._table.read(self._batches[index])


class ViewLoader:
    """Every view once, in order and unaugmented, as decoded batches on ``device``.

    Args:
        table: the views.
        device: where batches are made.
        batch_size: views of a batch; the last may be smaller.
        rank, world_size: of several processes each takes every ``world_size``-th batch.
        cache: stored values already on the device; None reads from disk.
    """

    def __init__(
        self,
        table: ViewTable,
        device: torch.device,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        cache: CachedViews | None = None,
    ):
        self._table, self._device, self._cache = table, device, cache
        self._batches = evaluation_batches(len(table), batch_size, rank, world_size)
        self._decode = ViewDecoder(table, device)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[ViewBatch]:
        for values, views in _stored_batches(self._table, self._batches, self._device, self._cache):
            yield self._decode(values, views)


class TrainingLoader:
    """The sampler's batches with its random numbers. Lightning sets the epoch through :attr:`sampler`."""

    def __init__(
        self,
        table: ViewTable,
        device: torch.device,
        sampler: EpochSampler,
        augmentation: AugmentationOptions,
        cache: CachedViews | None = None,
    ):
        self._table, self._device, self._cache, self.sampler = table, device, cache, sampler
        self._decoder = ViewDecoder(table, device, augmentation)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[StoredBatch]:
        batches, draws = self.sampler.epoch_batches()
        draws = draws.to(self._device)
        stored = _stored_batches(self._table, batches, self._device, self._cache)
        for step, (values, views) in enumerate(stored):
            yield StoredBatch(values, views, draws[step], self._decoder)


def _stored_batches(
    table: ViewTable, batches: Sequence[Tensor], device: torch.device, cache: CachedViews | None
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Stored values and view indices of each batch, on the device; the host waits for nothing."""
    on_gpu = device.type == "cuda"
    on_device = [batch.to(device, non_blocking=on_gpu) for batch in batches]
    if cache is not None:
        for views in on_device:
            yield cache.read(views), views
        return
    stored = _StoredBatches(table, list(batches))
    reader = DataLoader(stored, batch_size=None, num_workers=table.options.workers, pin_memory=on_gpu)
    for stored_values, views in zip(reader, on_device, strict=True):
        values = {name: value.to(device, non_blocking=on_gpu) for name, value in stored_values.items()}
        yield values, views


@dataclass(frozen=True)
class Batching:
    """How training views become batches; ``epoch_views`` over all processes, ``batch_size`` of each."""

    batch_size: int
    epoch_views: int
    seed: int


class ViewDataModule(pl.LightningDataModule):
    """Training and validation views. Each process builds its loaders on its own device; caches are built once."""

    def __init__(
        self,
        training: Sequence[StoreViews],
        validation: Sequence[StoreViews],
        options: ViewOptions,
        augmentation: AugmentationOptions,
        batching: Batching,
        uses_sh: bool,
        quality: bool = False,
    ):
        super().__init__()
        self._augmentation, self._batching, self._use_cache = augmentation, batching, options.cache
        self.training = ViewTable(training, options, uses_sh, quality)
        self.validation = ViewTable(validation, options, uses_sh)
        self._caches: dict[tuple[int, str], CachedViews] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_caches": {}}  # another process fills its own device

    def statistics(self, device: torch.device) -> TrainingStatistics:
        """Class counts and normalisation over every training view, unaugmented."""
        return compute_statistics(self._in_order(self.training, device))

    def train_dataloader(self) -> TrainingLoader:
        device, rank, world_size = self._place()
        batching = self._batching
        sampler = EpochSampler(
            len(self.training), batching.epoch_views, batching.batch_size, batching.seed, rank, world_size
        )
        cache = self._cache(self.training, device)
        return TrainingLoader(self.training, device, sampler, self._augmentation, cache)

    def val_dataloader(self) -> ViewLoader:
        return self._in_order(self.validation, *self._place())

    def validation_loader(self, device: torch.device) -> ViewLoader:
        """Every validation view once, for one process outside a training run."""
        return self._in_order(self.validation, device)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Nothing to do: the loaders make batches on the device."""
        return batch

    def _in_order(self, table: ViewTable, device: torch.device, rank: int = 0, world_size: int = 1) -> ViewLoader:
        cache = self._cache(table, device)
        return ViewLoader(table, device, self._batching.batch_size, rank, world_size, cache=cache)

    def _place(self) -> tuple[torch.device, int, int]:
        return self.trainer.strategy.root_device, self.trainer.global_rank, self.trainer.world_size

    def _cache(self, table: ViewTable, device: torch.device) -> CachedViews | None:
        if not self._use_cache:
            return None
        key = (id(table), str(device))
        if key not in self._caches:
            self._caches[key] = CachedViews(table, device)
        return self._caches[key]

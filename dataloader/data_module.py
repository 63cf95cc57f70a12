"""View stores as Lightning's training, validation and test loaders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from dataloader.view_dataset import ViewDataset
from dataloader.view_loader import BatchDecoding, CachedViews, ViewLoader
from dataloader.view_sampling import EpochSampler, OrderedSampler
from dataloader.view_selection import StoreViews, as_selections, refuse_shared_views


class SegmentationDataModule(pl.LightningDataModule):
    """Batches of :class:`ViewDataset` views from any number of stores, original and novel views together.

    Each process makes its batches on its own device, so nothing is left to transfer; caches are filled once.
    """

    def __init__(
        self,
        train_stores: Sequence[str | Path | StoreViews] = (),
        val_stores: Sequence[str | Path | StoreViews] = (),
        test_stores: Sequence[str | Path | StoreViews] = (),
        batch_size: int = 16,
        inputs: str = "rgb",
        color: str = "rgb",
        num_workers: int = 0,
        cache: bool = False,
        seed: int = 0,
        epoch_views: int | None = None,
        weighted: bool | None = None,
        decoding: BatchDecoding | None = None,
    ):
        """Nothing is read yet.

        Args:
            train_stores, val_stores, test_stores: folders of annotated stores, or some of their views.
            batch_size: views of a batch of each process.
            inputs, color: as in :class:`ViewDataset`.
            num_workers: processes that read ahead without ``cache``.
            cache: hold the views in the memory of the device that uses them, as stored.
            seed: with the epoch, determines the order of the training views and their random numbers.
            epoch_views: training views of an epoch, over all processes; None draws each once.
            weighted: whether training pixels come with the weight of their render quality, see :class:`ViewDataset`.
            decoding: what batches become; None makes the dicts of :func:`dataloader.view_dataset.decode_batch`.

        Raises:
            UserError: validation or test views are training views too.
        """
        super().__init__()
        self._stores = {"train": as_selections(train_stores), "val": as_selections(val_stores),
                        "test": as_selections(test_stores)}  # fmt: skip
        refuse_shared_views(self._stores["train"], self._stores["val"] + self._stores["test"])
        self._batch_size, self._num_workers, self._use_cache = batch_size, num_workers, cache
        self._seed, self._epoch_views = seed, epoch_views
        self._options = {"inputs": inputs, "color": color, "decoded": False}
        self._weighted = {"train": weighted, "val": False, "test": False}
        self._decoding = decoding or BatchDecoding()
        self._datasets: dict[str, ViewDataset] = {}
        self._caches: dict[tuple[str, str], CachedViews] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_caches": {}}  # another process fills its own device

    def dataset(self, split: str) -> ViewDataset:
        """The dataset of "train", "val" or "test", opened on first use."""
        if split not in self._datasets:
            self._datasets[split] = ViewDataset(self._stores[split], weighted=self._weighted[split], **self._options)
        return self._datasets[split]

    def train_dataloader(self) -> ViewLoader:
        device, rank, world_size = self._place()
        views = len(self.dataset("train"))
        sampler = EpochSampler(
            views, self._epoch_views or views, self._batch_size, self._seed, self._decoding.num_draws, rank, world_size
        )
        return self._loader("train", sampler, device, training=True)

    def val_dataloader(self) -> ViewLoader:
        return self.in_order("val", *self._place())

    def test_dataloader(self) -> ViewLoader:
        return self.in_order("test", *self._place())

    def in_order(self, split: str, device: torch.device, rank: int = 0, world_size: int = 1) -> ViewLoader:
        """Every view of a split once and unaugmented; of several processes each takes every n-th batch."""
        sampler = OrderedSampler(len(self.dataset(split)), self._batch_size, rank, world_size)
        return self._loader(split, sampler, device, training=False)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Nothing to do: the loaders make batches on the device."""
        return batch

    def _loader(
        self, split: str, sampler: EpochSampler | OrderedSampler, device: torch.device, training: bool
    ) -> ViewLoader:
        dataset = self.dataset(split)
        decode = self._decoding.prepare(dataset, device, training)
        return ViewLoader(dataset, sampler, device, decode, self._num_workers, self._cache(split, device))

    def _place(self) -> tuple[torch.device, int, int]:
        """This process's device and rank, and how many there are; without a trainer, the CPU alone."""
        if self.trainer is None:
            return torch.device("cpu"), 0, 1
        return self.trainer.strategy.root_device, self.trainer.global_rank, self.trainer.world_size

    def _cache(self, split: str, device: torch.device) -> CachedViews | None:
        if not self._use_cache:
            return None
        key = (split, str(device))
        if key not in self._caches:
            self._caches[key] = CachedViews(self.dataset(split), device)
        return self._caches[key]

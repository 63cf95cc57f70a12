"""View stores as Lightning's training, validation and test loaders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from dataloader.view_dataset import ViewDataset, decode_batch, keep_batch
from utils.errors import UserError
from utils.seeding import generator


class EpochShuffle(Sampler[int]):
    """All indices in an order that depends on seed and epoch alone, so that a resumed run goes on as it would have."""

    def __init__(self, count: int, seed: int):
        self._count, self._seed, self._epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self._count, generator=generator(self._seed, "shuffle", self._epoch)).tolist())


class SegmentationDataModule(pl.LightningDataModule):
    """Batches of :class:`ViewDataset` samples from any number of stores, original and novel views together.

    Loaders carry samples as stored; Lightning moves them to the device, where they are decoded.
    """

    def __init__(
        self,
        train_stores: Sequence[str | Path] = (),
        val_stores: Sequence[str | Path] = (),
        test_stores: Sequence[str | Path] = (),
        batch_size: int = 16,
        inputs: str = "rgb",
        color: str = "rgb",
        num_workers: int = 0,
        cache: bool = False,
        seed: int = 0,
    ):
        """Args are those of :class:`ViewDataset`; training views are shuffled by ``seed`` and epoch.

        Raises:
            UserError: validation or test stores are training stores too.
        """
        super().__init__()
        self._stores = {"train": train_stores, "val": val_stores, "test": test_stores}
        self._batch_size, self._num_workers, self._seed = batch_size, num_workers, seed
        self._options = {"inputs": inputs, "color": color, "cache": cache, "decoded": False}
        self._datasets: dict[str, ViewDataset] = {}
        train = {Path(store).resolve() for store in train_stores}
        for store in (*val_stores, *test_stores):
            if Path(store).resolve() in train:
                raise UserError(f"{store} is a training store and a validation or test store; take it out of one list")

    def dataset(self, split: str) -> ViewDataset:
        """The dataset of "train", "val" or "test", opened on first use."""
        if split not in self._datasets:
            self._datasets[split] = ViewDataset(self._stores[split], **self._options)
        return self._datasets[split]

    def train_dataloader(self) -> DataLoader:
        dataset = self.dataset("train")
        whole_batches = len(dataset) >= self._batch_size
        return self._loader("train", sampler=EpochShuffle(len(dataset), self._seed), drop_last=whole_batches)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._loader("test")

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        return decode_batch(batch)

    def _loader(self, split: str, **options: Any) -> DataLoader:
        return DataLoader(
            self.dataset(split),
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=keep_batch,
            **options,
        )

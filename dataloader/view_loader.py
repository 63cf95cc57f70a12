"""Batches of views on the device that uses them: from a cache in its memory, or read from disk all the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dataloader.view_dataset import ViewDataset, decode_batch, keep_batch
from dataloader.view_sampling import EpochSampler, OrderedSampler

_VIEWS_AT_ONCE = 256  # read and copied to the device at a time


class BatchDecoding:
    """What becomes of stored batches on their device; subclasses make what a network needs.

    Attributes:
        num_draws: uniform random numbers that each training view comes with.
    """

    num_draws: int = 0

    def prepare(
        self, dataset: ViewDataset, device: torch.device, training: bool
    ) -> Callable[[dict[str, Tensor]], Any]:
        """A function of batches as :meth:`ViewDataset.stored_batch` gives them, on ``device``.

        Training batches also hold ``draws``, float32 [B, num_draws], where there are any.
        """
        return decode_batch


class CachedViews:
    """The stored values of a whole dataset in a device's memory: 8 bits a value where the stores have it so."""

    def __init__(self, dataset: ViewDataset, device: torch.device):
        self._values: dict[str, Tensor] = {}
        for views in torch.arange(len(dataset)).split(_VIEWS_AT_ONCE):
            for name, values in dataset.stored_batch(views.tolist()).items():
                if name not in self._values:
                    shape = (len(dataset), *values.shape[1:])
                    self._values[name] = torch.empty(shape, dtype=values.dtype, device=device)
                self._values[name][views[0] : views[-1] + 1] = values.to(device)

    def read(
        self,
        views: Tensor,  # [B] int64, on the device
    ) -> dict[str, Tensor]:
        """As :meth:`ViewDataset.stored_batch`, on the device."""
        return {name: values.index_select(0, views) for name, values in self._values.items()}


class ViewLoader:
    """A sampler's batches, on ``device``. The host waits for nothing that the device does.

    Args:
        dataset: the views.
        sampler: their order; Lightning sets the epoch through :attr:`sampler`.
        device: where batches are made.
        decode: what :meth:`BatchDecoding.prepare` gave for this dataset and device.
        num_workers: processes that read ahead where there is no cache.
        cache: stored values already on the device; None reads from disk.
    """

    def __init__(
        self,
        dataset: ViewDataset,
        sampler: EpochSampler | OrderedSampler,
        device: torch.device,
        decode: Callable[[dict[str, Tensor]], Any] = decode_batch,
        num_workers: int = 0,
        cache: CachedViews | None = None,
    ):
        self.sampler, self.batch_sampler = sampler, None  # Lightning reads both, as of PyTorch's loaders
        self._dataset, self._device, self._decode = dataset, device, decode
        self._num_workers, self._cache = num_workers, cache

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        batches, draws = self.sampler.epoch_batches()
        draws = None if draws is None or not draws.shape[-1] else draws.to(self._device)
        for step, values in enumerate(self._stored_batches(batches)):
            yield self._decode(values if draws is None else {**values, "draws": draws[step]})

    def _stored_batches(self, batches: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
        on_gpu = self._device.type == "cuda"
        if self._cache is not None:
            for views in [batch.to(self._device, non_blocking=on_gpu) for batch in batches]:
                yield self._cache.read(views)
            return
        reader = DataLoader(
            self._dataset,
            batch_sampler=[batch.tolist() for batch in batches],
            collate_fn=keep_batch,
            num_workers=self._num_workers,
            pin_memory=on_gpu,
        )
        for values in reader:
            yield {name: value.to(self._device, non_blocking=on_gpu) for name, value in values.items()}

"""Views of many stores as training samples.

A sample's colour, SH and label come from the same view of the same store, by index: nothing is paired by file names.
Samples travel as stored (8 bits a number) and become floats through :func:`decode_batch`, best on the device that
uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dataloader.view_channels import decode
from dataloader.view_selection import StoreViews, as_selections
from dataloader.view_store import ViewStore, channel_file
from utils.errors import UserError
from utils.labels import NUM_CLASSES

INPUTS = ("rgb", "rgb+sh")
COLORS = ("rgb", "photo")


class ViewDataset(Dataset):
    """Annotated views of any number of stores that share one image size.

    An item (``decoded=True``) is a dict: ``color`` float32 ``[3, H, W]`` in 0..1; ``sh`` float32 ``[27, H, W]`` with
    inputs "rgb+sh"; ``label`` int64 ``[H, W]``; ``weight`` float32 ``[H, W]`` in 0..1, the render quality, where
    :attr:`weighted`; ``index`` of the item and ``store`` its store's position in :attr:`stores`. With
    ``decoded=False`` images are as stored and ``sh_range`` float32 ``[27, 2]`` comes along where SH are 8-bit;
    :func:`decode_batch` decodes.

    Picklable and safe in worker processes: it keeps no file open.

    Attributes:
        stores: the opened stores.
        store_of_view: int64 [N], each item's position in :attr:`stores`.
        index_in_store: int64 [N], which of its store's views an item is.
        weighted: whether items carry a ``weight``.
    """

    def __init__(
        self,
        stores: Sequence[str | Path | StoreViews],
        inputs: str = "rgb",
        color: str = "rgb",
        only_accepted: bool = True,
        decoded: bool = True,
        weighted: bool | None = None,
    ):
        """Open the stores and check them, without reading pixels.

        Args:
            stores: folders of finished, annotated stores, or some of their views.
            inputs: "rgb" or "rgb+sh".
            color: which picture is ``color``: the rendered "rgb" or the camera's "photo".
            only_accepted: leave out views that the filter refused (``info["accepted"]`` false in cameras.json).
            decoded: whether items are floats; see above.
            weighted: whether items carry a weight; views of stores without ``quality`` then count in full. None: when
                all stores have it.

        Raises:
            UserError: no stores or views; a channel is missing; sizes or SH storage differ between stores.
        """
        if inputs not in INPUTS or color not in COLORS:
            raise UserError(f"inputs = {inputs!r} and color = {color!r}; expected one of {INPUTS} and one of {COLORS}")
        if not stores:
            raise UserError("a dataset needs at least one view store; give the folders that 'render' wrote")
        chosen = as_selections(stores)
        self.stores = [ViewStore(entry.path) for entry in chosen]
        self.decoded = decoded
        self._names = {"color": color, "label": "label"}
        if inputs == "rgb+sh":
            self._names["sh"] = "sh"
        self._check_stores()
        self.weighted = self._has_weights(weighted)
        kept = [_kept_views(store, entry.indices, only_accepted)
                for store, entry in zip(self.stores, chosen, strict=True)]  # fmt: skip
        self.index_in_store = torch.cat(kept)
        self.store_of_view = torch.repeat_interleave(torch.tensor([len(views) for views in kept]))
        if not len(self):
            raise UserError(f"none of the {len(self.stores)} stores (such as {self.stores[0].path}) has an accepted "
                            "view among those chosen; loosen the filter or check the split")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of all samples."""
        return self.stores[0].size

    @property
    def has_sh(self) -> bool:
        """Whether samples carry ``sh``."""
        return "sh" in self._names

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes, sorted, each once."""
        return sorted({store.scene for store in self.stores})

    def __len__(self) -> int:
        return len(self.index_in_store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        sample = self._read(index)
        return decode_batch(sample) if self.decoded else sample

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """A whole batch, collated (PyTorch's loaders call this; give them ``collate_fn=keep_batch``)."""
        batch = self.stored_batch(indices)
        return decode_batch(batch) if self.decoded else batch

    def stored_batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Items as stored, collated.

        Raises:
            UserError: a label is out of range.
        """
        return default_collate([self._read(index) for index in indices])

    def _read(self, index: int) -> dict[str, Any]:
        position, view = int(self.store_of_view[index]), int(self.index_in_store[index])
        store = self.stores[position]
        sample: dict[str, Any] = {key: store.read_stored(name, view) for key, name in self._names.items()}
        check_labels(sample["label"], store, view)
        if "sh" in sample and store.sh_range is not None:
            sample["sh_range"] = store.sh_range
        if self.weighted:
            rated = "quality" in store.channels
            sample["weight"] = (
                store.read_stored("quality", view) if rated else torch.full(store.size, 255, dtype=torch.uint8)
            )
        return {**sample, "index": torch.tensor(index), "store": torch.tensor(position)}

    def _has_weights(self, weighted: bool | None) -> bool:
        rated = [store for store in self.stores if "quality" in store.channels]
        for store in rated if weighted is not False else ():
            store.check_channel("quality")
        if weighted and not rated:
            raise UserError(
                f"neither {self.stores[0].path} nor another store has a quality channel; run the 'rate' task on the "
                "novel views, or switch LossOptions.quality off"
            )
        return len(rated) == len(self.stores) if weighted is None else weighted

    def _check_stores(self) -> None:
        first = self.stores[0]
        for store in self.stores:
            for name in self._names.values():
                store.check_channel(name)
            if store.size != first.size:
                raise UserError(f"{store.path} has views of {store.size[1]}x{store.size[0]}, {first.path} of "
                                f"{first.size[1]}x{first.size[0]}; one dataset needs one size: render one again")
            if "sh" in self._names and store.dtype("sh") != first.dtype("sh"):
                raise UserError(f"{store.path} stores SH as {store.dtype('sh')}, {first.path} as {first.dtype('sh')}; "
                                "render them again with one setting")


def decode_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Turn stored numbers of a sample or batch into floats and class indices, where they lie; done twice, as once."""
    decoded = {key: value for key, value in batch.items() if key != "sh_range"}
    for key, name in (("color", "rgb"), ("label", "label"), ("weight", "quality")):
        if key in batch and batch[key].dtype == torch.uint8:
            decoded[key] = decode(name, batch[key])
    if "sh" in batch and batch["sh"].dtype != torch.float32:
        decoded["sh"] = decode("sh", batch["sh"], batch.get("sh_range"))
    return decoded


def keep_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Collate function for batches that are collated already."""
    return batch


def _kept_views(store: ViewStore, indices: Sequence[int] | None, only_accepted: bool) -> Tensor:
    """Views int64 [n] of a store, ascending: those among ``indices`` (None: all), accepted if that is asked for."""
    kept = store.cameras.accepted() if only_accepted else torch.ones(len(store), dtype=torch.bool)
    if indices is not None:
        kept = kept & torch.isin(torch.arange(len(store)), torch.tensor(indices, dtype=torch.int64))
    return kept.nonzero()[:, 0]


def check_labels(labels: Tensor, store: ViewStore, view: int | None = None) -> None:
    """Raise :class:`UserError` that names the file when stored labels hold anything but class indices."""
    if labels.numel() and int(labels.max()) >= NUM_CLASSES:
        place = "" if view is None else f" in view {view}"
        raise UserError(f"{channel_file(store.path, 'label')} holds class {int(labels.max())}{place}; expected class "
                        f"indices 0..{NUM_CLASSES - 1}, not NYU40 ids: run the 'annotate' task again")

"""Views of many stores as training samples.

A sample's colour, SH and label come from the same view of the same store, by index: nothing is paired by file names.
Samples travel as stored (8 bits a number) and become floats through :func:`decode_batch`, best on the device that
uses them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dataloader.view_channels import decode
from dataloader.view_store import ViewStore, channel_file
from utils.errors import UserError
from utils.labels import NUM_CLASSES

INPUTS = ("rgb", "rgb+sh")
COLORS = ("rgb", "photo")


class ViewDataset(Dataset):
    """Annotated views of any number of stores that share one image size.

    An item (``decoded=True``) is a dict: ``color`` float32 ``[3, H, W]`` in 0..1; ``sh`` float32 ``[27, H, W]`` with
    inputs "rgb+sh"; ``label`` int64 ``[H, W]``; ``weight`` float32 ``[H, W]`` in 0..1 when all stores carry
    ``quality``; ``index`` of the item and ``store`` its store's position in :attr:`stores`. With ``decoded=False``
    images are as stored and ``sh_range`` float32 ``[27, 2]`` comes along; :func:`decode_batch` decodes.

    Picklable and safe in worker processes: it keeps no file open.
    """

    def __init__(
        self,
        stores: Sequence[str | Path],
        inputs: str = "rgb",
        color: str = "rgb",
        only_accepted: bool = True,
        cache: bool = False,
        decoded: bool = True,
    ):
        """Open the stores and check them, without reading pixels (unless ``cache``).

        Args:
            stores: folders of finished, annotated stores.
            inputs: "rgb" or "rgb+sh".
            color: which picture is ``color``: the rendered "rgb" or the camera's "photo".
            only_accepted: leave out views that the filter refused (``info["accepted"]`` false in cameras.json).
            cache: hold all samples in memory, as stored.
            decoded: whether items are floats; see above.

        Raises:
            UserError: no stores or views; a channel is missing; sizes or SH storage differ between stores.
        """
        if inputs not in INPUTS or color not in COLORS:
            raise UserError(f"inputs = {inputs!r} and color = {color!r}; expected one of {INPUTS} and one of {COLORS}")
        if not stores:
            raise UserError("a dataset needs at least one view store; give the folders that 'render' wrote")
        self.stores = [ViewStore(path) for path in stores]
        self.decoded = decoded
        self._names = {"color": color, "label": "label"}
        if inputs == "rgb+sh":
            self._names["sh"] = "sh"
        if all("quality" in store.channels for store in self.stores):
            self._names["weight"] = "quality"
        self._check_stores()
        self._views = [_kept_views(store, only_accepted) for store in self.stores]
        self._ends = list(accumulate(len(views) for views in self._views))
        if not self._ends[-1]:
            raise UserError(f"none of the {len(self.stores)} stores (such as {self.stores[0].path}) has an accepted "
                            "view; loosen the filter")
        self._cache = self._load_all() if cache else None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of all samples."""
        return self.stores[0].size

    @property
    def weighted(self) -> bool:
        """Whether samples carry a ``weight``."""
        return "weight" in self._names

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, index: int) -> tuple[int, int]:
        """(store, view in it) of a sample."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        store = bisect_right(self._ends, index)
        return store, int(self._views[store][index - (self._ends[store - 1] if store else 0)])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._cache is not None:
            sample = {key: values[index] for key, values in self._cache.items()}
        else:
            sample = self._read(index)
        return decode_batch(sample) if self.decoded else sample

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """A whole batch, collated (PyTorch's loaders call this; give them ``collate_fn=keep_batch``)."""
        if self._cache is not None:
            chosen = torch.as_tensor(indices)
            batch = {key: values.index_select(0, chosen) for key, values in self._cache.items()}
        else:
            batch = default_collate([self._read(index) for index in indices])
        return decode_batch(batch) if self.decoded else batch

    def _read(self, index: int) -> dict[str, Any]:
        position, view = self.locate(index)
        store = self.stores[position]
        sample: dict[str, Any] = {key: store.read_stored(name, view) for key, name in self._names.items()}
        check_labels(sample["label"], store, view)
        if "sh" in sample and store.sh_range is not None:
            sample["sh_range"] = store.sh_range
        return {**sample, "index": torch.tensor(index), "store": torch.tensor(position)}

    def _load_all(self) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {key: [] for key in self._names}
        for store, views in zip(self.stores, self._views, strict=True):
            for key, name in self._names.items():
                parts[key].append(store.tensor(name)[views])
            check_labels(parts["label"][-1], store)
        cache = {key: torch.cat(values) for key, values in parts.items()}
        owner = torch.repeat_interleave(torch.tensor([len(views) for views in self._views]))
        if "sh" in self._names and self.stores[0].sh_range is not None:
            cache["sh_range"] = torch.stack([store.sh_range for store in self.stores])[owner]
        return {**cache, "index": torch.arange(len(self)), "store": owner}

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


def _kept_views(store: ViewStore, only_accepted: bool) -> Tensor:
    if not only_accepted:
        return torch.arange(len(store))
    return store.cameras.accepted().nonzero()[:, 0]


def check_labels(labels: Tensor, store: ViewStore, view: int | None = None) -> None:
    """Raise :class:`UserError` that names the file when stored labels hold anything but class indices."""
    if labels.numel() and int(labels.max()) >= NUM_CLASSES:
        place = "" if view is None else f" in view {view}"
        raise UserError(f"{channel_file(store.path, 'label')} holds class {int(labels.max())}{place}; expected class "
                        f"indices 0..{NUM_CLASSES - 1}, not NYU40 ids: run the 'annotate' task again")

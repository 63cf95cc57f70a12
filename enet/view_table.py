"""Chosen views of many stores as one table, and their stored values in a device's memory.

Original and novel views, of any number of folders, are simply more stores: nothing is merged on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataloader import ViewDataset, ViewStore
from enet.options import ViewOptions
from utils.errors import UserError

_VIEWS_AT_ONCE = 256  # read and copied to the device at a time


@dataclass(frozen=True)
class StoreViews:
    """Some views of one store: its path, and which ones (None: all)."""

    path: Path
    indices: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(ViewStore(self.path)) if self.indices is None else len(self.indices)

    def identity(self) -> dict[str, Any]:
        """JSON-able; tells whether these are the views that an earlier run read."""
        content = hashlib.sha256()
        for name in ("settings.json", "meta.json"):
            content.update((self.path / name).read_bytes())
        views = None if self.indices is None else hashlib.sha256(repr(self.indices).encode()).hexdigest()[:16]
        return {"path": str(self.path), "content": content.hexdigest()[:16], "views": views}


class ViewTable:
    """The chosen views, opened and checked but not read.

    Args:
        chosen: the stores and their views; their order is the order of the table.
        options: colour channel and SH axes.
        uses_sh: the SH channel is needed.
        quality: pixels are weighted by the quality channel; views of stores without one count in full.

    Attributes:
        dataset: all views of the stores.
        rows: int64 [N], the chosen samples of the dataset.
        store_of_view: int64 [N], position in ``dataset.stores``.
        index_in_store: int64 [N], which of the store's views.

    Raises:
        UserError: nothing chosen, a channel is missing or damaged, image sizes differ.
    """

    def __init__(self, chosen: Sequence[StoreViews], options: ViewOptions, uses_sh: bool, quality: bool = False):
        self.options, self.uses_sh, self.quality = options, uses_sh, quality
        inputs = "rgb+sh" if uses_sh else "rgb"
        self.dataset = ViewDataset([entry.path for entry in chosen], inputs, options.color, decoded=False)
        if quality and not any("quality" in store.channels for store in self.dataset.stores):
            raise UserError(
                f"neither {chosen[0].path} nor another store has a quality channel; run the 'rate' task on the novel "
                "views, or switch LossOptions.quality off"
            )
        places = torch.tensor([self.dataset.locate(index) for index in range(len(self.dataset))])
        wanted = [None if entry.indices is None else set(entry.indices) for entry in chosen]
        kept = [wanted[store] is None or view in wanted[store] for store, view in places.tolist()]
        self.rows = torch.tensor(kept).nonzero()[:, 0]
        if not len(self.rows):
            raise UserError(f"no views of {chosen[0].path} and the other stores are left; check the split")
        self.store_of_view, self.index_in_store = places[self.rows].unbind(1)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes, sorted, each once."""
        return sorted({store.scene for store in self.dataset.stores})

    def read(
        self,
        views: Tensor,  # [B] int64, on the CPU
    ) -> dict[str, Tensor]:
        """As stored, [B, ...]: ``color``, ``label``, and ``sh`` and ``weight`` where they are needed.

        Raises:
            UserError: a label is out of range.
        """
        batch = self.dataset.__getitems__(self.rows[views].tolist())
        values = {name: batch[name] for name in ["color", "label"] + ["sh"] * self.uses_sh}
        if self.quality:
            values["weight"] = torch.stack([self._weight(int(view)) for view in views])
        return values

    def _weight(self, view: int) -> Tensor:
        """Quality as stored, uint8 [H, W]; 255 where the store does not rate its views."""
        store = self.dataset.stores[self.store_of_view[view]]
        if "quality" not in store.channels:
            return torch.full(store.size, 255, dtype=torch.uint8)
        return store.read_stored("quality", int(self.index_in_store[view]))


class CachedViews:
    """The stored values of a whole table in a device's memory: 8 bits a value where the stores have it so."""

    def __init__(self, table: ViewTable, device: torch.device):
        self._values: dict[str, Tensor] = {}
        for views in torch.arange(len(table)).split(_VIEWS_AT_ONCE):
            for name, values in table.read(views).items():
                if name not in self._values:
                    shape = (len(table), *values.shape[1:])
                    self._values[name] = torch.empty(shape, dtype=values.dtype, device=device)
                self._values[name][views[0] : views[-1] + 1] = values.to(device)

    def read(
        self,
        views: Tensor,  # [B] int64, on the device
    ) -> dict[str, Tensor]:
        """As :meth:`ViewTable.read`, on the device."""
        return {name: values.index_select(0, views) for name, values in self._values.items()}

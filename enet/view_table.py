"""Stored views of many scenes as one table, and its values in a device's memory.

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

from dataloader import ViewStore
from dataloader.view_channels import decode
from enet.options import ViewOptions
from utils.errors import UserError
from utils.labels import NUM_CLASSES

_ROWS_AT_ONCE = 256  # read and copied to the device at a time


@dataclass(frozen=True)
class StoreViews:
    """Some views of one store: its path, and which ones (None: all)."""

    path: Path
    indices: tuple[int, ...] | None = None

    def identity(self) -> dict[str, Any]:
        """JSON-able; tells whether these are the views that an earlier run read."""
        content = hashlib.sha256()
        for name in ("settings.json", "meta.json"):
            content.update((self.path / name).read_bytes())
        views = None if self.indices is None else hashlib.sha256(repr(self.indices).encode()).hexdigest()[:16]
        return {"path": str(self.path), "content": content.hexdigest()[:16], "views": views}


class ViewTable:
    """All chosen views, opened but not read.

    Args:
        chosen: the stores and their views; their order is the order of the table.
        options: colour channel and SH axes.
        uses_sh: the SH channel is needed.
        quality: the quality channel is needed.

    Raises:
        UserError: nothing chosen, a channel is missing or damaged, image sizes differ.
    """

    def __init__(self, chosen: Sequence[StoreViews], options: ViewOptions, uses_sh: bool, quality: bool = False):
        if not chosen:
            raise UserError("no stores of views were given; render and annotate scenes first")
        self.options, self.uses_sh = options, uses_sh
        self.channels = [options.color, "label"] + ["sh"] * uses_sh + ["quality"] * quality
        self.stores = [ViewStore.open(entry.path) for entry in chosen]
        self.paths = [Path(entry.path) for entry in chosen]
        self.rows = [
            torch.arange(len(store)) if entry.indices is None else torch.tensor(entry.indices, dtype=torch.long)
            for store, entry in zip(self.stores, chosen, strict=True)
        ]
        self.store_of_view = torch.repeat_interleave(torch.tensor([len(rows) for rows in self.rows]))
        self._first_view = torch.tensor([0, *(len(rows) for rows in self.rows)]).cumsum(0)
        self.image_size = tuple(self.stores[0].size)
        for path, store in zip(self.paths, self.stores, strict=True):
            self._check(path, store)
        if len(self) == 0:
            raise UserError(f"{self.paths[0]} and the other stores given hold no views; render scenes first")

    def __len__(self) -> int:
        return len(self.store_of_view)

    def _check(self, path: Path, store: ViewStore) -> None:
        if tuple(store.size) != self.image_size:
            raise UserError(
                f"{path} holds images of {store.size} but {self.paths[0]} of {self.image_size}; "
                "render all views at one size"
            )
        hints = {"label": "run the annotate task on it", "quality": "filter the views with quality on, or switch "
                 "LossOptions.quality off"}  # fmt: skip
        for name in self.channels:
            if name not in store.channels:
                raise UserError(f"{path} has no {name!r} channel; {hints.get(name, 'render it with that output')}")

    def stored_dtype(self, name: str) -> torch.dtype:
        """What a channel's values are held as: uint8 where every store has it so, else float16."""
        return torch.uint8 if all(store.dtype(name) == "uint8" for store in self.stores) else torch.float16

    def read_stored(self, name: str, number: int, rows: Tensor) -> Tensor:
        """Some rows of a channel of store ``number`` as :meth:`stored_dtype`; raises for labels out of range."""
        store = self.stores[number]
        values = torch.stack([store.read_stored(name, int(row)) for row in rows])
        if name == "label":
            check_labels(self.paths[number], values)
        if values.dtype != self.stored_dtype(name):
            values = decode(name, values, store.sh_range).half()
        return values

    def read(self, views: Tensor) -> dict[str, Tensor]:
        """Stored values of the views [B] (indices on the CPU), each [B, ...]; colour is under ``"color"``."""
        numbers = self.store_of_view[views]
        rows = torch.stack([self.rows[number][view - self._first_view[number]]
                            for number, view in zip(numbers.tolist(), views, strict=True)])  # fmt: skip
        return {
            self.field(name): torch.cat(
                [self.read_stored(name, int(number), row[None]) for number, row in zip(numbers, rows, strict=True)]
            )
            for name in self.channels
        }

    def field(self, channel: str) -> str:
        """Name of a channel's values in a batch: the chosen colour channel's is ``"color"``."""
        return "color" if channel == self.options.color else channel


class CachedViews:
    """The stored values of a whole table in the device's memory: 8 bits a value where the stores have it so.

    Raises:
        UserError: a label is out of range.
    """

    def __init__(self, table: ViewTable, device: torch.device):
        self._tensors = {
            table.field(name): _load(table, name, device) for name in table.channels
        }

    def read(self, views: Tensor) -> dict[str, Tensor]:
        """Stored values of the views [B] (indices on the device), each [B, ...]."""
        return {name: tensor[views] for name, tensor in self._tensors.items()}


def _load(table: ViewTable, name: str, device: torch.device) -> Tensor:
    """One channel of all views, [N, ...]."""
    loaded = None
    position = 0
    for number, rows in enumerate(table.rows):
        for chunk in rows.split(_ROWS_AT_ONCE):
            values = table.read_stored(name, number, chunk)
            if loaded is None:
                loaded = torch.empty(len(table), *values.shape[1:], dtype=values.dtype, device=device)
            loaded[position : position + len(chunk)] = values.to(device)
            position += len(chunk)
    return loaded


def check_labels(path: Path, label: Tensor) -> None:
    """Raise :class:`UserError` unless all class indices are those of the benchmark."""
    largest = int(label.max()) if label.numel() else 0
    if largest >= NUM_CLASSES:
        raise UserError(
            f"{path}/label.npy holds class index {largest}, expected 0 to {NUM_CLASSES - 1}; annotate it again"
        )


def count_views(chosen: Sequence[StoreViews]) -> int:
    """How many views were chosen."""
    return sum(len(ViewStore.open(entry.path)) if entry.indices is None else len(entry.indices) for entry in chosen)

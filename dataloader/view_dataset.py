"""Views of many stores as training samples.

A sample's colour, SH and label come from the same view of the same store, by index: nothing is paired by file names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dataloader.predicted_labels import PredictedLabels
from dataloader.view_array import channel_file
from dataloader.view_channels import CHANNEL_KINDS, decode
from dataloader.view_store import ViewStore
from utils.errors import UserError
from utils.identity import store_identity, value_identity
from utils.labels import label_set

INPUTS = ("rgb", "rgb+sh")
COLORS = ("rgb", "photo")


@dataclass(frozen=True)
class StoreViews:
    """Some views of one store.

    Attributes:
        path: of the store.
        indices: which views; None: all.
        color: which picture is their colour, "rgb" or "photo"; None: the dataset's.
        folder: number of the folder of views that the store belongs to, where folders are mixed by shares.
        predicted: labels that stand in place of the store's own, which are not read, and their confidence in place of
            its quality; None: the store's own.
    """

    path: Path
    indices: tuple[int, ...] | None = None
    color: str | None = None
    folder: int = 0
    predicted: PredictedLabels | None = None

    def __len__(self) -> int:
        return len(ViewStore(self.path)) if self.indices is None else len(self.indices)

    def shares_views(self, other: StoreViews) -> bool:
        """Whether both mean the same store and at least one view in common."""
        if self.path.resolve() != other.path.resolve():
            return False
        return self.indices is None or other.indices is None or not set(self.indices).isdisjoint(other.indices)

    def identity(self, channels: Iterable[str]) -> dict[str, Any]:
        """JSON-able identity of the views, as far as a run uses ``channels``."""
        views = None if self.indices is None else value_identity(list(self.indices))
        if self.predicted is not None:
            channels = [name for name in channels if name not in ("label", "quality")]
        return {
            "folder": self.path.absolute().parent.name, "scene": ViewStore(self.path).scene,
            "store": store_identity(self.path, channels), "views": views,
            **({} if self.color is None else {"color": self.color}),
            **({} if self.predicted is None else {"predicted_labels": self.predicted.identity()}),
        }  # fmt: skip


class ViewDataset(Dataset):
    """Annotated views of any number of stores that share one image size, without those that the filter refused.

    An item is a dict: ``color`` float32 ``[3, H, W]`` in 0..1; ``sh`` float32 ``[27, H, W]`` with inputs "rgb+sh";
    ``label`` int64 ``[H, W]``; ``weight`` float32 ``[H, W]`` in 0..1, the render quality, where :attr:`weighted` (the
    confidence of predicted labels); and
    ``further`` channels of the stores by their own names.
    Whole batches are read as stored, see :meth:`stored_batch`.

    Picklable and safe in worker processes: it keeps no file open.

    Attributes:
        selections: which views of which stores.
        stores: the opened stores.
        store_of_view: int64 [N], each item's position in :attr:`stores`.
        index_in_store: int64 [N], which of its store's views an item is.
        folder_of_view: int64 [N], each item's :attr:`StoreViews.folder`.
        weighted: whether items carry a ``weight``.
    """

    def __init__(
        self,
        stores: Sequence[str | Path | StoreViews],
        inputs: str = "rgb",
        color: str = "rgb",
        weighted: bool = False,
        further: Sequence[str] = (),
    ):
        """Open the stores and check them, without reading pixels.

        Args:
            stores: folders of finished, annotated stores, or some of their views.
            inputs: "rgb" or "rgb+sh".
            color: which picture is ``color``: the rendered "rgb" or the camera's "photo".
            weighted: whether items carry a weight; views of stores without ``quality`` then count in full.
            further: other channels that items carry, such as "depth".

        Raises:
            UserError: no stores or views; a channel is missing; sizes or SH storage differ between stores.
        """
        if inputs not in INPUTS or color not in COLORS:
            raise UserError(f"inputs = {inputs!r} and color = {color!r}; expected one of {INPUTS} and one of {COLORS}")
        if not stores:
            raise UserError("a dataset needs at least one view store; give the folders that 'render' wrote")
        self.selections = [entry if isinstance(entry, StoreViews) else StoreViews(Path(entry)) for entry in stores]
        self.stores = [ViewStore(entry.path) for entry in self.selections]
        self.weighted = weighted
        self._colors = [entry.color or color for entry in self.selections]
        for chosen in self._colors:
            if chosen not in COLORS:
                raise UserError(f"color = {chosen!r} is unknown; use one of {COLORS}")
        self._channels = {"color": color, "label": "label"}
        if inputs == "rgb+sh":
            self._channels["sh"] = "sh"
        self._channels |= {name: name for name in further}
        self._predicted = [None if entry.predicted is None else entry.predicted.open(store)
                           for entry, store in zip(self.selections, self.stores, strict=True)]  # fmt: skip
        self._check_stores()
        kept = [_kept_views(store, entry.indices) for store, entry in zip(self.stores, self.selections, strict=True)]
        self.index_in_store = torch.cat(kept)
        self.store_of_view = torch.repeat_interleave(torch.tensor([len(views) for views in kept]))
        self.folder_of_view = torch.tensor([entry.folder for entry in self.selections])[self.store_of_view]
        if not len(self):
            raise UserError(f"none of the {len(self.stores)} stores (such as {self.stores[0].path}) has an accepted "
                            "view among those chosen; loosen the filter or check the split")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of all samples."""
        return self.stores[0].size

    @property
    def channels(self) -> list[str]:
        """The stores' channels that samples are made of."""
        colors = sorted(set(self._colors))
        others = [channel for key, channel in self._channels.items() if key != "color"]
        return [*colors, *others, *(["quality"] if self.weighted else [])]

    @property
    def has_sh(self) -> bool:
        """Whether samples carry ``sh``."""
        return "sh" in self._channels

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes, sorted, each once."""
        return sorted({store.scene for store in self.stores})

    def __len__(self) -> int:
        return len(self.index_in_store)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        store, view = self._place(index)
        channels = self._channels_of(int(self.store_of_view[index]))
        sample = {key: store.read(channel, view) for key, channel in channels.items()}
        stored: dict[str, Tensor] = {}
        self._read_labels(stored, int(self.store_of_view[index]), [view], [0], 1)
        sample["label"] = decode("label", stored["label"][0])
        return {**sample, "weight": decode("quality", stored["weight"][0])} if self.weighted else sample

    def stored_batch(
        self,
        indices: Tensor,  # [B] int64
    ) -> dict[str, Tensor]:
        """Items as stored, collated: the entries of items as the channels' dtypes have them.

        Labels and weights are uint8, depth is int32; ``sh_range`` float32 ``[B, 27, 2]`` comes along where SH are
        8-bit.
        :mod:`dataloader.view_channels` decodes.

        Raises:
            UserError: a label is out of range, or an SH coefficient is no finite number.
        """
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"samples {indices.tolist()} of {len(self)}")
        store_of_row, views = self.store_of_view[indices], self.index_in_store[indices].tolist()
        batch: dict[str, Tensor] = {}
        for number in store_of_row.unique().tolist():
            rows = (store_of_row == number).nonzero()[:, 0].tolist()
            self._read_rows(batch, number, [views[row] for row in rows], rows, len(indices))
        # PyTorch computes little with uint16.
        return {key: values.int() if values.dtype == torch.uint16 else values for key, values in batch.items()}

    def _read_rows(
        self, batch: dict[str, Tensor], number: int, views: list[int], rows: list[int], size: int
    ) -> None:
        """Read some views of one store into rows of a batch; entries, of ``size`` rows, are made where missing."""
        store = self.stores[number]
        for key, channel in self._channels_of(number).items():
            if key not in batch:
                dtype = getattr(torch, store.dtype(channel))
                batch[key] = torch.empty(size, *CHANNEL_KINDS[channel].shape(store.size), dtype=dtype)
            store.read_rows(channel, views, batch[key], rows)
        self._read_labels(batch, number, views, rows, size)
        if self.has_sh and store.sh_range is not None:
            ranges = batch.setdefault("sh_range", torch.empty(size, *store.sh_range.shape))
            ranges[rows] = store.sh_range

    def _read_labels(
        self, batch: dict[str, Tensor], number: int, views: list[int], rows: list[int], size: int
    ) -> None:
        """The same for ``label`` and, where weights are asked for, ``weight``, both uint8."""
        store, predicted = self.stores[number], self._predicted[number]
        label, weight = (
            batch.setdefault(key, torch.empty(size, *store.size, dtype=torch.uint8)) if wanted else None
            for key, wanted in (("label", True), ("weight", self.weighted))
        )
        if predicted is not None:
            for view, row in zip(views, rows, strict=True):
                label[row] = predicted.label(view)
                if weight is not None:
                    weight[row] = predicted.confidence(view)
            return
        store.read_rows("label", views, label, rows)
        for row, view in zip(rows, views, strict=True) if _outside(label[rows]) else ():
            check_labels(label[row], store, view)
        if weight is not None and _is_rated(store):
            store.read_rows("quality", views, weight, rows)
        elif weight is not None:
            weight[rows] = 255

    def describe(self, index: int) -> str:
        """Which view an item is, for people."""
        store, view = self._place(index)
        return f"view {store.cameras.names[view]} of {store.path}"

    def _place(self, index: int) -> tuple[ViewStore, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.stores[int(self.store_of_view[index])], int(self.index_in_store[index])

    def _channels_of(self, number: int) -> dict[str, str]:
        """The channel of one store that each entry of an item is read from, but for label and weight."""
        channels = {**self._channels, "color": self._colors[number]}
        return {key: channel for key, channel in channels.items() if key != "label"}

    def _check_stores(self) -> None:
        first = self.stores[0]
        for number, store in enumerate(self.stores):
            labels = ["label"] if self._predicted[number] is None else []
            for channel in (*self._channels_of(number).values(), *labels):
                store.check_channel(channel)
            if store.size != first.size:
                raise UserError(f"{store.path} has views of {store.size[1]}x{store.size[0]}, {first.path} of "
                                f"{first.size[1]}x{first.size[0]}; one dataset needs one size: render one again")
            if self.has_sh and store.dtype("sh") != first.dtype("sh"):
                raise UserError(f"{store.path} stores SH as {store.dtype('sh')}, {first.path} as {first.dtype('sh')}; "
                                "render them again with one setting")
        if self.weighted:
            self._check_weights()

    def _check_weights(self) -> None:
        own = [store for store, labels in zip(self.stores, self._predicted, strict=True) if labels is None]
        rated = [store for store in own if _is_rated(store)]
        for store in rated:
            store.check_channel("quality")
        if not rated and len(own) == len(self.stores):
            raise UserError(
                f"neither {self.stores[0].path} nor another store has a quality channel; run the 'rate' task on the "
                "novel views, or switch LossOptions.quality off"
            )


def _is_rated(store: ViewStore) -> bool:
    return "quality" in store.channels


def _kept_views(store: ViewStore, indices: Sequence[int] | None) -> Tensor:
    """Accepted views int64 [n] of a store, ascending: those among ``indices`` (None: all)."""
    kept = store.cameras.accepted()
    if indices is not None:
        kept = kept & torch.isin(torch.arange(len(store)), torch.tensor(indices, dtype=torch.int64))
    return kept.nonzero()[:, 0]


def _outside(labels: Tensor) -> bool:
    return bool(labels.numel()) and int(labels.max()) >= label_set().num_classes


def check_labels(labels: Tensor, store: ViewStore, view: int | None = None) -> None:
    """Raise :class:`UserError` that names the file when stored labels hold anything but class indices."""
    if _outside(labels):
        place = "" if view is None else f" in view {view}"
        raise UserError(f"{channel_file(store.path, 'label')} holds class {int(labels.max())}{place}; expected class "
                        f"indices 0..{label_set().num_classes - 1}, not ids: run the 'annotate' task again")

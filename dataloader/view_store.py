"""Rendered views of one scene on disk: a folder with one array per channel.

``cameras.json`` (a CameraList), ``settings.json`` (what determined the content), ``meta.json`` (channels, sizes, range
of the SH channels) and ``<channel>.npy``, ``[N, (C,) H, W]``, or several such files in a row
(:mod:`dataloader.view_array`). View i of every channel is seen by camera i: nothing is paired by file names. Channels
and their coding are in :mod:`dataloader.view_channels`; the writer is in :mod:`dataloader.view_writer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.camera_list import CameraList
from dataloader.view_array import ViewArray, channel_file
from dataloader.view_channels import check_channel, decode
from utils.errors import UserError, reading, short
from utils.files import read_json, regular_file
from utils.labels import benchmark_set, label_set
from utils.limits import LARGEST_SIDE
from utils.names import plain_name
from utils.outputs import partial_path
from utils.spherical_harmonics import SH_CHANNELS

META_FILE = "meta.json"
CAMERAS_FILE = "cameras.json"
FORMAT_VERSION = 1
SHARDS = "views_per_file"  # in the description, of channels that are divided
_FLOAT16_EXPONENT = 0x7C00
_MOST_VIEWS = 1 << 40
_CAMERA_BYTES = 50  # that cameras.json takes at least for a view
_PIXELS_PER_BLOCK = 1 << 20


def _some_not_finite(values: np.ndarray) -> bool:
    """Whether float16 ``values`` hold NaN or infinity: all bits of an exponent are set. A tenth of isfinite's time."""
    return int((values.view(np.uint16) & _FLOAT16_EXPONENT).max(initial=0)) == _FLOAT16_EXPONENT


class ViewStore:
    """A finished store, opened for reading; holds neither pixels nor open files, nor maps any."""

    def __init__(self, path: str | Path):
        """Open the store at ``path``; reads only its JSON files.

        Raises:
            UserError: absent, unfinished or damaged.
        """
        self.path = Path(path)
        meta_path = self.path / META_FILE
        if not meta_path.is_file():
            state = "only an unfinished one (.partial) is" if partial_path(self.path).exists() else "nothing is"
            raise UserError(f"{self.path} is not a view store: {meta_path.name} is absent and {state} there; run the "
                            "'render' task")
        meta = read_json(meta_path)
        with reading(meta_path, "a view store's description", "render the views again"):
            self._read_meta(meta, meta_path)
        self._arrays: dict[str, ViewArray] = {}

    def _read_meta(self, meta: dict[str, Any], path: Path) -> None:
        if meta["version"] != FORMAT_VERSION:
            raise UserError(f"{path} has version {short(meta['version'])}, this code reads {FORMAT_VERSION}; render "
                            "the views again")
        self.scene: str = plain_name(meta["scene"], path, "scene's name")
        height, width = meta["size"]
        self.size: tuple[int, int] = (_count(height, 1, LARGEST_SIDE), _count(width, 1, LARGEST_SIDE))
        self.attributes: dict[str, Any] = dict(meta["attributes"])
        self.clipped: dict[str, int] = dict(meta["clipped"])
        self.sh_range: Tensor | None = None
        if meta["sh_range"] is not None:
            self.sh_range = torch.tensor(meta["sh_range"], dtype=torch.float32)
            if self.sh_range.shape != (SH_CHANNELS, 2) or not torch.isfinite(self.sh_range).all():
                raise ValueError("sh_range is not 27 pairs of finite numbers")
        self._views = _count(meta["views"], 0, _MOST_VIEWS)
        cameras = regular_file(path.with_name(CAMERAS_FILE), "the cameras of a view store")
        if self._views * _CAMERA_BYTES > cameras.stat().st_size:
            raise UserError(f"{cameras} is too short for the {self._views} views of {path}; render the views again")
        self._dtypes = {name: entry["dtype"] for name, entry in meta["channels"].items()}
        self._shapes = {name: tuple(entry["shape"]) for name, entry in meta["channels"].items()}
        divided = dict(meta.get(SHARDS, {}))
        self._views_per_file = {name: _count(views, 1, _MOST_VIEWS) for name, views in divided.items()}
        label = meta["channels"].get("label", {}).get("settings", {})
        self._classes = tuple(label.get("classes", benchmark_set().names))
        for name in self._dtypes:
            check_channel(name, self._dtypes[name], self._shapes[name], self.size)
        if self._dtypes.get("sh") == "uint8" and self.sh_range is None:
            raise ValueError("sh_range is missing though SH are stored in 8 bits")

    @classmethod
    def open(cls, path: str | Path) -> ViewStore:
        """The same as the constructor."""
        return cls(path)

    def __len__(self) -> int:
        return self._views

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that are there."""
        return tuple(self._dtypes)

    @cached_property
    def cameras(self) -> CameraList:
        """The camera of every view."""
        cameras = CameraList.load(self.path / CAMERAS_FILE)
        if len(cameras) != self._views or cameras.image_size != self.size:
            raise UserError(f"{self.path / CAMERAS_FILE} has {len(cameras)} cameras of {cameras.image_size}, the store "
                            f"{self._views} views of {self.size}; render the views again")
        return cameras

    @property
    def has_labels(self) -> bool:
        """Whether it holds labels of the label set's classes."""
        return "label" in self._dtypes and self._classes == label_set().names

    def dtype(self, name: str) -> str:
        """Stored dtype of a channel, such as ``"uint8"``."""
        self._require(name)
        return self._dtypes[name]

    def check_channel(self, name: str) -> None:
        """Raise :class:`UserError` when the channel is missing, or one of its files is damaged or truncated."""
        self._array(name)

    def files(self, name: str) -> list[Path]:
        """The files of a channel, in the order of their views."""
        return [path for path, _ in self._array(name).files]

    def tensor(self, name: str) -> Tensor:
        """The whole channel as stored, ``[N, (C,) H, W]``. :meth:`blocks` takes memory for a few views only."""
        return torch.from_numpy(self._array(name).read(0, len(self)))

    def blocks(self, name: str) -> Iterator[tuple[slice, Tensor]]:
        """The whole channel as stored, a few views at a time (about a million pixels): which they are, and they."""
        step = max(1, _PIXELS_PER_BLOCK // (self.size[0] * self.size[1]))
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            yield slice(start, stop), torch.from_numpy(self._array(name).read(start, stop))

    def read_stored(self, name: str, index: int) -> Tensor:
        """One view of a channel as stored; reads that view's bytes only."""
        values = torch.empty(1, *self._array(name).shape[1:], dtype=getattr(torch, self._dtypes[name]))
        self.read_rows(name, [index], values, [0])
        return values[0]

    def read_rows(self, name: str, views: Sequence[int], into: Tensor, rows: Sequence[int]) -> None:
        """Views of a channel as stored, each into a row of ``into`` ``[B, (C,) H, W]``, of the stored dtype.

        Raises:
            UserError: a number is not finite.
        """
        values = into.numpy()
        self._array(name).read_rows(views, values, rows)
        if values.dtype != np.float16:
            return
        for view, row in zip(views, rows, strict=True):
            if _some_not_finite(values[row]):
                raise UserError(f"{channel_file(self.path, name)}: view {view} holds NaN or infinity; render the views "
                                "again")

    def read(self, name: str, index: int) -> Tensor:
        """One view, decoded: images and alpha 0..1, SH dequantized, depth in metres, labels int64."""
        return decode(name, self.read_stored(name, index), self.sh_range)

    def _array(self, name: str) -> ViewArray:
        if name not in self._arrays:
            self._require(name)
            shape = (self._views, *self._shapes[name])
            array = ViewArray(self.path, name, np.dtype(self._dtypes[name]), shape, self._views_per_file.get(name, 0))
            array.offsets  # noqa: B018  (all files are checked here)
            self._arrays[name] = array
        return self._arrays[name]

    def _require(self, name: str) -> None:
        if name == "label" and name in self._dtypes and not self.has_labels:
            raise UserError(f"{channel_file(self.path, name)} holds other classes ({short(self._classes)}) than those "
                            f"of {label_set().path}; set label_set.table to the table that it was annotated with, or "
                            "run 'annotate' with annotate.overwrite = True")
        if name not in self._dtypes:
            hint = "run the 'annotate' task first" if name in ("label", "depth_mesh") else "render it with that output"
            raise UserError(f"{self.path} has no channel {name!r} (it has {', '.join(self._dtypes)}); {hint}")


def division(views_per_file: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """What the description says of channels that are divided; nothing where none is."""
    divided = {name: views for name, views in views_per_file.items() if views}
    return {SHARDS: divided} if divided else {}


def _count(value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{short(value)} where a whole number from {least} to {most} is expected")
    return value

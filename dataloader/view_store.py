"""Rendered views of one scene on disk: a folder with one memory-mappable array per channel.

``cameras.json`` (a CameraList), ``settings.json`` (what determined the content), ``meta.json`` (channels, sizes, range
of the SH channels) and ``<channel>.npy``, ``[N, (C,) H, W]``. View i of every channel is seen by camera i: nothing is
paired by file names. Channels and their coding are in :mod:`dataloader.view_channels`; the writer is in
:mod:`dataloader.view_writer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.camera_list import CameraList
from dataloader.view_channels import check_channel, decode
from utils.errors import UserError
from utils.files import read_json
from utils.outputs import partial_path

META_FILE = "meta.json"
CAMERAS_FILE = "cameras.json"
FORMAT_VERSION = 1


def channel_file(folder: Path, name: str) -> Path:
    """The array of a channel."""
    return folder / f"{name}.npy"


@dataclass(frozen=True)
class _ArrayFile:
    """Where in a ``.npy`` file the numbers of an array lie."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def open(cls, path: Path, dtype: str, shape: tuple[int, ...]) -> _ArrayFile:
        """Read the header and check it and the file's length, without reading the numbers."""
        try:
            with open(path, "rb") as file:
                major, _ = np.lib.format.read_magic(file)
                read_header = (
                    np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                )
                found_shape, fortran, found_dtype = read_header(file)
                offset = file.tell()
        except FileNotFoundError:
            raise UserError(f"{path} does not exist though the store lists it; make the store again") from None
        except ValueError as error:
            raise UserError(f"{path} is not a NumPy array ({error}); make the store again") from None
        if fortran or found_shape != shape or found_dtype != np.dtype(dtype):
            raise UserError(f"{path} holds {found_dtype} {list(found_shape)}; the store says {dtype} {list(shape)}: "
                            "make the store again")
        array = cls(path, found_dtype, shape, offset)
        expected, found = offset + array.view_bytes * shape[0], path.stat().st_size
        if found != expected:
            raise UserError(f"{path} is {found} bytes long, expected {expected}; it is truncated: make the store again")
        return array

    @property
    def view_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape[1:]))

    def read(self, index: int) -> Tensor:
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"view {index} of {self.shape[0]} in {self.path}")
        count = self.view_bytes // self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, count, offset=self.offset + index * self.view_bytes)
        return torch.from_numpy(values.reshape(self.shape[1:]))


class ViewStore:
    """A finished store, opened for reading; holds neither pixels nor open files."""

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
        try:
            if meta["version"] != FORMAT_VERSION:
                raise UserError(f"{meta_path} has version {meta['version']}, this code reads {FORMAT_VERSION}; render "
                                "the views again")
            self.scene: str = meta["scene"]
            self.size: tuple[int, int] = tuple(meta["size"])
            self.attributes: dict[str, Any] = meta["attributes"]
            self.clipped: dict[str, int] = meta["clipped"]
            self.sh_range: Tensor | None = (
                None if meta["sh_range"] is None else torch.tensor(meta["sh_range"], dtype=torch.float32)
            )
            self._count = int(meta["views"])
            self._dtypes = {name: entry["dtype"] for name, entry in meta["channels"].items()}
            self._shapes = {name: tuple(entry["shape"]) for name, entry in meta["channels"].items()}
            for name in self._dtypes:
                check_channel(name, self._dtypes[name], self._shapes[name], self.size)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{meta_path} is damaged ({type(error).__name__}: {error}); render the views "
                            "again") from None
        self._arrays: dict[str, _ArrayFile] = {}

    @classmethod
    def open(cls, path: str | Path) -> ViewStore:
        """The same as the constructor."""
        return cls(path)

    def __len__(self) -> int:
        return self._count

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that are there."""
        return tuple(self._dtypes)

    @cached_property
    def cameras(self) -> CameraList:
        """The camera of every view."""
        cameras = CameraList.load(self.path / CAMERAS_FILE)
        if len(cameras) != self._count or cameras.image_size != self.size:
            raise UserError(f"{self.path / CAMERAS_FILE} has {len(cameras)} cameras of {cameras.image_size}, the store "
                            f"{self._count} views of {self.size}; render the views again")
        return cameras

    def dtype(self, name: str) -> str:
        """Stored dtype of a channel, such as ``"uint8"``."""
        self._require(name)
        return self._dtypes[name]

    def check_channel(self, name: str) -> None:
        """Raise :class:`UserError` when the channel is missing, or its file is damaged or truncated."""
        self._array(name)

    def tensor(self, name: str) -> Tensor:
        """The whole channel as stored, ``[N, (C,) H, W]``, memory-mapped: pages are read when touched.

        Writing into the tensor does not change the file.
        """
        array = self._array(name)
        mapped = np.memmap(array.path, array.dtype, "c", array.offset, array.shape)
        return torch.from_numpy(mapped)

    def read_stored(self, name: str, index: int) -> Tensor:
        """One view of a channel as stored; reads that view's bytes only."""
        return self._array(name).read(index)

    def read(self, name: str, index: int) -> Tensor:
        """One view, decoded: images and alpha 0..1, SH dequantized, depth in metres, labels int64."""
        return decode(name, self.read_stored(name, index), self.sh_range)

    def _array(self, name: str) -> _ArrayFile:
        if name not in self._arrays:
            self._require(name)
            shape = (self._count, *self._shapes[name])
            self._arrays[name] = _ArrayFile.open(channel_file(self.path, name), self._dtypes[name], shape)
        return self._arrays[name]

    def _require(self, name: str) -> None:
        if name not in self._dtypes:
            hint = "run the 'annotate' task first" if name in ("label", "depth_mesh") else "render it with that output"
            raise UserError(f"{self.path} has no channel {name!r} (it has {', '.join(self._dtypes)}); {hint}")

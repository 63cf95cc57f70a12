"""One channel of a view store on disk: views in a row, in one ``.npy`` file or in several of limited size.

Views are read and written by position (pread, pwrite), never through memory maps: the bytes in memory are those asked
for, whatever the scene's length, and file systems that map badly or not at all do as well as others. Each file is a
NumPy array of its own, ``NAME.npy`` or ``NAME.0000.npy``, ``NAME.0001.npy``, ...
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gin
import numpy as np

from utils.arrays import read_header
from utils.disk import create_array, flush, writing
from utils.errors import UserError, reading
from utils.files import atomic_path, regular_file

_ADVICE = "make the store again"
_BLOCK_BYTES = 64 << 20


@gin.configurable
@dataclass(frozen=True)
class StoreOptions:
    """How view stores are laid out on the disk; their numbers do not depend on it.

    Attributes:
        shard_gigabytes: 10^9 bytes that a file has at most, of at least one view; 0 puts a channel into one file.
    """

    shard_gigabytes: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.shard_gigabytes < math.inf:
            raise UserError(f"StoreOptions.shard_gigabytes = {self.shard_gigabytes}: expected 0 (one file) or more")

    def views_per_file(self, dtype: str, shape: Sequence[int]) -> int:
        """Of a channel ``[N, ...]``; 0 where all are in one file."""
        views = max(1, int(self.shard_gigabytes * 1e9 / (np.dtype(dtype).itemsize * math.prod(shape[1:]))))
        return views if self.shard_gigabytes and views < shape[0] else 0


def channel_file(folder: Path, name: str, part: int | None = None) -> Path:
    """The file of a channel, or one of several."""
    return folder / (f"{name}.npy" if part is None else f"{name}.{part:04d}.npy")


@dataclass(frozen=True)
class ViewArray:
    """A channel's files, as they are to be; nothing is open.

    Attributes:
        folder, name: of the store and the channel.
        dtype: of its numbers.
        shape: ``[N, (C,) H, W]``.
        views_per_file: 0 where all are in one file.
    """

    folder: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    views_per_file: int = 0

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def files(self) -> list[tuple[Path, int]]:
        """Each file, and how many views it has."""
        if not self.views_per_file:
            return [(channel_file(self.folder, self.name), len(self))]
        starts = range(0, len(self), self.views_per_file)
        return [(channel_file(self.folder, self.name, part), min(self.views_per_file, len(self) - start))
                for part, start in enumerate(starts)]  # fmt: skip

    @cached_property
    def offsets(self) -> list[int]:
        """Where the numbers begin in each file. Reads headers, and checks them and the files' lengths.

        Raises:
            UserError: a file is missing, truncated, or another array than the store says.
        """
        return [self._offset(path, views) for path, views in self.files]

    def _offset(self, path: Path, views: int) -> int:
        shape = (views, *self.shape[1:])
        regular_file(path, "an array that the store lists", _ADVICE)
        with reading(path, "a NumPy array", _ADVICE), open(path, "rb") as file:
            found = read_header(file)
            if found.fortran or found.shape != shape or found.dtype != self.dtype:
                raise UserError(f"{path} holds {found.dtype} {list(found.shape)}; the store says {self.dtype} "
                                f"{list(shape)}: {_ADVICE}")
            length = path.stat().st_size
            if length != found.offset + found.num_bytes:
                raise UserError(f"{path} is {length} bytes long, expected {found.offset + found.num_bytes}; it is "
                                f"truncated: {_ADVICE}")
        return found.offset

    def read(self, start: int, stop: int) -> np.ndarray:
        """Views ``start`` to ``stop``, as stored."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"views {start} to {stop} of {len(self)} in {channel_file(self.folder, self.name)}")
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for path, offset, rows in self._places(start, stop):
            with _opened(path) as descriptor:
                _read_into(descriptor, values[rows], offset)
        return values

    def read_rows(self, views: Sequence[int], values: np.ndarray, rows: Sequence[int]) -> None:
        """Views, as stored, each into a row of ``values``; opens each file once."""
        wanted: dict[int, list[tuple[int, int]]] = {}
        for view, row in zip(views, rows, strict=True):
            if not 0 <= view < len(self):
                raise IndexError(f"view {view} of {len(self)} in {channel_file(self.folder, self.name)}")
            part, place = divmod(view, self.views_per_file or len(self))
            wanted.setdefault(part, []).append((place, row))
        for part, places in wanted.items():
            with _opened(self.files[part][0]) as descriptor:
                for place, row in places:
                    _read_into(descriptor, values[row], self.offsets[part] + place * self._view_bytes)

    @cached_property
    def _view_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def _places(self, start: int, stop: int) -> Iterator[tuple[Path, int, slice]]:
        """Files that hold parts of a range of views: where in the file, and which of the range's rows they are."""
        position = start
        while position < stop:
            part, row = divmod(position, self.views_per_file or max(len(self), 1))
            path, views = self.files[part]
            end = min(stop, position + views - row)
            yield path, self.offsets[part] + row * self._view_bytes, slice(position - start, end - start)
            position = end


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    with reading(path, "an array of views", _ADVICE):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _read_into(descriptor: int, values: np.ndarray, offset: int) -> None:
    view = memoryview(values.reshape(-1).view(np.uint8))
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise ValueError("it ends too early")
        view, offset = view[count:], offset + count


class ViewArrayWriter:
    """A channel that is being written; stands for an array ``[N, (C,) H, W]`` whose views are assigned.

    Room for all of it is taken when it is made. What was assigned is on the disk after :meth:`flush`.
    """

    def __init__(self, array: ViewArray):
        """Make the files that are not there, or are other arrays, of zeros; keep the others."""
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self._touched: set[Path] = set()
        for path, views in array.files:
            if path.exists():
                try:
                    array._offset(path, views)
                    continue
                except UserError:
                    path.unlink()
            with atomic_path(path) as temporary:
                create_array(temporary, str(array.dtype), (views, *array.shape[1:]))

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.array.read(view, view + 1)[0] for view in range(len(self)))

    def __setitem__(self, views: int | slice | Sequence[int], values: Any) -> None:
        """Assign views; ``values`` are broadcast to them and converted to the array's dtype."""
        indices = np.atleast_1d(np.arange(len(self))[views])
        values = np.asarray(values)
        values = np.broadcast_to(values, (len(indices), *self.shape[1:]))
        most = max(1, _BLOCK_BYTES // max(1, self.array._view_bytes))
        begin = 0
        for end in range(1, len(indices) + 1):
            if end == len(indices) or indices[end] != indices[end - 1] + 1 or end - begin == most:
                self._write(int(indices[begin]), values[begin:end])
                begin = end

    def _write(self, start: int, values: np.ndarray) -> None:
        stored = np.ascontiguousarray(values, self.dtype)
        for path, offset, rows in self.array._places(start, start + len(values)):
            with writing(path), open(path, "r+b", buffering=0) as file:
                view = memoryview(stored[rows].reshape(-1).view(np.uint8))
                while view:
                    count = os.pwrite(file.fileno(), view, offset)
                    view, offset = view[count:], offset + count
            self._touched.add(path)

    def fill(self, value: Any) -> None:
        """Assign one number to all pixels of all views."""
        self[:] = value

    def flush(self) -> None:
        """Wait until what was assigned is on the disk."""
        for path in self._touched:
            with writing(path):
                flush(path)
        self._touched.clear()


def views_per_file_there(folder: Path, name: str, chosen: int) -> int:
    """How an unfinished channel was divided, or ``chosen`` where nothing of it is there."""
    if channel_file(folder, name).exists():
        return 0
    first = channel_file(folder, name, 0)
    if not first.exists():
        return chosen
    with reading(first, "a NumPy array", "delete it"), open(first, "rb") as file:
        return read_header(file).shape[0]

"""NumPy's files, read so that nothing in them runs and that memory follows their length, not what they announce."""

from __future__ import annotations

import io
import logging
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from utils.errors import UserError, reading
from utils.files import regular_file

logger = logging.getLogger(__name__)
_PLAIN_KINDS = "biufU"  # booleans, integers, floats, text; no objects, records or raw bytes
_MOST_EXPANSION, _SMALL_BYTES = 64, 1 << 20


class ArrayHeader(NamedTuple):
    """An array's header; ``offset`` is where its numbers begin."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def num_bytes(self) -> int:
        """Of all numbers."""
        return self.dtype.itemsize * math.prod(self.shape)


def read_header(file: BinaryIO) -> ArrayHeader:
    """Read an array file up to its numbers.

    Raises:
        Exception: of many kinds, where it is none; for use within :func:`utils.errors.reading`.
    """
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if any(side < 0 for side in shape):
        raise ValueError(f"an array of shape {shape}")
    return ArrayHeader(dtype, shape, fortran, file.tell())


def read_npz(
    path: str | Path, what: str, required: Sequence[str], optional: Sequence[str] = (), advice: str = "replace the file"
) -> dict[str, np.ndarray]:
    """Some arrays of an ``.npz`` archive by name; numbers and text only, so that nothing in it can run.

    Args:
        what: the archive is, with article, for messages.
        required: arrays that must be there.
        optional: arrays that are left out where they are absent, or, with a warning, where they are pickled objects.

    Raises:
        UserError: absent, damaged, incomplete, or much larger unpacked than packed.
    """
    path = regular_file(path, what, advice)
    with reading(path, what, advice), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        wanted = [*required, *(name for name in optional if name in members)]
        unpacked = sum(members[name].file_size for name in wanted)
        if unpacked > _MOST_EXPANSION * path.stat().st_size + _SMALL_BYTES:
            raise UserError(f"{path} unpacks to {unpacked} bytes from {path.stat().st_size}, far more than {what} can; "
                            f"{advice}")
        arrays = {}
        for name in wanted:
            try:
                arrays[name] = _array(archive.read(members[name]), name)
            except _PickledObjects:
                if name in required:
                    raise
                logger.warning("%s: %s are pickled objects, which are not opened; continuing without them", path, name)
        return arrays


def read_npy(path: str | Path, what: str, advice: str = "replace the file") -> np.ndarray:
    """The array of an ``.npy`` file; numbers and text only, so that nothing in it can run.

    Raises:
        UserError: absent or damaged.
    """
    path = regular_file(path, what, advice)
    with reading(path, what, advice):
        return _array(path.read_bytes(), path.name)


class _PickledObjects(ValueError):
    pass


def _array(content: bytes, name: str) -> np.ndarray:
    """The array of a whole ``.npy`` file."""
    header = read_header(io.BytesIO(content))
    if header.dtype.hasobject:
        raise _PickledObjects(f"{name} holds pickled objects, which are not opened")
    found = len(content) - header.offset
    if header.dtype.kind not in _PLAIN_KINDS or header.num_bytes != found:
        raise ValueError(f"{name} announces {header.dtype} {list(header.shape)} and holds {found} bytes")
    numbers = np.frombuffer(content, header.dtype, offset=header.offset)
    order = "F" if header.fortran else "C"
    return numbers.reshape(header.shape, order=order).copy(order="C")

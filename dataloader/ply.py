"""PLY files (Turk, 1994): elements of scalar and list properties, as text or binary of either byte order.

What the header announces is compared with the file's length before anything is made, so that memory and time follow
that length. http://paulbourke.net/dataformats/ply/
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import UserError, reading, short
from utils.files import regular_file

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ENCODINGS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 1 << 20
_ROWS_AT_ONCE = 1 << 18
_ADVICE = "the file is damaged or truncated: replace it"


class PlyList(NamedTuple):
    """A list property: how many values each row has, int64 ``[N]``, and all of them, row after row."""

    counts: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class _Property:
    name: str
    dtype: np.dtype
    count_dtype: np.dtype | None  # of a list's length


@dataclass(frozen=True)
class _Element:
    name: str
    rows: int
    properties: list[_Property] = field(default_factory=list)


def read_ply(path: str | Path) -> dict[str, dict[str, np.ndarray | PlyList]]:
    """All elements by name, each as its properties by name: arrays ``[N]`` of the type that the file names, or lists.

    Raises:
        UserError: absent, no PLY file, damaged, or shorter than its header announces.
    """
    path = regular_file(path, "a PLY mesh")
    with reading(path, "a PLY mesh", _ADVICE):
        content = np.fromfile(path, np.uint8)
        if content[:2].tobytes() == b"\x1f\x8b":
            raise UserError(f"{path} is compressed by gzip; unpack it (gunzip) under the same name")
        encoding, elements, start = _read_header(content[:_LONGEST_HEADER].tobytes())
        table = _Text(content[start:]) if encoding == "ascii" else _Binary(content[start:])
        read = {element.name: _read_element(table, element) for element in elements}
        table.finish()
    return read


def _read_header(content: bytes) -> tuple[str, list[_Element], int]:
    """Encoding, elements, and where the header ends."""
    first = re.match(rb"ply[ \t]*(\r\n|\n|\r)", content)
    last = first and re.search(rb"\rend_header[ \t]*\r" if first[1] == b"\r" else rb"\nend_header[ \t]*\r?\n", content)
    if not last:
        raise ValueError("it has no header from 'ply' to 'end_header'")
    text = content[first.end() : last.start()].decode("ascii", "replace")
    lines = [line.split() for line in text.split("\r" if first[1] == b"\r" else "\n")]
    encoding, elements = "", []
    for words in lines:
        match words:
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", name, "1.0"] if name in _ENCODINGS and not encoding:
                encoding = name
            case ["element", name, rows] if rows.isdecimal() and len(rows) < 20:
                elements.append(_Element(name, int(rows)))
            case ["property", "list", count, kind, name] if encoding and elements and {count, kind} <= set(_TYPES):
                elements[-1].properties.append(_Property(name, _dtype(encoding, kind), _dtype(encoding, count)))
            case ["property", kind, name] if encoding and elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name, _dtype(encoding, kind), None))
            case _:
                raise ValueError(f"its header has the line {short(' '.join(words))}")
    for names in ([one.name for one in elements], *([one.name for one in each.properties] for each in elements)):
        if len(set(names)) < len(names):
            raise ValueError(f"its header names something twice: {short(names)}")
    return encoding, elements, last.end()


def _dtype(encoding: str, kind: str) -> np.dtype:
    return np.dtype(_ENCODINGS[encoding] + _TYPES[kind])


class _Binary:
    """Values of mixed types, byte after byte; :attr:`at` is the next one's place in :attr:`content`."""

    def __init__(self, content: np.ndarray):
        self.content, self.at = content, 0
        self._bytes = memoryview(content)

    def units(self, dtype: np.dtype) -> int:
        """How many places a value takes."""
        return dtype.itemsize

    def length(self, at: int, dtype: np.dtype) -> int:
        """A list's length, which stands at ``at``."""
        order = "big" if dtype.str[0] == ">" else "little"
        return int.from_bytes(self._bytes[at : at + dtype.itemsize], order, signed=dtype.kind == "i")

    def rows(self, element: _Element, lengths: list[int | None]) -> list[np.ndarray]:
        """The next rows, taking every list to be as long as said: of each property its values, of a list first its
        lengths."""
        fields = []
        for one, length in zip(element.properties, lengths, strict=True):
            fields += [] if length is None else [("", one.count_dtype)]
            fields += [("", one.dtype) if length is None else ("", one.dtype, (length,))]
        record = np.dtype(fields)
        rows = self.content[self.at : self.at + element.rows * record.itemsize].view(record)
        return [rows[name] for name in record.names]

    def pick(self, places: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The values at some places."""
        return self.content[places].view(dtype)

    def cast(self, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Values as the header's type, in this machine's byte order, flat."""
        return values.astype(dtype.newbyteorder("=")).reshape(-1)

    def finish(self) -> None:
        """Bytes behind the last element are padding."""


class _Text:
    """Numbers between spaces, in the same way."""

    def __init__(self, content: np.ndarray):
        text = content.tobytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # some versions of NumPy only warn of what is no number
            self.content = np.fromstring(text, np.float64, sep=" ") if text.strip() else np.empty(0)
        self.at = 0

    def units(self, dtype: np.dtype) -> int:
        return 1

    def length(self, at: int, dtype: np.dtype) -> int:
        return int(self.cast(self.content[at : at + 1], dtype)[0])

    def rows(self, element: _Element, lengths: list[int | None]) -> list[np.ndarray]:
        widths = [width for length in lengths for width in ((1,) if length is None else (1, length))]
        rows = self.content[self.at : self.at + element.rows * sum(widths)].reshape(element.rows, -1)
        return [part if part.shape[1] != 1 else part[:, 0] for part in np.split(rows, np.cumsum(widths)[:-1], axis=1)]

    def pick(self, places: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return self.content[places]

    def cast(self, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
        numbers = values.reshape(-1)
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                return numbers.astype(dtype)
        limits = np.iinfo(dtype)
        if not ((numbers >= limits.min) & (numbers <= limits.max) & (numbers == np.floor(numbers))).all():
            raise ValueError(f"it has a number that is no {dtype.name}")
        return numbers.astype(dtype)

    def finish(self) -> None:
        if self.at < len(self.content):
            raise ValueError(f"{len(self.content) - self.at} numbers stand behind the last element")


def _read_element(table: _Binary | _Text, element: _Element) -> dict[str, np.ndarray | PlyList]:
    least = sum(table.units(one.count_dtype or one.dtype) for one in element.properties)
    left = len(table.content) - table.at
    if element.rows * least > left:
        raise ValueError(f"{element.rows} rows of '{element.name}' are announced, and {left} places are left")
    if not element.rows or not element.properties:
        return {one.name: _nothing(one) for one in element.properties}
    lengths = _lengths_of_row(table, element)
    return _equal_rows(table, element, lengths) or _any_rows(table, element)


def _nothing(one: _Property) -> np.ndarray | PlyList:
    values = np.empty(0, one.dtype.newbyteorder("="))
    return values if one.count_dtype is None else PlyList(np.empty(0, np.int64), values)


def _lengths_of_row(table: _Binary | _Text, element: _Element) -> list[int | None]:
    """How long the lists of the next row are, None for scalars."""
    at, lengths = table.at, []
    for one in element.properties:
        lengths.append(None if one.count_dtype is None else _length(table, at, one.count_dtype))
        at += _row_units(table, one, lengths[-1])
    return lengths


def _length(table: _Binary | _Text, at: int, dtype: np.dtype) -> int:
    if dtype.kind == "f" or at + table.units(dtype) > len(table.content):
        raise ValueError("a list's length is no whole number, or missing")
    length = table.length(at, dtype)
    if not 0 <= length <= len(table.content):
        raise ValueError(f"a list of {length} values")
    return length


def _row_units(table: _Binary | _Text, one: _Property, length: int | None) -> int:
    if length is None:
        return table.units(one.dtype)
    return table.units(one.count_dtype) + length * table.units(one.dtype)


def _equal_rows(
    table: _Binary | _Text, element: _Element, lengths: list[int | None]
) -> dict[str, np.ndarray | PlyList] | None:
    """All rows at once where every list is as long as in the first row; None where not."""
    units = sum(_row_units(table, one, length) for one, length in zip(element.properties, lengths, strict=True))
    if element.rows * units > len(table.content) - table.at:
        return None
    parts = iter(table.rows(element, lengths))
    columns: dict[str, np.ndarray | PlyList] = {}
    for one, length in zip(element.properties, lengths, strict=True):
        if length is not None and (next(parts) != length).any():
            return None
        columns[one.name] = next(parts)
    for one, length in zip(element.properties, lengths, strict=True):
        values = table.cast(columns[one.name], one.dtype)
        columns[one.name] = values if length is None else PlyList(np.full(element.rows, length), values)
    table.at += element.rows * units
    return columns


def _any_rows(table: _Binary | _Text, element: _Element) -> dict[str, np.ndarray | PlyList]:
    """Row after row, since where one begins depends on all before it."""
    starts = np.empty((len(element.properties), element.rows), np.int64)
    counts = np.ones_like(starts)
    at = table.at
    for row in range(element.rows):
        for column, one in enumerate(element.properties):
            if one.count_dtype is not None:
                counts[column, row] = _length(table, at, one.count_dtype)
                at += table.units(one.count_dtype)
            starts[column, row] = at
            at += int(counts[column, row]) * table.units(one.dtype)
        if at > len(table.content):
            raise ValueError(f"it ends within row {row} of '{element.name}'")
    table.at = at
    columns: dict[str, np.ndarray | PlyList] = {}
    for one, start, count in zip(element.properties, starts, counts, strict=True):
        values = np.concatenate([
            table.cast(table.pick(_places(start[part], count[part] * table.units(one.dtype)), one.dtype), one.dtype)
            for part in (slice(first, first + _ROWS_AT_ONCE) for first in range(0, element.rows, _ROWS_AT_ONCE))
        ])  # fmt: skip
        columns[one.name] = values if one.count_dtype is None else PlyList(count, values)
    return columns


def _places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, ... (lengths[0] of them), starts[1], ..."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])

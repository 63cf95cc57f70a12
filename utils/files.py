"""Files that are never half written, and JSON."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.disk import flush, temporary_path, writing
from utils.errors import UserError, reading, short

_MAKE_AGAIN = "run the stage that writes it"
_MARKS = (  # UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip


@contextlib.contextmanager
def atomic_path(path: str | Path, flushed: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed to ``path`` on success, removed on failure.

    The temporary name keeps the suffix, since many writers choose the format by it.

    Args:
        path: of the file.
        flushed: whether the content is on the disk before it gets its name. Files of a folder that is flushed as a
            whole before it counts as finished need not be.

    Raises:
        UserError: the disk refuses.
    """
    path = Path(path)
    temporary = temporary_path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if flushed:
                flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, flushed: bool = True) -> None:
    """Write a text file atomically; see :func:`atomic_path`."""
    with atomic_path(path, flushed) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Any) -> str:
    """JSON, indented, keys in the order given."""
    return json.dumps(value, indent=1, allow_nan=True) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write :func:`json_text` atomically."""
    write_text(path, json_text(value))


def regular_file(path: str | Path, what: str, advice: str = "") -> Path:
    """``path`` when a file is there: no folder, and no pipe or device, which could be read for ever.

    Args:
        what: it should be, with article, for the message.
        advice: where it comes from.
    """
    path = Path(path)
    with reading(path, what):
        kind = path.stat().st_mode if path.exists() else None
    if kind is None or not stat.S_ISREG(kind):
        state = "does not exist" if kind is None else "is not a file"
        raise UserError(f"{path} {state}; expected {what} there" + (f": {advice}" if advice else ""))
    return path


def read_text(path: str | Path, what: str = "a text file", advice: str = "replace the file") -> str:
    """A text file in whatever encoding programs write: see :func:`decode_text`; raises :class:`UserError`."""
    with reading(path, what, advice):
        return decode_text(regular_file(path, what).read_bytes())


def decode_text(content: bytes) -> str:
    """Text in the encoding that its byte order mark names, else in UTF-8, UTF-16 without a mark, or Windows-1252.

    Raises:
        ValueError: it is no text: it holds zero bytes.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding)
    even, odd = content[0:2000:2].count(0), content[1:2000:2].count(0)
    if len(content) > 3 and max(even, odd) > 0.2 * len(content[:2000]):  # every other byte of Latin text
        return content.decode("utf-16-le" if odd > even else "utf-16-be")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise
        return content.decode("cp1252", "replace")


def read_json(path: str | Path, advice: str = _MAKE_AGAIN, kind: type = object) -> Any:
    """Read JSON; raises :class:`UserError` when the file is absent, not JSON, or not of that ``kind``: dict or list."""
    path = regular_file(path, "a JSON file", advice)
    with reading(path, "valid JSON", advice):
        content = json.loads(read_text(path))
        if not isinstance(content, kind):
            raise TypeError(f"a {kind.__name__} is expected, found {short(content)}")
        return content

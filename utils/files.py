"""Files that are never half written, and JSON."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.disk import flush, temporary_path, writing
from utils.errors import UserError


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


def read_json(path: str | Path) -> Any:
    """Read JSON; raises :class:`UserError` when the file is absent or not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the stage that writes it first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and make it again") from None

"""Names that files give to what becomes a path, so that nothing is written elsewhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError, short

_LONGEST_BYTES = 200  # a file's name may have 255, and suffixes such as ".partial" are put behind
_LONGEST_PART, _LONGEST_PATH = 255, 4000  # bytes that Linux can open
_SYSTEM_NAMES = ("__macosx", "lost+found", "thumbs.db", "desktop.ini", "system volume information", "#recycle")
_REFUSED_KINDS = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, half characters and line separators


def plain_name(name: object, source: str | Path, what: str = "name") -> str:
    """``name`` when it can be one part of a path: a camera's, a frame's, a scene's. All names from files go this way.

    Args:
        name: as it was read.
        source: where it was read, for the message.
        what: it names, for the message: "camera name".

    Raises:
        UserError: it is no text, empty, "." or "..", too long, or holds a slash, a backslash or a control character.
    """
    good = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\"} and _is_text(name)
    if not good or len(name.encode()) > _LONGEST_BYTES:
        raise UserError(f"{source}: {short(name)} cannot be a {what}; expected one part of a file's path, without "
                        f"slashes, of at most {_LONGEST_BYTES} bytes: rename it")
    return name


def readable_path(text: object, source: str | Path, what: str = "path") -> str:
    """``text`` when it can be the path of a file that is only read, which may lie anywhere.

    Raises:
        UserError: it is no text, empty, or nothing that the system could open.
    """
    if not isinstance(text, str) or not text or not _is_text(text) or len(text.encode()) > _LONGEST_PATH or any(
        len(part.encode()) > _LONGEST_PART for part in Path(text).parts
    ):
        raise UserError(f"{source}: {short(text)} cannot be a {what}; expected a file's path")
    return text


def some_of(names: Sequence[str], most: int = 10) -> str:
    """Names for a message: all of them, or the first of many and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _is_text(name: str) -> bool:
    return all(unicodedata.category(character) not in _REFUSED_KINDS for character in name)


def is_system_name(name: str) -> bool:
    """Whether operating systems, file servers or archives made a file or folder for themselves, or it is hidden."""
    return name.startswith((".", "@", "$")) or name.casefold() in _SYSTEM_NAMES

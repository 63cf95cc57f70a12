"""Paths as users give them: ``~`` is their home, relative ones are relative to the current folder, and this project's
configs are found from anywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent


def find_config(name: str | os.PathLike[str]) -> Path | None:
    """A config or a list of names that a user names, absolute; None where there is no such file.

    What is named ``configs/...`` and is not in the current folder is this project's.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path.absolute()
    own = PROJECT / path
    return own if path.parts[:1] == ("configs",) and own.is_file() else None


def expand_home(value: Any) -> Any:
    """``value`` with the home for a leading ``~`` or ``~user``, also within lists, tuples and mappings."""
    if isinstance(value, str):
        return os.path.expanduser(value)
    if isinstance(value, (list, tuple)):
        return type(value)(expand_home(item) for item in value)
    if isinstance(value, Mapping):
        return {key: expand_home(item) for key, item in value.items()}
    return value

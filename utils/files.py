"""Output that is never half written and never made twice.

Every stage writes one folder per scene through :func:`prepare_output` and :func:`commit_output`. The folder holds
``settings.json``: everything that determined its content. A finished folder with equal settings is not made again;
one with other settings is refused, so that results of different settings are never mixed.
"""

from __future__ import annotations

import contextlib
import json
import os
import reprlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.run_state import resume_requested

SETTINGS_FILE = "settings.json"
_ABSENT = object()
_SHORT = reprlib.Repr()  # of values in messages
_SHORT.maxstring = 100


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed to ``path`` on success, removed on failure.

    The temporary name keeps the suffix, since many writers choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, allow_nan=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; raises :class:`UserError` when the file is absent or not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the stage that writes it first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and make it again") from None


def partial_path(path: str | Path) -> Path:
    """Where the unfinished content of the output folder ``path`` lies."""
    path = Path(path)
    return path.with_name(path.name + ".partial")


def prepare_output(path: str | Path, settings: dict[str, Any], overwrite: bool = False) -> Path | None:
    """Start, resume or skip the output folder ``path``.

    Args:
        path: the finished folder's name.
        settings: JSON-able; everything that determines the bytes written.
        overwrite: make it again although it is finished.

    Returns:
        The folder to write into (``<path>.partial``), or None when ``path`` is finished with equal settings.
        With ``--resume``, an unfinished folder with equal settings keeps its content; otherwise it is emptied.

    Raises:
        UserError: a finished folder with other settings is there and ``overwrite`` is off.
    """
    path, partial = Path(path), partial_path(path)
    settings = json.loads(json.dumps(settings))
    if path.exists() and not overwrite:
        difference = first_difference(_finished_settings(path), settings)
        if difference is None:
            return None
        raise UserError(
            f"{path} was made with other settings ({difference}); choose another output folder, "
            "delete this one, or set overwrite = True"
        )
    keep = (
        resume_requested()
        and (partial / SETTINGS_FILE).exists()
        and first_difference(read_json(partial / SETTINGS_FILE), settings) is None
    )
    if not keep:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_json(partial / SETTINGS_FILE, settings)
    return partial


def commit_output(path: str | Path) -> None:
    """Turn the unfinished folder of ``path`` into the finished one, replacing an older one."""
    path, partial = Path(path), partial_path(path)
    if path.exists():
        retired = path.with_name(f".{path.name}.{os.getpid()}.old")
        os.replace(path, retired)
        os.replace(partial, path)
        shutil.rmtree(retired)
    else:
        os.replace(partial, path)


def _finished_settings(path: Path) -> dict[str, Any]:
    return read_json(path / SETTINGS_FILE) if (path / SETTINGS_FILE).exists() else {}


def first_difference(old: Any, new: Any, name: str = "") -> str | None:
    """Where two JSON values first differ, in the order of ``new``: "options.step_size = 0.5 there, 1.0 now"; or None.

    Dicts are followed down to the entry that differs, lists of dicts to the element.
    """
    if old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*new, *(key for key in old if key not in new)]
        parts = [(f"{name}.{key}" if name else key, old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in keys]
    elif _is_list_of_dicts(old) and _is_list_of_dicts(new) and len(old) == len(new):
        parts = [(f"{name}[{index}]", *pair) for index, pair in enumerate(zip(old, new, strict=True))]
    else:
        there = "is absent there" if old is _ABSENT else f"= {_SHORT.repr(old)} there"
        return f"{name} {there}, {'absent' if new is _ABSENT else _SHORT.repr(new)} now"
    return next(filter(None, (first_difference(*pair, part) for part, *pair in parts)))


def _is_list_of_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)

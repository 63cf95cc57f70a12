"""The ``config.gin`` beside a PeRFception checkpoint, read as data: nothing in it is imported or run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from utils.errors import UserError, reading, short
from utils.files import regular_file, write_text
from utils.limits import LARGEST_SIDE

CONFIG_FILE = "config.gin"
_LONGEST_VALUE = 100_000  # characters; a longer value stays text


def read_config(folder: Path) -> dict[str, Any]:
    """All ``name = value`` bindings by the full name; values that are not Python literals stay text.

    An absent file gives an empty dict.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        return {}
    with reading(path, "a gin config"):
        text = regular_file(path, "a gin config").read_text(encoding="utf-8", errors="replace")
    bindings: dict[str, Any] = {}
    for statement in _statements(text):
        name, equals, value = statement.partition("=")
        if equals:
            bindings[name.strip()] = _literal(value.strip())
    return bindings


def find_value(config: dict[str, Any], parameter: str, default: Any = None) -> Any:
    """Value of the parameter whose name's last part (after scope and class) is ``parameter``."""
    for name, value in config.items():
        if name.replace("/", ".").split(".")[-1] == parameter:
            return value
    return default


def resolution_of(config: dict[str, Any], reso_idx: int, folder: Path) -> tuple[int, int, int]:
    """The grid's resolution: entry ``reso_idx`` of the list ``reso`` (or ``reso_list``).

    Raises:
        UserError: no such list, or no such entry.
    """
    resolutions = find_value(config, "reso", find_value(config, "reso_list"))
    if resolutions is None:
        raise UserError(f"{folder / CONFIG_FILE} is absent or names no resolution; expected a line such as "
                        "LitPlenoxel.reso = [[256, 256, 256]]: the checkpoint does not hold it, so copy the scene's "
                        "config.gin beside it")
    entry = resolutions[reso_idx] if _has_entry(resolutions, reso_idx) else None
    if not isinstance(entry, list | tuple) or len(entry) != 3 or not all(_is_side(side) for side in entry):
        raise UserError(f"{folder / CONFIG_FILE}: reso is {short(resolutions)} and the checkpoint's reso_idx "
                        f"{short(reso_idx)}; expected a list of [x, y, z] resolutions of at least 2 with that entry")
    return tuple(int(side) for side in entry)


def _has_entry(resolutions: Any, index: int) -> bool:
    return isinstance(resolutions, list | tuple) and -len(resolutions) <= index < len(resolutions)


def _is_side(side: Any) -> bool:
    return isinstance(side, int | float) and 2 <= side <= LARGEST_SIDE and side == int(side)


def write_config(folder: Path, bindings: dict[str, Any]) -> None:
    """Write ``name = value`` lines."""
    write_text(folder / CONFIG_FILE, "".join(f"{name} = {value!r}\n" for name, value in bindings.items()))


def _statements(text: str) -> list[str]:
    """Logical lines: comments removed, and lines joined while a bracket is open or a backslash ends them."""
    statements: list[str] = []
    parts: list[str] = []
    depth = 0
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        part = line.split("#", 1)[0].strip() if "'" not in line and '"' not in line else line.strip()
        continued = part.endswith("\\")
        part = part.removesuffix("\\")
        depth += sum(part.count(bracket) for bracket in "([{") - sum(part.count(bracket) for bracket in ")]}")
        parts.append(part)
        if continued or depth > 0:
            continue
        if statement := " ".join(parts).strip():
            statements.append(statement)
        parts, depth = [], 0
    return statements


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text) if len(text) <= _LONGEST_VALUE else text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text

"""The ``config.gin`` beside a PeRFception checkpoint, read as data: nothing in it is imported or run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import write_text

CONFIG_FILE = "config.gin"


def read_config(folder: Path) -> dict[str, Any]:
    """All ``name = value`` bindings by the full name; values that are not Python literals stay text.

    An absent file gives an empty dict.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        return {}
    bindings: dict[str, Any] = {}
    for statement in _statements(path.read_text(encoding="utf-8", errors="replace")):
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
    try:
        entry = resolutions[reso_idx]
        sides = tuple(int(side) for side in entry)
        if len(sides) != 3 or min(sides) < 2:
            raise ValueError
    except (IndexError, TypeError, ValueError):
        raise UserError(f"{folder / CONFIG_FILE}: reso is {resolutions!r} and the checkpoint's reso_idx {reso_idx}; "
                        "expected a list of [x, y, z] resolutions with that entry") from None
    return sides


def write_config(folder: Path, bindings: dict[str, Any]) -> None:
    """Write ``name = value`` lines."""
    write_text(folder / CONFIG_FILE, "".join(f"{name} = {value!r}\n" for name, value in bindings.items()))


def _statements(text: str) -> list[str]:
    """Logical lines: comments removed, and lines joined while a bracket is open or a backslash ends them."""
    statements: list[str] = []
    current = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        current += " " + line.split("#", 1)[0].strip() if "'" not in line and '"' not in line else " " + line.strip()
        if current.endswith("\\"):
            current = current[:-1]
            continue
        if sum(current.count(bracket) for bracket in "([{") > sum(current.count(bracket) for bracket in ")]}"):
            continue
        if current.strip():
            statements.append(current.strip())
        current = ""
    return statements


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text

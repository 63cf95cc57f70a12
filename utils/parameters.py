"""Parameters of tasks and option groups, as their signature and the docstring say them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class _Unset:
    """A value that the config must give."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Unset()


@dataclass(frozen=True)
class Parameter:
    """One gin parameter.

    Attributes:
        name: after the task's or the group's.
        default: :data:`REQUIRED` where it must be set.
        meaning: one or more sentences.
    """

    name: str
    default: Any
    meaning: str

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED


def parameters_of(configurable: Callable[..., Any]) -> list[Parameter]:
    """Parameters of a gin-configurable with the meaning from the ``Args:`` or ``Attributes:`` of its docstring."""
    import gin

    meanings = docstring_arguments(inspect.getdoc(configurable) or "")
    return [
        Parameter(
            name, REQUIRED if parameter.default in (gin.REQUIRED, inspect.Parameter.empty) else parameter.default,
            meanings.get(name, ""),
        )
        for name, parameter in inspect.signature(configurable).parameters.items()
        if name != "self"
    ]  # fmt: skip


def docstring_arguments(docstring: str) -> dict[str, str]:
    """Meaning by name from the ``Args:`` or ``Attributes:`` of a clean docstring, continuation lines joined.

    Lines ``a, b: meaning`` give it to both.
    """
    section = re.search(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    if section is None:
        return {}
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in section.group(1).splitlines():
        entry = re.match(r"^ {4}(\w+(?:, \w+)*)(?: \([^)]*\))?: *(.*)$", line)
        if entry:
            names = entry.group(1).split(", ")
            meanings |= dict.fromkeys(names, entry.group(2).strip())
        elif line.strip():
            meanings |= {name: f"{meanings[name]} {line.strip()}".strip() for name in names}
    return meanings

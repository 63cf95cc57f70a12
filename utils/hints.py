"""What was probably meant by a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from utils.errors import UserError


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """" (did you mean ...?)" with the most similar of ``options``, or nothing where none is similar."""
    close = difflib.get_close_matches(name, list(options), n=1)
    if not close:  # of other case
        close = [option for option in options if option.lower() == name.lower()]
    return f" (did you mean {close[0]!r}?)" if close else ""


def known_task(name: str | None, modules: Mapping[str, str]) -> str:
    """The name, unless there is no such task.

    Raises:
        UserError: it is none of ``modules``, or None.
    """
    if name is None:
        raise UserError("no task is given; name one on the command line or bind run.task (run.py --help lists them)")
    if name not in modules:
        raise UserError(f"task {name!r} is unknown{did_you_mean(name, modules)}; the tasks are {', '.join(modules)}")
    return name

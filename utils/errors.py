"""The one exception type for mistakes that a user can correct, and where damaged files become it."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# PyTorch's, recognised by name so as not to import it: the device is too small or broken, the file may be fine.
_NOT_THE_FILE = ("OutOfMemoryError", "AcceleratorError")
_LONGEST_REASON = 200
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 100


class UserError(Exception):
    """Bad input, described in one clear sentence: which file, what was expected, what was found, what to do.

    ``run.py`` prints the message without a traceback and exits with code 2.
    """


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise :class:`UserError` unless a parameter's ``value`` is one of its ``choices``."""
    if value not in choices:
        *others, last = map(repr, choices)
        listed = f"{', '.join(others)} or {last}" if others else last
        raise UserError(f"{name} = {value!r} is unknown; use {listed}")


@contextlib.contextmanager
def reading(path: str | Path, what: str, advice: str = "replace the file") -> Iterator[None]:
    """Turn whatever a file makes its reader raise into a :class:`UserError` that names it.

    Libraries answer damaged files with some thirty kinds of exceptions (of pickle, zip, struct, tokenize, recursion,
    memory, Unicode, linear algebra, ...); this is the only place that catches them. Within it belongs what reads and
    judges the file's content, and nothing else: a mistake in the program would be reported as a damaged file.

    Args:
        path: of the file or folder that is read.
        what: it should be, with article: "a camera list".
        advice: what to do about a damaged one.
    """
    try:
        yield
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        if type(error).__name__ in _NOT_THE_FILE:
            raise
        if isinstance(error, OSError) and error.strerror:
            inside = "" if str(error.filename or path) == str(path) else f": {error.filename}"
            if isinstance(error, FileNotFoundError) and not inside:
                raise UserError(f"{path} does not exist; expected {what} there") from None
            raise UserError(f"{path} cannot be read ({error.strerror}{inside}); expected {what} there") from error
        raise UserError(f"{path} cannot be read as {what} ({_reason(error)}); {advice}") from error


def _reason(error: Exception) -> str:
    """The error's kind and the first line of its text."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, KeyError):
        line = f"{line} is missing"
    kind = type(error).__name__
    kind = f"{type(error).__module__}.error" if kind == "error" else kind  # struct's and zlib's
    return f"{kind}: {line}"[:_LONGEST_REASON] if line else kind


def short(value: Any) -> str:
    """A value read from a file as it can stand in a message, however long it is."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return f"a {type(value).__name__} with a number of very many digits"

"""What configs may say, looked at before gin reads them: how deeply they nest, what they include and what they import.

A config is trusted like a command line: it chooses what is run, and which paths are read and written. An ``import``
line is more, because gin runs that module at once, and with ``dynamic_registration`` a config can call anything in it.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gin.config_parser import BindingStatement, ConfigParser, ImportStatement, IncludeStatement, ParserDelegate

from utils.errors import UserError
from utils.files import read_text
from utils.paths import PROJECT

_DEEPEST = 100  # open brackets; the reader recurses, and the limits of Python versions differ
_LONGEST = 1 << 20  # bytes
_MOST_FILES = 100  # with what they include
_PIECES = re.compile(r"""'''|\"""|\\.|['"\n#\[\](){}]""", re.DOTALL)


class _Names(ParserDelegate):
    """Collects names of tasks, groups and functions that values refer to; macros are only read over."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        self.found.add(_short_name(scoped_configurable_name))
        return None

    def macro(self, macro_name: str) -> Any:
        return None


def check_configs(files: Sequence[Path], bindings: Sequence[str], allow_imports: bool = False) -> set[str]:
    """Check the texts that gin is about to read.

    Args:
        files: the configs, absolute.
        bindings: of the command line.
        allow_imports: also where they are not this project's own.

    Returns:
        Names of all tasks, groups and functions that they bind or refer to, without scopes and modules.

    Raises:
        UserError: a text is no text, too long or nested too deeply, includes what does not exist or itself, or imports
            without leave.
        SyntaxError, tokenize.TokenError, ValueError: as gin raises them.
    """
    texts = _Texts(allow_imports)
    for path in files:
        texts.check_file(path)
    texts.check("\n".join(bindings), None)
    return texts.names.found


class _Texts:
    def __init__(self, allow_imports: bool):
        self._allow_imports, self._files_left = allow_imports, _MOST_FILES
        self.names = _Names()

    def check_file(self, path: Path) -> None:
        self._files_left -= 1
        if self._files_left < 0:
            raise UserError(f"{path} is nested too deeply, or includes itself; correct it")
        text = read_text(path, "a config")
        if len(text) > _LONGEST:
            raise UserError(f"{path} has {len(text)} characters; a config has at most {_LONGEST}")
        self.check(text, path)

    def check(self, text: str, path: Path | None) -> None:
        """Check the content of the file ``path``, or of the command line."""
        place = str(path or "--ginb")
        if _depth(text) > _DEEPEST:
            raise UserError(f"{place} is nested too deeply: more than {_DEEPEST} brackets are open at once; correct it")
        reader = io.StringIO(text)
        reader.name = path and str(path)  # for the parser's messages
        for statement in ConfigParser(reader, self.names):
            if isinstance(statement, BindingStatement):
                self.names.found.add(_short_name(statement.selector))
            if isinstance(statement, IncludeStatement):
                self.check_file(_included(statement.filename, place))
            elif isinstance(statement, ImportStatement) and not (self._allow_imports or _is_own(path)):
                raise UserError(
                    f"{place}, line {statement.location.line_num}: {statement.format()!r} runs code, and is "
                    "refused outside this project's configs/; remove the line, or add --allow-imports if you trust it"
                )


def _short_name(selector: str) -> str:
    """``scope/module.Group`` is Group."""
    return selector.rpartition("/")[2].rpartition(".")[2]


def _included(name: str, place: str) -> Path:
    """The file that gin finds: this project's, or one relative to the current folder."""
    for folder in (PROJECT, Path()):
        if (folder / name).is_file():
            return (folder / name).absolute()
    raise UserError(f"{place} includes {name!r}, which does not exist in {PROJECT} or {os.getcwd()}")


def _is_own(path: Path | None) -> bool:
    return path is not None and path.resolve().is_relative_to(PROJECT / "configs")


def _depth(text: str) -> int:
    """How many brackets at most are open at once, apart from those in strings and comments."""
    depth = deepest = 0
    inside = ""  # of which quote's string, or "#"
    for piece in (match.group() for match in _PIECES.finditer(text)):
        if inside:
            ends = piece == inside or (piece == "\n" and len(inside) == 1)
            inside = "" if ends else inside
        elif piece in "[({":
            depth += 1
            deepest = max(deepest, depth)
        elif piece in "])}":
            depth = max(depth - 1, 0)
        elif piece[0] in "'\"#":
            inside = piece
    return deepest

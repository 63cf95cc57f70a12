"""Tasks, option groups and their parameters, read from the sources without importing them.

Importing all tasks takes seconds, because they import PyTorch. ``run.py --help``, shell completion, hints for misspelt
names, and the choice of what a config needs imported, all read this; a test compares it with what importing gives.
"""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.parameters import REQUIRED, Parameter, docstring_arguments
from utils.paths import PROJECT

ROOMS = ("utils", "lib", "dataloader", "model", "enet", "analysis")
_MARK = re.compile(r"^@(gin\.configurable|task\()", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A task or an option group.

    Attributes:
        name: in configs.
        module: that defines it.
        parameters: in the order of its signature.
        summary: of a task, one line; None for other groups.
        groups: names of the option groups that a task reads.
    """

    name: str
    module: str
    parameters: tuple[Parameter, ...]
    summary: str | None = None
    groups: tuple[str, ...] = ()


class Catalog:
    """The entries of some modules; each module's source is read when it is asked for.

    Args:
        modules: names; by default all of the project that define an entry.
    """

    def __init__(self, modules: Sequence[str] | None = None):
        self._modules = modules

    @functools.cached_property
    def entries(self) -> dict[str, Entry]:
        """All entries by name."""
        modules = _modules_with_entries() if self._modules is None else self._modules
        return {entry.name: entry for module in modules for entry in module_entries(module)}


@functools.cache
def module_entries(module: str) -> tuple[Entry, ...]:
    """Entries that one module of the project defines."""
    source = _Source.of(module)
    found = []
    for node in source.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (decorator := _decorator(node)) is not None:
            found.append(_entry(source, node, decorator))
    return tuple(found)


def _modules_with_entries() -> Iterator[str]:
    for room in ROOMS:
        for path in sorted((PROJECT / room).rglob("*.py")):
            if _MARK.search(path.read_text(encoding="utf-8")):
                yield ".".join(path.relative_to(PROJECT).with_suffix("").parts)


def _decorator(node: ast.FunctionDef | ast.ClassDef) -> ast.expr | None:
    """``gin.configurable`` or ``task(...)`` above a definition."""
    for decorator in node.decorator_list:
        if ast.unparse(decorator) == "gin.configurable":
            return decorator
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "task":
            return decorator
    return None


def _entry(source: _Source, node: ast.FunctionDef | ast.ClassDef, decorator: ast.expr) -> Entry:
    meanings = docstring_arguments(ast.get_docstring(node) or "")
    pairs = _fields(node) if isinstance(node, ast.ClassDef) else _arguments(node)
    parameters = tuple(
        Parameter(name, REQUIRED if default is None else source.value(default), meanings.get(name, ""))
        for name, default in pairs
    )
    summary, groups = None, ()
    if isinstance(decorator, ast.Call):
        given = {keyword.arg: keyword.value for keyword in decorator.keywords}
        summary = source.value(given.get("summary") or decorator.args[0])
        groups = tuple(source.names(given["configures"])) if "configures" in given else ()
    return Entry(node.name, source.module, parameters, summary, groups)


def _arguments(node: ast.FunctionDef) -> Iterator[tuple[str, ast.expr | None]]:
    """Names and defaults of a function."""
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(positional) - len(node.args.defaults)) + node.args.defaults
    yield from ((argument.arg, default) for argument, default in zip(positional, defaults, strict=True))
    yield from ((argument.arg, default) for argument, default in
                zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))  # fmt: skip


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr | None]]:
    """Names and defaults of a dataclass."""
    yield from ((line.target.id, line.value) for line in node.body if isinstance(line, ast.AnnAssign))


@dataclass(frozen=True)
class _Source:
    """The syntax tree of a module of the project."""

    module: str
    tree: ast.Module

    @classmethod
    @functools.cache
    def of(cls, module: str) -> _Source:
        path = PROJECT.joinpath(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else Path(f"{path}.py")
        return cls(module, ast.parse(path.read_text(encoding="utf-8")))

    def value(self, expression: ast.expr) -> Any:
        """What an expression of constants is; names are looked up in this module and where it has them from.

        Raises:
            KeyError: a name's value is not in the sources.
        """
        if ast.unparse(expression) == "gin.REQUIRED":
            return REQUIRED
        names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)} - {"math"}
        known = {name: self._constant(name) for name in names}
        code = compile(ast.Expression(expression), self.module, "eval")
        return eval(code, {"__builtins__": {}, "math": math}, known)  # the project's own source

    def names(self, expression: ast.expr) -> Iterator[str]:
        """Names in a tuple, also those of a tuple or dictionary of this module that is put into it by a star.

        Raises:
            KeyError: it holds something else.
        """
        if isinstance(expression, ast.Tuple):
            for element in expression.elts:
                yield from self.names(element)
        elif isinstance(expression, ast.Dict):
            for element in expression.values:
                yield from self.names(element)
        elif isinstance(expression, ast.Starred):
            named = ast.unparse(expression.value).removesuffix(".values()")
            yield from self.names(self._assigned(named))
        elif isinstance(expression, ast.Name):
            yield expression.id
        else:
            raise KeyError(f"{self.module}: {ast.unparse(expression)} is no name of an option group")

    def _assigned(self, name: str) -> ast.expr:
        """What a name of this module is set to."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                return node.value
        raise KeyError(f"{self.module} does not say what {name} is")

    def _constant(self, name: str) -> Any:
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                return self.value(node.value)
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _Source.of(node.module)._constant(alias.name)
        raise KeyError(f"{self.module} does not say what {name} is")

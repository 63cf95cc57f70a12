"""Strict gin: every mistake in a config is one clear sentence before any work starts."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import re
import tokenize
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin

from utils.catalog import Catalog
from utils.config_text import check_configs
from utils.errors import UserError
from utils.hints import did_you_mean
from utils.parameters import REQUIRED, parameters_of
from utils.paths import PROJECT, expand_home, find_config
from utils.tasks import Task

_MACRO = "gin.macro"
_MACRO_LINE = r"^\s*(\w+)\s*="


@gin.configurable
def join_path(folder: str = gin.REQUIRED, name: str = gin.REQUIRED) -> str:
    """``folder/name``, so that configs can derive paths from the macros DATA and WORK."""
    return str(Path(folder) / name)


@gin.config.register_finalize_hook
def _expand_home(config: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    """New values for parameters and macros that hold paths with ``~``."""
    expanded = {
        f"{scope}/{selector}.{name}".removeprefix("/"): (value, expand_home(value))
        for (scope, selector), parameters in config.items()
        for name, value in parameters.items()
    }
    return {key: new for key, (old, new) in expanded.items() if new != old}


def parse(config_files: Sequence[str], bindings: Sequence[str], allow_imports: bool = False) -> None:
    """Read config files, then bindings, into gin, and check them.

    Args:
        config_files: paths, or ``configs/...`` of this project.
        bindings: of the command line.
        allow_imports: whether configs that are not this project's own may import modules.

    Raises:
        UserError: a file is absent, a name or parameter is unknown, the syntax is wrong, a macro is undefined.
    """
    found = {path: find_config(path) for path in config_files}
    for path, place in found.items():
        if place is None:
            raise UserError(f"config file {path!r} does not exist; the stages' configs are in configs/stage")
    # What this project's configs include is this project's, whatever is in the current folder.
    gin.config._LOCATION_PREFIXES[:] = [str(PROJECT), ""]
    try:
        _import_named(check_configs(list(found.values()), bindings, allow_imports))
        gin.parse_config_files_and_bindings([str(found[path]) for path in config_files], list(bindings),
                                            finalize_config=False)
        gin.finalize()
        _refuse_unused_macros(bindings)
    except (ValueError, SyntaxError, OSError, TypeError, KeyError, tokenize.TokenError) as error:
        raise UserError(_explain(error)) from None


def _import_named(names: Iterable[str]) -> None:
    """Import the modules of the tasks and option groups that a config names, so that gin knows them."""
    entries = Catalog().entries
    for name in sorted(entries.keys() & names):
        importlib.import_module(entries[name].module)


def _refuse_unused_macros(bindings: Sequence[str]) -> None:
    """A macro that nothing uses is misspelt, or of another task.

    In files those may stand that another config of the project knows, so that one data config serves all stages; on the
    command line only those of ``configs/base.gin``, which are the same for all stages.
    """
    references = (reference.config_key for reference in gin.config.iterate_references(gin.config._CONFIG))
    used = {scope for scope, selector in references if selector == _MACRO}
    project = _macros_in((PROJECT / "configs").rglob("*.gin"))
    given = {name for text in bindings for name in re.findall(_MACRO_LINE, text, re.MULTILINE)}
    shared = _macros_in([PROJECT / "configs" / "base.gin"])
    for name, selector in gin.config._CONFIG:
        if selector != _MACRO or name in used or name in shared:
            continue
        if name not in project:
            hint = did_you_mean(name, sorted(used | project))
            raise UserError(f"the macro {name} is set, but nothing uses it{hint}; correct its name or leave it out")
        if name in given:
            raise UserError(f"the macro {name} is set on the command line, but nothing in this run uses it; it uses "
                            f"{', '.join(sorted(used)) or 'none'}")


def _macros_in(configs: Iterable[Path]) -> set[str]:
    """Names of the macros that some configs define or use."""
    found = re.compile(rf"{_MACRO_LINE}|%(\w+)", re.MULTILINE)
    return {name for path in configs for pair in found.findall(path.read_text(encoding="utf-8")) for name in pair}


def check_binding(name: str, values: Iterable[Any]) -> None:
    """Raise :class:`UserError` unless ``name`` is a parameter, as 'Group.parameter', that can take all ``values``."""
    group, _, parameter = name.rpartition(".")
    _import_named([group])
    known = _configurables()
    if group not in known:
        hint = did_you_mean(group, _known_names())
        raise UserError(f"{name!r} names no task or option group{hint}; expected 'Group.parameter'")
    names = [entry.name for entry in parameters_of(known[group])]
    if parameter not in names:
        raise UserError(f"{group} has no parameter {parameter!r}{did_you_mean(parameter, names)}")
    hint = typing.get_type_hints(inspect.unwrap(known[group])).get(parameter, Any)
    for value in values:
        if not fits(value, hint):
            raise UserError(f"{name} = {value!r} is not of type {_type_text(hint)}")


def _configurables() -> dict[str, Any]:
    """Tasks and option groups that are imported, by name."""
    return {
        selector.rpartition(".")[2]: entry.wrapped
        for selector, entry in gin.config._REGISTRY.items()
        if not selector.startswith("gin.")
    }


def _known_names() -> list[str]:
    """Of all tasks and option groups, imported or not."""
    return sorted({*Catalog().entries, *_configurables()})


def _explain(error: Exception) -> str:
    text = str(error)
    where = re.search(r'In file "([^"]+)", line (\d+)', text) or re.search(r"In bindings string line (\d+)", text)
    place = ""
    if where:
        place = f" ({where.group(1)}, line {where.group(2)})" if where.lastindex == 2 else " (in --ginb)"
    macro = re.search(r"No bindings specified for '([\w./]+)/gin\.macro'", text)
    if macro:
        name = macro.group(1)
        return f"the config uses the macro %{name}, which nothing defines; add --ginb \"{name} = ...\""
    required = re.search(r"(\S+) set to `%gin.REQUIRED` but not subsequently overridden", text)
    if required:
        name = required.group(1).removesuffix("/macro.value")
        return f"{name} must be set; add --ginb \"{name} = ...\""
    unknown = re.search(r"No configurable matching '([^']+)'", text)
    if unknown:
        return (f"the config names {unknown.group(1)!r}, which is no task or option group{place}"
                f"{did_you_mean(unknown.group(1), _known_names())}; run.py TASK --help lists the names")
    parameter = re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", text)
    if parameter:
        group, name = parameter.groups()
        known = _configurables().get(group.rpartition(".")[2])
        names = [entry.name for entry in parameters_of(known)] if known is not None else []
        return f"{group} has no parameter {name!r}{place}{did_you_mean(name, names)}; run.py TASK --help lists them"
    if isinstance(error, tokenize.TokenError):
        return f"the config has a syntax error: {error.args[0]}, before line {error.args[1][0]}"
    if isinstance(error, SyntaxError):
        line = (error.text or "").strip()
        return f"the config has a syntax error: {error.msg}" + (f" in {line!r}" if line else "") + place
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"the config cannot be used: {first}{place}"


def resolved_parameters(configurable: Any) -> dict[str, Any]:
    """Each parameter's value as the call will see it: bound and resolved, or its default.

    Raises:
        UserError: a required parameter is not set, a value it refers to is incomplete or not of the parameter's type,
            or an option group refuses its values.
    """
    name = configurable.__name__
    hints = typing.get_type_hints(inspect.unwrap(configurable))
    try:
        bound = copy.deepcopy(gin.get_bindings(name))
    except (ValueError, RuntimeError, TypeError) as error:
        raise UserError(_explain(error)) from None
    values = {}
    for parameter in parameters_of(configurable):
        value = bound.get(parameter.name, parameter.default)
        if value is gin.REQUIRED or value is REQUIRED:
            raise UserError(
                f"{name}.{parameter.name} must be set ({parameter.meaning or 'required'}); "
                f"add --ginb \"{name}.{parameter.name} = ...\""
            )
        if parameter.name in bound and not fits(value, hint := hints.get(parameter.name, Any)):
            raise UserError(
                f"{name}.{parameter.name} = {value!r} is not of type {_type_text(hint)} "
                f"({parameter.meaning}); correct it in the config or with --ginb"
            )
        values[parameter.name] = value
    if inspect.isclass(configurable):
        _build(configurable)
    return values


def fits(value: Any, hint: Any) -> bool:
    """Whether a config's value fits a type hint: lists for tuples and whole numbers for floats are fine."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, option) for option in arguments)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and Ellipsis not in arguments:
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        return all(fits(item, arguments[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, (str, os.PathLike))
    kind = Mapping if origin is dict else hint
    return kind is Any or not inspect.isclass(kind) or isinstance(value, kind)


def _type_text(hint: Any) -> str:
    text = hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint)
    return text.replace("collections.abc.", "")


def _build(options: type) -> None:
    """Make the option group once, so that values it refuses are reported before any work starts."""
    try:
        options()
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]  # gin appends where it was called
        raise UserError(f"{reason}; correct it in the config or with --ginb") from None


def check_inputs(task: Task, values: dict[str, Any]) -> None:
    """Every path among the task's inputs exists; raises :class:`UserError` that names the one that does not."""
    for name in task.inputs:
        value = values[name]
        paths = value if isinstance(value, (list, tuple)) else [value]
        for path in paths:
            if path is not None and not Path(path).exists():
                raise UserError(
                    f"{task.name}.{name} = {str(path)!r} does not exist; run the stage that makes it, or set "
                    f"--ginb \"{task.name}.{name} = ...\""
                )

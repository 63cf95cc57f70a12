"""Strict gin: every mistake in a config is one clear sentence before any work starts."""

from __future__ import annotations

import copy
import inspect
import re
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from utils.errors import UserError
from utils.tasks import Task, parameters_of


@gin.configurable
def join_path(folder: str = gin.REQUIRED, name: str = gin.REQUIRED) -> str:
    """``folder/name``, so that configs can derive paths from the macros DATA and WORK."""
    return str(Path(folder) / name)


def parse(config_files: Sequence[str], bindings: Sequence[str]) -> None:
    """Read config files, then bindings, into gin, and check them.

    Raises:
        UserError: a file is absent, a name or parameter is unknown, the syntax is wrong, a macro is undefined.
    """
    for path in config_files:
        if not Path(path).is_file():
            raise UserError(f"config file {path} does not exist; the stages' configs are in configs/stage")
    try:
        gin.parse_config_files_and_bindings(list(config_files), list(bindings), finalize_config=False)
        gin.finalize()
    except (ValueError, SyntaxError, OSError, TypeError, KeyError, tokenize.TokenError) as error:
        raise UserError(_explain(error)) from None


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
        return (f"the config names {unknown.group(1)!r}, which is no task or option group{place}; "
                "run.py TASK --help lists the names")
    parameter = re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", text)
    if parameter:
        return f"{parameter.group(1)} has no parameter {parameter.group(2)!r}{place}; run.py TASK --help lists them"
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
        UserError: a required parameter is not set, or a value it refers to is incomplete.
    """
    name = configurable.__name__
    try:
        bound = copy.deepcopy(gin.get_bindings(configurable))
    except (ValueError, RuntimeError, TypeError) as error:
        raise UserError(_explain(error)) from None
    values = {}
    for parameter in parameters_of(configurable):
        value = bound.get(parameter.name, parameter.default)
        if value is gin.REQUIRED or value is inspect.Parameter.empty:
            raise UserError(
                f"{name}.{parameter.name} must be set ({parameter.meaning or 'required'}); "
                f"add --ginb \"{name}.{parameter.name} = ...\""
            )
        values[parameter.name] = value
    return values


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

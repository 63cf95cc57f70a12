"""Shell completion of ``run.py`` by argcomplete: tasks, configs, and the names that a binding can begin with."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

from utils.catalog import Catalog
from utils.paths import PROJECT


def complete(parser: argparse.ArgumentParser, modules: Mapping[str, str]) -> None:
    """Answer the shell and end the process.

    Args:
        parser: of the command line.
        modules: that define the tasks, by the tasks' names.
    """
    import argcomplete

    actions = {action.dest: action for action in parser._actions}
    actions["task"].completer = argcomplete.ChoicesCompleter(tuple(modules))
    actions["ginc"].completer = argcomplete.FilesCompleter((".gin",))
    actions["ginb"].completer = _bindings
    argcomplete.autocomplete(parser)


def _bindings(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """What a binding of the chosen task can begin with: its parameters, those of its groups, and macros."""
    entries = Catalog().entries
    task = entries.get(parsed_args.task)
    groups = entries.values() if task is None else (task, *(entries[name] for name in task.groups))
    names = [f"{entry.name}.{parameter.name}" for entry in groups for parameter in entry.parameters]
    configs = ["base.gin"] if task is None else ["base.gin", f"stage/{task.name}.gin"]
    for name in configs:
        text = (PROJECT / "configs" / name).read_text(encoding="utf-8")
        names += re.findall(r"^([A-Z]\w*) *=", text, re.MULTILINE)
    return [f"{name} = " for name in sorted(set(names)) if name.startswith(prefix)]

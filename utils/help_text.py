"""What ``run.py --help``, ``TASK --help`` and ``--version`` print, from the sources alone."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping
from importlib import metadata

from utils.catalog import Catalog, module_entries
from utils.parameters import Parameter
from utils.paths import PROJECT

_NAME = "semantic-segmentation-implicit-representation"
_OPTIONS = """\
Options:
  --ginc FILE     a gin config; may be repeated; configs/stage/TASK.gin when none is given
  --ginb BINDING  one gin binding, such as 'fit.device = "cpu"' or 'WORK = "outputs"'; may be repeated
  --dry-run       check everything, print what would run, and stop
  --resume        continue where an earlier run of the same settings was stopped
  --allow-imports let configs outside configs/ import modules, which runs code: for trusted ones
  -v, --verbose   log in detail
  --version       the version of this project
  --help          this text; after TASK: that task's parameters"""


def overview(usage: str, modules: Mapping[str, str]) -> str:
    """The tasks, one line each, and the options.

    Args:
        usage: lines that say how a command looks.
        modules: that define the tasks, by the tasks' names.
    """
    entries = Catalog(list(modules.values())).entries
    tasks = "\n".join(f"  {name:<11} {entries[name].summary}" for name in modules)
    return f"{textwrap.dedent(usage).strip()}\n\nTasks:\n{tasks}\n\n{_OPTIONS}"


def task_help(task: str, modules: Mapping[str, str]) -> str:
    """Parameters of a task and of the option groups that it reads: default and meaning."""
    (entry,) = (entry for entry in module_entries(modules[task]) if entry.name == task)
    groups = Catalog().entries
    parts = [f"{task}: {entry.summary}\n\nConfig: configs/stage/{task}.gin"]
    for each in (entry, *(groups[name] for name in entry.groups)):
        parts.append("\n".join([f"  {each.name}", *map(_parameter_text, each.parameters)]))
    return "\n\n".join(parts) + "\n"


def version() -> str:
    """Name and version of the project."""
    source = PROJECT / "pyproject.toml"
    if not source.is_file():  # installed from a wheel
        return f"{_NAME} {metadata.version(_NAME)}"
    project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
    return f"{project['name']} {project['version']}"


def _parameter_text(parameter: Parameter) -> str:
    default = "REQUIRED" if parameter.required else f"default {parameter.default!r}"
    meaning = textwrap.fill(parameter.meaning, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"    {parameter.name}  ({default})" + (f"\n{meaning}" if meaning else "")

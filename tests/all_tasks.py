"""All tasks, imported."""

import importlib

import run
from utils.tasks import Task, get_task


def import_tasks() -> dict[str, Task]:
    """Every task by its name; all option groups are known to gin afterwards."""
    for module in run.TASK_MODULES.values():
        importlib.import_module(module)
    return {name: get_task(name) for name in run.TASK_MODULES}

"""All tasks, imported, and what only configs bring in."""

import importlib

import run
from utils.tasks import Task, get_task

BY_CONFIGS = ("analysis.dome_poses",)  # data.poses of 'train', which may not import analysis itself


def import_tasks() -> dict[str, Task]:
    """Every task by its name; all option groups are known to gin afterwards."""
    for module in (*run.TASK_MODULES.values(), *BY_CONFIGS):
        importlib.import_module(module)
    return {name: get_task(name) for name in run.TASK_MODULES}

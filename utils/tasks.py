"""The tasks that ``run.py`` can start.

A task is a gin-configurable function that checks its arguments and returns a :class:`utils.plans.Plan`. The ``Args:``
section of its docstring is what ``run.py TASK --help`` shows. What the plan's work returns becomes ``metrics.json``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gin

from utils.plans import Plan

_TASKS: dict[str, Task] = {}


@dataclass(frozen=True)
class Task:
    """A registered task.

    Attributes:
        name: as given on the command line and in gin.
        plan: the gin-configurable function.
        summary: one line for ``run.py --help``.
        inputs: names of parameters whose values are paths, or lists of paths, that must exist.
        records: format string over the parameters; the folder for the run's config and metrics.
        configures: gin-configurable classes or functions that the task also reads, shown by ``--help``.
    """

    name: str
    plan: Callable[..., Plan]
    summary: str
    inputs: tuple[str, ...]
    records: str
    configures: tuple[Callable[..., Any], ...]


def task(
    summary: str, inputs: tuple[str, ...] = (), records: str = "", configures: tuple[Callable[..., Any], ...] = ()
) -> Callable[[Callable[..., Plan]], Callable[..., Any]]:
    """Register a function that returns a plan as a task under its own name; see :class:`Task`.

    The decorated function plans and works at once, and returns the metrics; its attribute ``plan`` only plans.
    """

    def register(function: Callable[..., Plan]) -> Callable[..., Any]:
        configurable = gin.configurable(function)
        name = function.__name__
        _TASKS[name] = Task(name, configurable, summary, tuple(inputs), records, tuple(configures))

        @functools.wraps(function)
        def plan_and_work(*args: Any, **kwargs: Any) -> Any:
            return configurable(*args, **kwargs).work()

        plan_and_work.plan = configurable
        return plan_and_work

    return register


def get_task(name: str) -> Task:
    """The task of that name, whose module must have been imported; raises ``KeyError``."""
    return _TASKS[name]

"""From a command line to a finished run: configs are read, checked and planned, and then the work is done."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gin

from utils.config import check_inputs, parse, resolved_parameters
from utils.errors import check_choice
from utils.hints import known_task
from utils.interrupts import obey_parent
from utils.names import some_of
from utils.paths import PROJECT
from utils.plans import FAILED, Plan
from utils.records import RunRecords
from utils.run_state import set_imports_allowed, set_resume
from utils.seeding import seed_everything
from utils.tasks import Task, get_task

OK, SOME_FAILED = 0, 3  # exit codes
_TALKATIVE = ("PIL", "matplotlib", "asyncio", "websockets", "fsspec", "h5py")  # what these debug is no one's here


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        task: name, or None where the config says it.
        configs: files; empty for the task's own.
        bindings: further lines of the config.
        dry_run: only check and print the plan.
        resume: continue unfinished outputs.
        allow_imports: configs of others may import modules.
        verbose: log in detail, whatever the config says.
    """

    task: str | None
    configs: Sequence[str] = ()
    bindings: Sequence[str] = ()
    dry_run: bool = False
    resume: bool = False
    allow_imports: bool = False
    verbose: bool = False


@gin.configurable
def run(task: str | None = None, seed: int = 0, log_level: str = "INFO") -> tuple[str | None, int, str]:
    """What holds for every task.

    Args:
        task: which task to run when the command line names none.
        seed: of the global random generators; tasks that draw numbers have their own ``seed`` parameter.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """
    return task, seed, log_level


def run_task(request: Request, modules: Mapping[str, str]) -> int:
    """Run one task; returns the exit code.

    Args:
        request: of the command line.
        modules: that define the tasks, by the tasks' names.

    Raises:
        UserError: something must be corrected.
    """
    obey_parent()
    configs, bindings = list(request.configs), list(request.bindings)
    if request.task:
        known_task(request.task, modules)
        configs = configs or [str(PROJECT / "configs" / "stage" / f"{request.task}.gin")]
        bindings.append(f"run.task = '{request.task}'")  # so that the recorded config runs by itself
        importlib.import_module(modules[request.task])
    set_imports_allowed(request.allow_imports)
    parse(configs, bindings, request.allow_imports)
    with gin.unlock_config():  # what a task imports as it works may hold option groups
        return _run_configured(request, modules)


def _run_configured(request: Request, modules: Mapping[str, str]) -> int:
    name, seed, log_level = run()
    check_choice("run.log_level", log_level, ("DEBUG", "INFO", "WARNING", "ERROR"))
    logging.getLogger().setLevel("DEBUG" if request.verbose else log_level)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel("INFO")
    importlib.import_module(modules[known_task(name, modules)])
    task = get_task(name)
    values = resolved_parameters(task.plan)
    for group in task.configures:
        resolved_parameters(group)
    check_inputs(task, values)
    records = task.records.format(**values)
    seed_everything(seed)
    set_resume(request.resume)
    plan = task.plan()
    if request.dry_run:
        _print_plan(task, values, plan, records)
        return OK
    return _work(task, plan, records)


def _print_plan(task: Task, values: dict[str, Any], plan: Plan, records: str) -> None:
    print(f"dry run: {task.name} would run with")
    for name, value in values.items():
        print(f"  {task.name}.{name} = {value!r}")
    for line in plan.lines():
        print(line)
    print(f"config and metrics go to {records}" if records else "no files are written")


def _work(task: Task, plan: Plan, records: str) -> int:
    """Do what was planned; returns the exit code."""
    for note in plan.notes:
        logging.getLogger(__name__).info("%s", note)
    if plan.finished:
        logging.getLogger(__name__).info("%s: everything is finished; nothing to make", task.name)
    recorder = RunRecords(records, task.name, plan.finished) if records else None
    metrics = plan.work()
    if recorder:
        recorder.finish(metrics)
    failed = (metrics or {}).get(FAILED)
    if failed:
        names = some_of(list(failed))
        print(f"error: {len(failed)} scenes failed: {names}; {records}/metrics.json says why", file=sys.stderr)
        return SOME_FAILED
    return OK

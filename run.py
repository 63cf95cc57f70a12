"""The one entry point: reads gin configs and runs one task.

    python run.py --help
    python run.py TASK --help
    python run.py [TASK] --ginc configs/stage/TASK.gin [--ginb 'x.y = z' ...] [--dry-run] [--resume] [--allow-imports]
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import gin

from utils.config import check_inputs, did_you_mean, parse, resolved_parameters
from utils.disk import disk_refusal
from utils.errors import UserError, check_choice
from utils.interrupts import Stopped, obey_parent, stopping_signals
from utils.locks import held, unlock_all
from utils.paths import PROJECT
from utils.plans import FAILED, Plan
from utils.records import RunRecords
from utils.run_state import set_imports_allowed, set_resume
from utils.seeding import seed_everything
from utils.tasks import Parameter, Task, get_task, parameters_of

OK, REFUSED, SOME_FAILED = 0, 2, 3  # exit codes

TASK_MODULES = {
    "synthesize": "dataloader.task_synthesize",
    "extract": "dataloader.task_extract",
    "verify": "dataloader.task_verify",
    "fit": "model.task_fit",
    "render": "model.task_render",
    "annotate": "model.task_annotate",
    "analyze": "analysis.task_analyze",
    "sample": "analysis.task_sample",
    "filter": "analysis.task_filter",
    "rate": "analysis.task_rate",
    "train": "enet.task_train",
    "test": "enet.task_test",
    "fuse": "enet.task_fuse",
    "search": "enet.task_search",
    "export": "enet.task_export",
    "compare": "analysis.task_compare",
    "report": "analysis.task_report",
    "view": "analysis.task_view",
}


@gin.configurable
def run(task: str | None = None, seed: int = 0, log_level: str = "INFO") -> tuple[str | None, int, str]:
    """What holds for every task.

    Args:
        task: which task to run when the command line names none.
        seed: of the global random generators; tasks that draw numbers have their own ``seed`` parameter.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """
    return task, seed, log_level


def _parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", add_help=False, allow_abbrev=False)
    parser.add_argument("task", nargs="?")
    parser.add_argument("--ginc", action="append", default=[], metavar="FILE")
    parser.add_argument("--ginb", action="append", default=[], metavar="BINDING")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--allow-imports", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    return parser.parse_intermixed_args(argv)


def _import_tasks() -> dict[str, Task]:
    for module in TASK_MODULES.values():
        importlib.import_module(module)
    return {name: get_task(name) for name in TASK_MODULES}


def _print_overview(tasks: dict[str, Task]) -> None:
    print(__doc__.strip() + "\n\nTasks:")
    for name, task in tasks.items():
        print(f"  {name:<11} {task.summary}")
    print(
        "\nOptions:\n"
        "  --ginc FILE     a gin config; may be repeated; configs/stage/TASK.gin when none is given\n"
        "  --ginb BINDING  one gin binding, such as 'fit.device = \"cpu\"' or 'WORK = \"outputs\"'; may be repeated\n"
        "  --dry-run       check everything, print what would run, and stop\n"
        "  --resume        continue where an earlier run of the same settings was stopped\n"
        "  --allow-imports let configs outside configs/ import modules, which runs code: for trusted ones\n"
        "  --help          this text; after TASK: that task's parameters"
    )


def _parameter_text(parameter: Parameter) -> str:
    default = "REQUIRED" if parameter.required else f"default {parameter.default!r}"
    meaning = textwrap.fill(parameter.meaning, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"    {parameter.name}  ({default})" + (f"\n{meaning}" if meaning else "")


def _print_task_help(task: Task) -> None:
    print(f"{task.name}: {task.summary}\n\nConfig: configs/stage/{task.name}.gin\n")
    for configurable in (task.plan, *task.configures):
        print(f"  {configurable.__name__}")
        for parameter in parameters_of(configurable):
            print(_parameter_text(parameter))
        print()


def _print_help(task: Task | None, tasks: dict[str, Task]) -> None:
    try:
        if task is None:
            _print_overview(tasks)
        else:
            _print_task_help(task)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, such as 'head'; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _find_task(name: str | None, tasks: dict[str, Task]) -> Task:
    if name is None:
        raise UserError("no task is given; name one on the command line or bind run.task (run.py --help lists them)")
    if name not in tasks:
        raise UserError(f"task {name!r} is unknown{did_you_mean(name, tasks)}; the tasks are {', '.join(tasks)}")
    return tasks[name]


def _print_plan(task: Task, values: dict[str, Any], plan: Plan, records: str) -> None:
    print(f"dry run: {task.name} would run with")
    for name, value in values.items():
        print(f"  {task.name}.{name} = {value!r}")
    for line in plan.lines():
        print(line)
    print(f"config and metrics go to {records}" if records else "no files are written")


def _run(argv: Sequence[str]) -> int:
    arguments = _parse_arguments(argv)
    tasks = _import_tasks()
    if arguments.help:
        _print_help(_find_task(arguments.task, tasks) if arguments.task else None, tasks)
        return OK
    if arguments.task:
        name = _find_task(arguments.task, tasks).name
        arguments.ginc = arguments.ginc or [str(PROJECT / "configs" / "stage" / f"{name}.gin")]
        arguments.ginb.append(f"run.task = '{name}'")  # so that the recorded config runs by itself
    set_imports_allowed(arguments.allow_imports)
    parse(arguments.ginc, arguments.ginb, arguments.allow_imports)
    task_name, seed, log_level = run()
    check_choice("run.log_level", log_level, ("DEBUG", "INFO", "WARNING", "ERROR"))
    logging.getLogger().setLevel(log_level)
    task = _find_task(task_name, tasks)
    values = resolved_parameters(task.plan)
    for group in task.configures:
        resolved_parameters(group)
    check_inputs(task, values)
    records = task.records.format(**values)
    seed_everything(seed)
    set_resume(arguments.resume)
    plan = task.plan()
    if arguments.dry_run:
        _print_plan(task, values, plan, records)
        return OK
    return _work(task, plan, records)


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
        names = ", ".join(failed)
        print(f"error: {len(failed)} scenes failed: {names}; {records}/metrics.json says why", file=sys.stderr)
        return SOME_FAILED
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0; 2 after a mistake that the user can correct; 3 when some scenes failed and the others are done; 128 and the
    signal's number after one (130 after Ctrl-C, 143 after SIGTERM).
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    try:
        with stopping_signals():
            obey_parent()
            return _run(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)  # gin appends where it was called
        return REFUSED
    except OSError as error:
        refusal = disk_refusal(error, next(iter(held()), None))
        if refusal is None:
            raise
        print(f"error: {refusal}", file=sys.stderr)
        return REFUSED
    except Stopped as stop:
        print(f"stopped by {stop}; what is finished stays, and the same command with --resume continues from here",
              file=sys.stderr)  # fmt: skip
        return stop.exit_code
    finally:
        unlock_all()


if __name__ == "__main__":
    sys.exit(main())

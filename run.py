#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""The one entry point: reads gin configs and runs one task.

    python run.py --help
    python run.py TASK --help
    python run.py [TASK] --ginc configs/stage/TASK.gin [--ginb 'x.y = z' ...] [--dry-run] [--resume] [-v]
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from utils.errors import UserError
from utils.help_text import overview, task_help, version
from utils.hints import known_task
from utils.interrupts import Stopped, stopping_signals

OK, REFUSED = 0, 2  # exit codes

TASK_MODULES = {
    "synthesize": "dataloader.task_synthesize",
    "extract": "dataloader.task_extract",
    "verify": "dataloader.task_verify",
    "estimate": "analysis.task_estimate",
    "divide": "model.task_divide",
    "fit": "model.task_fit",
    "render": "model.task_render",
    "annotate": "model.task_annotate",
    "export_scene": "model.task_export_scene",
    "analyze": "analysis.task_analyze",
    "sample": "analysis.task_sample",
    "filter": "analysis.task_filter",
    "rate": "analysis.task_rate",
    "train": "enet.task_train",
    "adapt": "enet.task_adapt",
    "test": "enet.task_test",
    "fuse": "enet.task_fuse",
    "search": "enet.task_search",
    "export": "enet.task_export",
    "compare": "analysis.task_compare",
    "report": "analysis.task_report",
    "view": "analysis.task_view",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", add_help=False, allow_abbrev=False)
    parser.add_argument("task", nargs="?")
    parser.add_argument("--ginc", action="append", default=[], metavar="FILE")
    parser.add_argument("--ginb", action="append", default=[], metavar="BINDING")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--allow-imports", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    return parser


def _run(argv: Sequence[str]) -> int:
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what could come next
        from utils.completion import complete

        complete(parser, TASK_MODULES)
    arguments = parser.parse_intermixed_args(argv)
    if arguments.version:
        return _print(version())
    if arguments.help:
        text = task_help(known_task(arguments.task, TASK_MODULES), TASK_MODULES) if arguments.task else None
        return _print(text or overview(__doc__.partition("\n\n")[2], TASK_MODULES))
    if arguments.task is not None:
        known_task(arguments.task, TASK_MODULES)

    from utils.running import Request, run_task  # imports PyTorch

    return run_task(
        Request(
            arguments.task, arguments.ginc, arguments.ginb, arguments.dry_run, arguments.resume,
            arguments.allow_imports, arguments.verbose,
        ),
        TASK_MODULES,
    )  # fmt: skip


def _print(text: str) -> int:
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, such as 'head'; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
            return _run(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)  # gin appends where it was called
        return REFUSED
    except OSError as error:
        from utils.disk import disk_refusal
        from utils.locks import held

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
        if "utils.locks" in sys.modules:
            sys.modules["utils.locks"].unlock_all()


if __name__ == "__main__":
    sys.exit(main())

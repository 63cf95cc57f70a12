"""Slow-down of training, fit, render and tests by other work on the machine, with spinning and with sleeping threads.

    python benchmarks/busy.py outputs/demo [--jobs train,fit] [--repeats 3] [--others 2] [--limit 300]

outputs/demo is what scripts/demo.sh wrote. Each job runs alone and beside other work: by default as many endless loops
as there are cores, so that a fair share is half of them. Spinning is OpenMP's own setting, sleeping is this project's
(utils/cores.py); for the tests they are also two threads in each of two workers against one. All four take turns; the
table has medians of wall-clock seconds, start of Python included. More than --limit seconds are not waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils.cores import usable_cores  # noqa: E402
from utils.paths import PROJECT  # noqa: E402

SCENE = "scene9000_00"
SPINNING = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200", "OMP_NUM_THREADS": str(usable_cores())}
SETTINGS = {"spinning": SPINNING, "sleeping": {}}
OURS = ("OMP_WAIT_POLICY", "SSIR_OMP_NUM_THREADS", *SPINNING)
COLUMNS = [(setting, others) for others in (False, True) for setting in SETTINGS]
TRAIN = ("train", "configs/exp/rendered_rgb.gin", ["train.epochs = 2", "train.val_interval = 2"], "RUNS")
FIT = ("fit", "configs/stage/fit.gin", [f"SCENES = ['{SCENE}']", "FitOptimization.steps = (60,)"], "FIELDS")
RENDER = ("render", "configs/stage/render.gin", [f"SCENES = ['{SCENE}']"], "VIEWS")


def task(work: Path, output: Path, name: str, config: str, bindings: list[str], folder: str) -> list[str]:
    """The command of a task with the demo's settings that writes to ``output`` instead of the macro ``folder``."""
    bindings = [f"DATA = '{work / 'data'}'", f"WORK = '{work}'", f"{folder} = '{output}'", *bindings]
    command = [sys.executable, str(PROJECT / "run.py"), name]
    command += [part for path in (config, "configs/smoke/demo.gin") for part in ("--ginc", str(PROJECT / path))]
    return command + [part for binding in bindings for part in ("--ginb", binding)]


def commands(job: str, work: Path, output: Path) -> list[list[str]]:
    """What ``job`` runs at the same time."""
    if job == "tests":
        return [[sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "tests/lib", "tests/model"]]
    if job == "two trainings":
        return [task(work, output / str(number), *TRAIN) for number in range(2)]
    return [task(work, output, *{"train": TRAIN, "fit": FIT, "render": RENDER}[job])]


JOBS = ("train", "two trainings", "fit", "render", "tests")


@contextlib.contextmanager
def other_work(processes: int) -> Iterator[None]:
    """Endless loops beside what is measured."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def seconds(job: str, work: Path, setting: dict[str, str], limit: float) -> float:
    """How long ``job`` takes; infinity when it was stopped after ``limit`` seconds.

    Raises:
        SystemExit: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+") as log:
        start = time.perf_counter()
        running = [
            subprocess.Popen(command, cwd=PROJECT, env={**environment, **setting}, stdout=log, stderr=log,
                             start_new_session=True)
            for command in commands(job, work, Path(folder))
        ]  # fmt: skip
        try:
            for process in running:
                if code := process.wait(max(0.1, start + limit - time.perf_counter())):
                    sys.exit(f"{job} failed with exit code {code}:\n{Path(log.name).read_text()[-2000:]}")
            return time.perf_counter() - start
        except subprocess.TimeoutExpired:
            return float("inf")
        finally:
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def row(job: str, times: dict[tuple[str, bool], list[float]], limit: float) -> str:
    """Medians and their ratios."""
    median = {column: statistics.median(times[column]) for column in COLUMNS}

    def ratio(over: tuple[str, bool], under: tuple[str, bool]) -> str:
        if median[over] == float("inf"):
            return f">{limit / median[under]:.1f}"
        return f"{median[over] / median[under]:.2f}"

    cells = [f"{value:.1f}" if value < float("inf") else f">{limit:.0f}" for value in map(median.get, COLUMNS)]
    cells += [ratio((setting, True), (setting, False)) for setting in SETTINGS]
    cells += [ratio(("sleeping", others), ("spinning", others)) for others in (False, True)]
    return f"| {job} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="what scripts/demo.sh wrote")
    parser.add_argument("--jobs", default=",".join(JOBS), help="some of: %(default)s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--others", type=int, default=usable_cores(), help="endless loops beside a job")
    parser.add_argument("--limit", type=float, default=300, help="seconds")
    arguments = parser.parse_args()
    jobs = arguments.jobs.split(",")
    if unknown := set(jobs) - set(JOBS):
        parser.error(f"no job is called {unknown.pop()!r}; there are: {', '.join(JOBS)}")
    print(f"{usable_cores()} cores, {arguments.others} endless loops, {arguments.repeats} repeats; load before: "
          f"{os.getloadavg()[0]:.1f}")
    print("| | alone, spinning | alone, sleeping | beside, spinning | beside, sleeping | beside / alone, spinning "
          "| sleeping | sleeping / spinning, alone | beside |")
    print("| --- " * 9 + "|", flush=True)
    for job in jobs:
        times: dict[tuple[str, bool], list[float]] = {column: [] for column in COLUMNS}
        for _ in range(arguments.repeats):
            for setting, others in COLUMNS:
                with other_work(arguments.others if others else 0):
                    times[setting, others].append(
                        seconds(job, arguments.work.resolve(), SETTINGS[setting], arguments.limit)
                    )
        print(row(job, times, arguments.limit), flush=True)


if __name__ == "__main__":
    main()

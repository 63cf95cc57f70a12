"""Disturb every stage, and count how often a run was not as if nothing had happened.

    python -m tests.reliability.run [--quick] [--parts kill,twins,signals,workers,worker,disk] [--stages fit,train]

Prints a table; every failure is told in words, and the exit code is then 1. Full disks need a user who may mount.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.reliability.disturbances import (
    can_mount,
    full_disk,
    killed_and_resumed,
    killed_with_workers,
    signalled,
    twins,
    worker_killed,
)
from tests.reliability.stages import STAGES, Bench

PARTS = {
    # part: what is done, times a stage, times with --quick
    "kill": (killed_and_resumed, 10, 2),
    "twins": (twins, 4, 1),
    "signals": (signalled, 3, 1),
    "workers": (killed_with_workers, 10, 2),
    "worker": (worker_killed, 4, 2),
    "disk": (full_disk, 4, 1),
}
BY_SCENE = ("fit", "render", "annotate")  # stages that have workers
TITLES = {"kill": "kill -9, resumed to the same bytes", "twins": "two runs on one folder", "signals": "INT, TERM, HUP",
          "workers": "kill -9 with two workers, resumed to the same bytes", "worker": "kill -9 of a worker",
          "disk": "full disk, then resumed to the same bytes"}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--work", type=Path, help="a scratch folder; by default a temporary one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    root = (options.work or Path(tempfile.mkdtemp(prefix="reliability"))).resolve()
    shutil.rmtree(root, ignore_errors=True)
    bench, rng = Bench(root), random.Random(options.seed)
    stages, parts = options.stages.split(","), options.parts.split(",")
    bench.prepare(stages)
    if "worker" in parts and importlib.util.find_spec("ray") is None:
        print("workers in Ray are left out: it is not installed")
        parts.remove("worker")
    if "disk" in parts and not can_mount(root / "probe"):
        print("full disks are left out: this user may not mount")
        parts.remove("disk")
    failures = []
    rows = []
    for stage in stages:
        seconds = _seconds(bench, stage)
        cells = []
        for part in parts:
            if part in ("workers", "worker") and stage not in BY_SCENE:
                cells.append("")
                continue
            disturb, often, quick = PARTS[part]
            count = quick if options.quick else often
            wrong = []
            for number in range(count):
                if reason := disturb(bench, stage, number, seconds, rng):
                    wrong.append(f"{stage}, {part} {number}: {reason}")
                    print(wrong[-1], file=sys.stderr, flush=True)
            failures += wrong
            cells.append(f"{count - len(wrong)} of {count}")
        rows.append(f"| `{stage}` ({seconds:.0f} s) | " + " | ".join(cells) + " |")
        print(rows[-1], file=sys.stderr, flush=True)
    print("| stage, undisturbed | " + " | ".join(TITLES[part] for part in parts) + " |")
    print("| --- " * (len(parts) + 1) + "|")
    print("\n".join(rows))
    if not options.work:
        shutil.rmtree(root)
    return int(bool(failures))


def _seconds(bench: Bench, stage: str) -> float:
    work = bench.start_of(stage, bench.root / "timed")
    start = time.monotonic()
    bench.finish(stage, work)
    return time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())

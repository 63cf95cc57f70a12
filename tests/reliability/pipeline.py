"""Kill the whole pipeline at random moments, run it again, and count how often the result is not the undisturbed one.

    python -m tests.reliability.pipeline [--times 5] [--kills 3] [--seed 0]

Each time, scripts/pipeline.sh starts on an empty folder and is killed (kill -9, all its processes) some times at random
moments; then it runs to its end. What it wrote must be, byte for byte, what a run writes that nobody disturbed (times
and the page of the report left out), and one more run must make nothing again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.reliability.digests import RECORDS, digests
from tests.reliability.stages import SIZES, Bench
from utils.paths import PROJECT

ROW = "rendered_rgb"
MADE_AGAIN = ("report", "class_distribution", "scene_distribution", "window_coverage", "sh_classes", "statistics.json")


class Pipeline:
    """The pipeline over generated rooms, each run in a folder of its own."""

    def __init__(self, root: Path):
        self._root, self._bench = root, Bench(root)
        root.mkdir(parents=True, exist_ok=True)
        self._bench.finish("synthesize", root / "ready")
        self._config = root / "small.gin"
        others = ("synthesize", "search", "ROW", "RoomOptions", "PictureOptions")
        lines = [line for line in SIZES if not line.startswith(others)]
        self._config.write_text("\n".join(lines) + "\n")

    def start(self, work: Path) -> subprocess.Popen:
        """A run as a process group of its own."""
        with open(self._root / "pipeline.log", "a") as log:
            command = ["bash", str(PROJECT / "scripts" / "pipeline.sh"), str(self._bench.data), str(work),
                       str(self._config), ROW]  # fmt: skip
            environment = {**os.environ, "VIRTUAL_ENV": str(Path(sys.executable).parent.parent)}
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def finish(self, work: Path) -> float:
        """Run to the end; returns the seconds. Raises :class:`SystemExit` where that fails."""
        began = time.monotonic()
        if code := self.start(work).wait():
            text = (self._root / "pipeline.log").read_text()
            sys.exit(f"the pipeline ended with {code}:\n{text[-2000:]}")
        return time.monotonic() - began

    def disturbed(self, work: Path, moments: list[float]) -> None:
        """Start and kill it after each of some seconds, then finish."""
        for seconds in moments:
            run = self.start(work)
            try:
                run.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
        self.finish(work)


def compared(work: Path) -> dict[str, str]:
    """Digests without the report, which tells when and how long, and without the identity of the tested checkpoint's
    file, which holds times too: checkpoints are compared tensor by tensor.
    """
    found = {name: digest for name, digest in digests(work).items() if not name.startswith("report")}
    for path in work.glob("runs/*/test/scores/settings.json"):
        settings = {key: value for key, value in json.loads(path.read_text()).items() if key != "checkpoint"}
        found[str(path.relative_to(work))] = json.dumps(settings, sort_keys=True).replace(str(work), "WORK")
    return found


def states(work: Path) -> dict[str, tuple[int, int]]:
    """Which file each output is, and when it was written; of those that a run without work leaves alone."""
    return {str(path.relative_to(work)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in work.rglob("*")
            if path.is_file() and path.name not in RECORDS and not any(part in str(path) for part in MADE_AGAIN)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--kills", type=int, default=3, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, wrong = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory(prefix="pipeline") as folder:
        root = Path(folder)
        pipeline, work = Pipeline(root), root / "work"  # always of one name, which some outputs hold
        seconds = pipeline.finish(work)
        expected = compared(work)
        print(f"undisturbed: {seconds:.0f} s, {len(expected)} files", flush=True)
        for number in range(options.times):
            shutil.rmtree(work)
            moments = [rng.uniform(0.02, 0.9) * seconds for _ in range(options.kills)]
            pipeline.disturbed(work, moments)
            found = compared(work)
            different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            before = states(work)
            pipeline.finish(work)
            again = [name for name, state in states(work).items() if before.get(name) != state]
            wrong += bool(different or again)
            killed = ", ".join(f"{moment:.0f} s" for moment in moments)
            print(f"{number}: killed after {killed}: {len(different)} files differ, {len(again)} were made again "
                  f"{(different + again)[:3] or ''}", flush=True)
    print(f"the pipeline, killed and run again: {options.times - wrong} of {options.times} as if undisturbed")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

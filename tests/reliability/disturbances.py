"""Ways to disturb a run. Each returns the words of what went wrong, or None."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.reliability.digests import differences, digests
from tests.reliability.stages import Bench

IMPORTS = 3.0  # seconds at least before there is something to disturb
LIMIT = 300.0
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def killed_and_resumed(bench: Bench, stage: str, number: int, seconds: float, rng: random.Random) -> str | None:
    """kill -9 at a random moment, every third time twice; then ``--resume``: the bytes of an undisturbed run."""
    work, log = bench.start_of(stage, bench.root / "kill" / f"{stage}{number}"), bench.root / "logs/kill.log"
    for _ in range(2 if number % 3 == 2 else 1):
        run = bench.start(stage, work, log, resume=True)
        _wait(run, rng.uniform(min(IMPORTS, 0.5 * seconds), seconds))
        _kill(run)
    return _completed(bench, stage, work, log)


def killed_with_workers(bench: Bench, stage: str, number: int, seconds: float, rng: random.Random) -> str | None:
    """kill -9 of a run with two workers at a random moment, all its processes or only the one that started them; then
    ``--resume`` with as many, at once: the bytes of an undisturbed run in one process."""
    work, log = bench.start_of(stage, bench.root / "workers" / f"{stage}{number}"), bench.root / "logs/workers.log"
    extra = ["SceneWorkers.count = 2"]
    run = bench.start(stage, work, log, resume=True, extra=extra)
    _wait(run, rng.uniform(min(IMPORTS, 0.5 * seconds), 1.5 * seconds))  # workers take as long again to start
    if number % 2:
        run.kill()
        run.wait()
    else:
        _kill(run)
    reason = _completed(bench, stage, work, log, extra)
    return reason or (f"processes left: {left}" if (left := _group(run.pid)) else None)


def twins(bench: Bench, stage: str, number: int, seconds: float, rng: random.Random) -> str | None:
    """Two runs on one folder: one is refused by name or waits its turn, and the result is that of one run."""
    work, log = bench.start_of(stage, bench.root / "twins" / f"{stage}{number}"), bench.root / "logs"
    logs = [log / f"twin{k}.log" for k in range(2)]
    for path in logs:
        path.unlink(missing_ok=True)
    runs = [bench.start(stage, work, logs[0])]
    time.sleep(rng.uniform(0, 0.3 * seconds))
    runs.append(bench.start(stage, work, logs[1]))
    codes = [run.wait(LIMIT) for run in runs]
    for code, path in zip(codes, logs, strict=True):
        if code not in (0, 2) or (code == 2 and "is being written by process" not in path.read_text()):
            return f"a twin ended with {code}: {_last_line(path)}"
        if "Traceback" in path.read_text():
            return "a twin ended with a traceback"
    if codes == [2, 2]:
        return "both were refused"
    return _same(bench, stage, work)


def signalled(bench: Bench, stage: str, number: int, seconds: float, rng: random.Random) -> str | None:
    """A signal at a random moment: its exit code, the sentence how to go on, nobody left; then the same bytes."""
    work, log = bench.start_of(stage, bench.root / "signal" / f"{stage}{number}"), bench.root / "logs/signal.log"
    log.unlink(missing_ok=True)
    which = list(SIGNALS)[number % len(SIGNALS)]
    run = bench.start(stage, work, log)
    if _wait(run, rng.uniform(IMPORTS, max(IMPORTS, 0.9 * seconds))):
        return None if run.returncode == 0 else f"it ended by itself with {run.returncode}"
    run.send_signal(which)
    code = run.wait(60)
    if code not in (SIGNALS[which], -which, 0):
        return f"{which.name}: exit code {code}, expected {SIGNALS[which]}"
    text = log.read_text()
    if "Traceback" in text or (code == SIGNALS[which] and "--resume" not in text):
        return f"{which.name}: no sentence how to go on: {_last_line(log)}"
    time.sleep(0.5)
    if left := _group(run.pid):
        return f"{which.name}: processes left: {left}"
    return _completed(bench, stage, work, log)


def worker_killed(bench: Bench, stage: str, number: int, seconds: float, rng: random.Random) -> str | None:
    """kill -9 of one of two workers, on this machine's processes or in Ray: its scene is done again, the same bytes."""
    work, log = bench.start_of(stage, bench.root / "worker" / f"{stage}{number}"), bench.root / "logs/worker.log"
    log.unlink(missing_ok=True)
    on_ray = number % 2 == 1
    extra = ["SceneWorkers.count = 2", *(["SceneWorkers.address = 'local'"] if on_ray else [])]
    run = bench.start(stage, work, log, extra=extra)
    deadline = time.monotonic() + LIMIT
    while not (workers := _workers(run.pid, on_ray)) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    _wait(run, rng.uniform(0, 0.5 * seconds))
    workers = [worker for worker in workers if worker in _workers(run.pid, on_ray)]
    if workers:
        os.kill(rng.choice(workers), signal.SIGKILL)
    code = run.wait(LIMIT)
    if code:
        return f"with a worker killed it ended with {code}: {_last_line(log)}"
    return _same(bench, stage, work)


def full_disk(bench: Bench, stage: str, number: int, seconds: float, rng: random.Random) -> str | None:
    """A disk of a share of what is written, in memory or on a loop device; then room is made: the same bytes."""
    need = sum(path.stat().st_size for path in (bench.root / "undisturbed" / stage).rglob("*") if path.is_file())
    share = (0.15, 0.4, 0.65, 0.9)[number % 4]
    mount, log = bench.root / "disk", bench.root / "logs/disk.log"
    log.unlink(missing_ok=True)
    start = bench.start_of(stage, bench.root / "full" / stage)
    before = sum(path.stat().st_size for path in start.rglob("*") if path.is_file())
    size = int(before * 1.1 + share * (need - before)) + (256 << 10)
    with _Disk(mount, size, loop=number % 2 == 1) as disk:
        shutil.copytree(start, mount / "work", dirs_exist_ok=True)
        work = mount / "work"
        code = bench.start(stage, work, log).wait(LIMIT)
        text = log.read_text()
        if code == 0:
            return None if not differences(work, _expected(bench, stage)) else "it ended with 0, incomplete"
        if code != 2 or "Traceback" in text or str(mount) not in _last_line(log):
            return f"exit code {code}: {_last_line(log)}"
        disk.grow(2 * need + (64 << 20))
        return _completed(bench, stage, work, log)


class _Disk:
    """A small file system at a folder, in memory or in a file."""

    def __init__(self, folder: Path, size: int, loop: bool):
        self._folder, self._size, self._loop = folder, size, loop
        self._image = folder.with_suffix(".img")

    def __enter__(self) -> _Disk:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._loop:
            self._resize(max(self._size + (2 << 20), 4 << 20))  # ext4's own
            _call("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", self._image)
            _call("mount", "-o", "loop", self._image, self._folder)
        else:
            _call("mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", self._folder)
        return self

    def grow(self, size: int) -> None:
        """Make room, with everything where it is."""
        if self._loop:
            _call("umount", self._folder)  # growing a mounted one is not allowed everywhere
            self._resize(size)
            subprocess.run(["e2fsck", "-f", "-y", self._image], capture_output=True)  # 1 where it mended something
            _call("resize2fs", self._image)
            _call("mount", "-o", "loop", self._image, self._folder)
        else:
            _call("mount", "-o", f"remount,size={size}", self._folder)

    def _resize(self, size: int) -> None:
        with open(self._image, "ab") as file:
            file.truncate(size)

    def __exit__(self, *_: object) -> None:
        _call("umount", self._folder)
        self._image.unlink(missing_ok=True)


def _call(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def can_mount(folder: Path) -> bool:
    """Whether this user may mount."""
    try:
        with _Disk(folder, 1 << 20, loop=False):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _completed(bench: Bench, stage: str, work: Path, log: Path, extra: Sequence[str] = ()) -> str | None:
    code = bench.start(stage, work, log, resume=True, extra=extra).wait(LIMIT)
    if code:
        return f"resuming ended with {code}: {_last_line(log)}"
    left = [path.name for path in work.rglob("*") if re.search(r"\.(partial|tmp)", path.name)]
    return f"temporary files are left: {', '.join(left[:3])}" if left else _same(bench, stage, work)


def _same(bench: Bench, stage: str, work: Path) -> str | None:
    different = differences(work, _expected(bench, stage))
    return f"{len(different)} outputs differ, such as {different[0]}" if different else None


def _expected(bench: Bench, stage: str) -> dict[str, str]:
    return digests(bench.root / "undisturbed" / stage)


def _wait(run: subprocess.Popen, seconds: float) -> bool:
    """Whether it ended by itself within that time."""
    try:
        run.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


def _kill(run: subprocess.Popen) -> None:
    try:
        os.killpg(run.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    run.wait()


def _group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def _workers(driver: int, on_ray: bool) -> list[int]:
    """Processes that work on scenes for ``driver``, by how they call themselves."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if command.startswith(b"ray::_work_in_ray") if on_ray else (
            parent == driver and b"spawn_main" in command
        ):  # fmt: skip
            found.append(int(entry.name))
    return found


def _last_line(log: Path) -> str:
    lines = log.read_text().strip().splitlines()
    return lines[-1][:300] if lines else "(no output)"

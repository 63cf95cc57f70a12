"""What stages cost a scene, and whether that stays the same with more scenes or longer ones.

    python benchmarks/scale.py --runs 8x16 32x16          # scenes x frames, on this machine's CPU
    python benchmarks/scale.py --runs 1x100 1x3000        # peak memory of short and long scenes

One generated room is written as ScanNet's download (a .sens stream and meshes), repeated to as many frames and scenes
as asked for, and goes through the stages' own commands. Printed are a scene's seconds, the seconds that cores were at
work (which other programs on the machine change less), megabytes read and written by the program (from the page cache
too), and the peak memory of the process. ``verify`` is run twice: the second time nothing has changed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
ROOM = ["RoomOptions.edge = 0.12", "RoomOptions.types = ('bathroom',)", "PictureOptions.frames = 16",
        "PictureOptions.size = (72, 96)", "synthesize.rooms = 1"]  # fmt: skip
FIT = ["FitGrid.resolutions = (32,)", "FitOptimization.steps = (40,)", "FitOptimization.rays_per_step = (500,)",
       "FitPoses.rounds = 0"]  # fmt: skip
STAGES = {"extract": [], "fit": [*FIT, "DEVICE = 'cpu'"], "render": ["DEVICE = 'cpu'", "SIZE = (60, 80)"],
          "annotate": ["DEVICE = 'cpu'"], "analyze": [], "verify": ["verify.workers = 1"],
          "verify again": ["verify.workers = 1"]}  # fmt: skip
_RUN = """import sys, run
code = run.main(sys.argv[1:])
print(open('/proc/self/io').read(), file=sys.stderr)
sys.exit(code)"""


@dataclass(frozen=True)
class Cost:
    """Of one stage, all scenes together."""

    seconds: float
    core_seconds: float
    read: int  # bytes
    written: int
    peak: int  # bytes of memory

    def row(self, stage: str, scenes: int) -> str:
        """A table's row, of one scene."""
        return (f"| {stage} | {self.seconds / scenes:.2f} | {self.core_seconds / scenes:.2f} | "
                f"{self.read / scenes / 1e6:.2f} | {self.written / scenes / 1e6:.2f} | {self.peak / 1e6:.0f} |")


def run_stage(name: str, data: Path, work: Path, bindings: list[str]) -> Cost:
    """Run a stage's command; raises :class:`SystemExit` with its output where it fails."""
    words = [name, *(word for line in (f"DATA = '{data}'", f"WORK = '{work}'", *bindings) for word in ("--ginb", line))]
    start = time.perf_counter()
    log = work / f"{name}.log"
    with open(log, "w") as file:
        process = subprocess.Popen([sys.executable, "-c", _RUN, *words], cwd=PROJECT, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text()
    if process.returncode:
        sys.exit(f"{name} ended with {process.returncode}:\n{text[-2000:]}")
    counted = {key: int(re.search(rf"^{key}: (\d+)", text, re.MULTILINE)[1]) for key in ("rchar", "wchar")}
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, counted["rchar"], counted["wchar"],
                usage.ru_maxrss * 1024)  # fmt: skip


def write_downloads(room: Path, folder: Path, scenes: int, frames: int) -> None:
    """``folder/SCENE/SCENE.sens`` with the room's frames again and again, and its meshes, for every scene."""
    first = folder / "scene0000_00" / "scene0000_00.sens"
    first.parent.mkdir(parents=True)
    write_stream(room, first, frames)
    for number in range(scenes):
        name = f"scene{number:04d}_00"
        (folder / name).mkdir(exist_ok=True)
        if number:
            os.link(first, folder / name / f"{name}.sens")
        for mesh in room.glob("*_vh_clean_2*.ply"):
            shutil.copy(mesh, folder / name / mesh.name.replace(room.name, name))


def write_stream(room: Path, path: Path, frames: int) -> None:
    """A stream of ``frames`` frames, version 4, JPEG and zlib."""
    matrix = {name: np.loadtxt(room / "intrinsic" / f"{name}.txt") for name in ("intrinsic_color", "intrinsic_depth")}
    images = sorted((room / "color").iterdir(), key=lambda file: int(file.stem))
    width, height = Image.open(images[0]).size
    depth = [np.asarray(Image.open(room / "depth" / f"{image.stem}.png")).astype("<u2") for image in images]
    poses = [np.loadtxt(room / "pose" / f"{image.stem}.txt") for image in images]
    with open(path, "wb") as stream:
        stream.write(struct.pack("<IQ", 4, 9) + b"Structure")
        for values in (matrix["intrinsic_color"], np.eye(4), matrix["intrinsic_depth"], np.eye(4)):
            stream.write(np.ascontiguousarray(values, "<f4").tobytes())
        stream.write(struct.pack("<2i4IfQ", 2, 1, width, height, depth[0].shape[1], depth[0].shape[0], 1000.0, frames))
        for frame in range(frames):
            index = frame % len(images)
            color, coded = images[index].read_bytes(), zlib.compress(depth[index].tobytes())
            stream.write(poses[index].astype("<f4").tobytes())
            stream.write(struct.pack("<4Q", frame, frame, len(color), len(coded)) + color + coded)


def measure(room: Path, folder: Path, scenes: int, frames: int) -> dict[str, Cost]:
    """All stages, one after the other."""
    data, work = folder / "data", folder / "work"
    work.mkdir(parents=True)
    write_downloads(room, data / "sens", scenes, frames)
    costs = {}
    for stage, bindings in STAGES.items():
        if stage == "verify":
            time.sleep(3)  # what changed a moment ago is not remembered
        costs[stage] = run_stage(stage.split()[0], data, work, bindings)
        print(costs[stage].row(stage, scenes), flush=True)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=["8x16", "32x16"], metavar="SCENESxFRAMES")
    parser.add_argument("--folder", type=Path, help="where scenes are made; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder)
        (root / "template").mkdir()
        run_stage("synthesize", root / "template", root / "template", ROOM)
        for run in options.runs:
            scenes, frames = map(int, run.split("x"))
            print(f"\n{scenes} scenes of {frames} frames; of one scene:\n\n"
                  "| stage | seconds | seconds of cores | MB read | MB written | peak MB |\n"
                  "| --- | --- | --- | --- | --- | --- |", flush=True)
            measure(next((root / "template" / "scans").iterdir()), root / run, scenes, frames)
            shutil.rmtree(root / run)


if __name__ == "__main__":
    main()

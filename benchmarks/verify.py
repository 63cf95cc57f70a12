"""How long ``verify`` takes over many scenes: at first, and when nothing, or one scene, has changed since.

    python benchmarks/verify.py --scenes 300 --frames 16              # small pictures
    python benchmarks/verify.py --scenes 20 --frames 16 --full        # of ScanNet's sizes
    python benchmarks/verify.py --scenes 1513 --complete --workers 0  # scans, fields and view stores, on all cores

Scenes are hard links to one generated room's frames, so they take no room, and are read from the page cache. With
--complete, so are their fields and annotated view stores, and report.json must call every scene sound. The last
column reckons 1513 scenes of 1,650 frames (ScanNet's training and validation scans) from the seconds that a core was
at work for a frame, in one process; divide it by the number of workers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from scale import ROOM, STAGES, Cost, run_stage  # noqa: E402

ALL_SCENES, ALL_FRAMES = 1513, 1650
COLOR, DEPTH = (1296, 968), (640, 480)


def enlarge(room: Path) -> None:
    """Pictures of ScanNet's sizes: colour with a sensor's noise, so that JPEG has as much to code, and depth."""
    for path in (room / "color").iterdir():
        picture = Image.open(path).convert("RGB").resize(COLOR)
        Image.blend(picture, Image.effect_noise(COLOR, 64).convert("RGB"), 0.1).save(path, quality=90)
    for path in (room / "depth").iterdir():
        Image.open(path).resize(DEPTH, Image.Resampling.NEAREST).save(path)
    for name, size in (("color", COLOR), ("depth", DEPTH)):
        path = room / "intrinsic" / f"intrinsic_{name}.txt"
        rows = [[float(number) for number in line.split()] for line in path.read_text().splitlines()]
        factor = size[0] / float(rows[0][2]) / 2
        rows[:2] = [[number * factor for number in row] for row in rows[:2]]
        path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))


def link_scenes(room: Path, scans: Path, scenes: int, frames: int) -> None:
    """Scenes of the room's first frames, again and again."""
    colors = sorted((room / "color").iterdir(), key=lambda path: int(path.stem))
    for number in range(scenes):
        scene = scans / f"scene{number:04d}_00"
        for name in ("color", "depth", "pose", "intrinsic"):
            (scene / name).mkdir(parents=True)
        for frame in range(frames):
            source = colors[frame % len(colors)]
            os.link(source, scene / "color" / f"{frame}{source.suffix}")
            for name, suffix in (("depth", ".png"), ("pose", ".txt")):
                os.link(room / name / f"{source.stem}{suffix}", scene / name / f"{frame}{suffix}")
        for path in [*(room / "intrinsic").iterdir(), *room.glob("*.ply")]:
            os.link(path, scene / path.relative_to(room).parent / path.name.replace(room.name, scene.name))


def link_fields_and_views(root: Path, scenes: int) -> None:
    """The first scene's field and annotated views, made by the stages' own commands, for every scene."""
    data, work = root / "data", root / "work"
    first = "scene0000_00"
    for stage in ("fit", "render", "annotate"):
        run_stage(stage, data, work, [*STAGES[stage], f"SCENES = ['{first}']"])
    for folder in (work / "fields" / f"plenoxel_scannet_{first}", work / "views" / "original" / first):
        for number in range(1, scenes):
            _link_as(folder, f"scene{number:04d}_00", first)


def _link_as(folder: Path, name: str, first: str) -> None:
    """The folder for another scene: text files name it instead of the first one, all others are hard links."""
    target = folder.with_name(folder.name.replace(first, name))
    shutil.copytree(folder, target, copy_function=os.link)
    for path in target.rglob("*.json"):
        text = path.read_text()
        if first in text:
            path.unlink()  # its link, not the file
            path.write_text(text.replace(first, name))


def check_report(path: Path, scenes: int) -> None:
    """Raise :class:`SystemExit` unless all scenes were found, and all of them sound."""
    found = json.loads(path.read_text())
    sound = sum(scene["status"] == "sound" for scene in found["scenes"].values())
    if sound != scenes:
        sys.exit(f"{path}: {sound} of {scenes} scenes are sound: {found['counts']}")


def row(what: str, cost: Cost, one: Cost, scenes: int, frames: int) -> str:
    """A table's row; what one scene takes, most of it the command's start, does not count to the others' frames."""
    each = max(cost.core_seconds - one.core_seconds, 0.0) / ((scenes - 1) * frames)
    return (f"| {what} | {cost.seconds:.1f} | {cost.core_seconds:.1f} | {1000 * each:.2f} | "
            f"{each * ALL_SCENES * ALL_FRAMES / 3600:.2f} | {cost.peak / 1e6:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--full", action="store_true", help="pictures of ScanNet's sizes")
    parser.add_argument("--complete", action="store_true", help="fields and view stores, too")
    parser.add_argument("--workers", type=int, default=1, help="verify.workers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "template").mkdir()
        run_stage("synthesize", root / "template", root / "template", ROOM)
        room = next((root / "template" / "scans").glob("scene*"))
        if options.full:
            enlarge(room)
        link_scenes(room, root / "data" / "scans", options.scenes, options.frames)
        (root / "work").mkdir()
        if options.complete:
            link_fields_and_views(root, options.scenes)
        time.sleep(3)  # what changed a moment ago is not remembered
        bindings = [f"verify.workers = {options.workers}", f"verify.min_frames = {options.frames}"]
        print(f"{options.scenes} scenes of {options.frames} frames\n\n| | seconds | seconds of a core | ms a frame | "
              "hours of a core for all of ScanNet | peak MB of a process |\n| --- | --- | --- | --- | --- | --- |")
        one = run_stage("verify", root / "data", root / "work", [
            *bindings, "SCENES = ['scene0000_00']", "verify.results_dir = ''"])  # fmt: skip
        for what, further in (("first", []), ("unchanged", []), ("one scene changed", []),
                              ("headers only", ["verify.read_images = False"])):  # fmt: skip
            if what == "one scene changed":
                (root / "data" / "scans" / "scene0000_00" / "note").write_text("new")
            cost = run_stage("verify", root / "data", root / "work", [*bindings, *further])
            print(row(what, cost, one, options.scenes, options.frames), flush=True)
            if options.complete:
                check_report(root / "work" / "verify" / "report.json", options.scenes)


if __name__ == "__main__":
    main()

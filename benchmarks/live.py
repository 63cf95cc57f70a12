"""What a live training takes: views from scans on disk, stored or live, and the memory of any number of scenes."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import torch

from benchmarks.live_scans import write_scan
from dataloader import load_scene
from dataloader.perfception import FIELD_PREFIX
from enet.jitter import JitteredPoses
from enet.live_options import data
from enet.live_scenes import choose_live
from enet.live_views import LiveViews
from enet.options import AugmentationOptions, SplitOptions, ViewOptions
from enet.resident_scenes import ResidentScenes
from enet.stored_views import StoredViews
from enet.view_source import ViewSource
from model.annotated_field import AnnotatedField, needed_bytes
from model.task_annotate import annotate
from model.task_render import render

SOURCES = ("stored", "live", "jittered")
_LINES = 8  # of the table of memory


def scan_names(rooms: int) -> list[str]:
    """Of so many scans."""
    return [f"scene{room:04d}_00" for room in range(rooms)]


def make_scans(folder: Path, arguments: argparse.Namespace, size: tuple[int, int]) -> None:
    """Scans, fields, and the stores that 'render' and 'annotate' make of them."""
    for seed, name in enumerate(scan_names(arguments.rooms)):
        write_scan(folder, name, arguments.views // arguments.rooms, seed, arguments.faces, arguments.resolution)
    scans, views = str(folder / "scans"), str(folder / "views")
    render(scans, str(folder / "fields"), views, size=size)
    annotate(scans, views)


def open_views(
    source: str, folder: Path, uses_sh: bool, augmentation: AugmentationOptions, size: tuple[int, int], resident: float
) -> ViewSource:
    """All views of a folder's scans, by one of :data:`SOURCES`."""
    names = sorted(path.name for path in (folder / "scans").iterdir())
    if source == "stored":
        return StoredViews([folder / "views" / name for name in names], ViewOptions(), uses_sh, augmentation)
    options = data(source="live", fields_dir=str(folder / "fields"), scans_dir=str(folder / "scans"), size=size,
                   resident=resident)  # fmt: skip
    # One of the scans has to validate; its views are trained on as well, as those of the stores are.
    chosen = choose_live(options, SplitOptions(train_scenes=names[1:], val_scenes=names[:1]), seed=0)
    poses = JitteredPoses() if source == "jittered" else None
    return LiveViews([*chosen.validation, *chosen.training], options, ViewOptions(), uses_sh, augmentation, poses=poses)


def peak_gigabytes() -> float:
    """That this process has taken: of the GPU's memory, or of the machine's where there is no GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def measure_memory(folder: Path, scenes: int, arguments: argparse.Namespace) -> None:
    """Print what ``scenes`` scenes take on the device, all of them copies of one that is read again and again."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    (name,) = scan_names(1)
    write_scan(folder, name, 8, 0, arguments.faces, arguments.resolution)
    field, scan = folder / "fields" / f"{FIELD_PREFIX}{name}", load_scene(folder / "scans" / name)
    loaded = ResidentScenes(lambda _: AnnotatedField.load(field, scan, "majority", device), arguments.resident * 1e9)
    need = needed_bytes(field, scan.label_mesh_path)
    print(f"{scenes} scenes of {need / 1e6:.0f} MB each as planned, {arguments.resident:g} GB for all")
    print(f"{'scenes':>7} {'few bytes GB':>13} {'ready':>6} {'ready GB':>9} {'peak GB':>8} {'ms a scene':>11}")
    marks = {scenes * part // _LINES for part in range(1, _LINES + 1)}
    started, since = time.perf_counter(), 0
    for number in range(scenes):
        loaded[number]  # noqa: B018
        if number + 1 in marks:
            _synchronize(device)
            milliseconds = 1e3 * (time.perf_counter() - started) / (number + 1 - since)
            few, ready = loaded.compact_bytes / 1e9, loaded.ready_bytes / 1e9
            print(f"{number + 1:7d} {few:13.2f} {len(loaded.names):6d} {ready:9.2f} {peak_gigabytes():8.2f} "
                  f"{milliseconds:11.1f}", flush=True)  # fmt: skip
            started, since = time.perf_counter(), number + 1
    _measure_unpacking(loaded, scenes, device)


def _measure_unpacking(loaded: ResidentScenes, scenes: int, device: torch.device) -> None:
    before, started = (loaded.unpacked, loaded.reads), time.perf_counter()
    absent = [number for number in range(scenes) if number not in loaded.names][:50]
    for number in absent:
        loaded[number]  # noqa: B018
    _synchronize(device)
    seconds = time.perf_counter() - started
    if absent:
        print(f"visiting {len(absent)} others: {loaded.unpacked - before[0]} made ready from few bytes, "
              f"{loaded.reads - before[1]} read again, {1e3 * seconds / len(absent):.1f} ms each")  # fmt: skip


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

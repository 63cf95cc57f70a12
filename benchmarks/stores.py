"""How fast stored views are read: through a memory map, by position, and by position from a divided store.

    python benchmarks/stores.py [--views 3000] [--processes 2] [--rounds 5]

Views of 124x124 with colour, SH in 8 bits and label, in random order, in batches of 32. The map's numbers are only
copied; by position they are read and checked as training does. Each round times all ways, one after the other, so that
a busy machine is busy for all; printed are median rates, by the clock and by the time that cores were at work, and the
ratio of the latter to the memory map's. The files are in the page cache, unless they are larger than memory: what is
measured is the cost of reading, not the disk.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import gin
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataloader import CameraList, ViewDataset, ViewStore, ViewStoreWriter, add_channel  # noqa: E402

SIZE, BATCH = (124, 124), 32
CHANNELS = ("rgb", "sh", "label")


def make_store(path: Path, views: int) -> None:
    """A store of random numbers."""
    poses = torch.eye(4, dtype=torch.float64).expand(views, 4, 4)
    cameras = CameraList(path.name, [str(view) for view in range(views)], poses, torch.eye(3).double(), SIZE)
    described = {"rgb": ("uint8", (3, *SIZE)), "sh": ("uint8", (27, *SIZE))}
    writer = ViewStoreWriter.create(path, cameras, described, {}, torch.tensor([[-1.0, 1.0]]).expand(27, 2))
    for part in torch.arange(views).split(256):
        writer.write(part, {name: torch.randint(256, (len(part), *shape), dtype=torch.uint8)
                            for name, (_, shape) in described.items()})  # fmt: skip
    writer.finish()
    add_channel(path, "label", lambda labels: labels.fill(1))


def read_mapped(path: Path, order: np.ndarray) -> None:
    """Batches from memory maps of the channels' files, copied, since training changes and sends them."""
    arrays = [np.load(ViewStore(path).files(name)[0], mmap_mode="r") for name in CHANNELS]
    for batch in np.split(order, range(BATCH, len(order), BATCH)):
        for array in arrays:
            torch.from_numpy(array[batch])


@functools.cache
def _opened(path: Path) -> ViewDataset:
    return ViewDataset([path], "rgb+sh")


def read_by_position(path: Path, order: np.ndarray) -> None:
    """Batches as training reads them."""
    dataset = _opened(path)
    for batch in torch.from_numpy(order).split(BATCH):
        dataset.stored_batch(batch)


def timed(read: Callable[[Path, np.ndarray], None], path: Path, order: np.ndarray) -> float:
    """In a process: the seconds of a core that reading takes, whoever else uses the machine."""
    start = time.process_time()
    read(path, order)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the store is made; a temporary folder by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        one, many = Path(folder) / "one", Path(folder) / "many"
        make_store(one, options.views)
        gin.bind_parameter("StoreOptions.shard_gigabytes", 0.1)
        make_store(many, options.views)
        all_bytes = sum(path.stat().st_size for name in CHANNELS for path in ViewStore(one).files(name))
        ways = {"memory map": (read_mapped, one), "by position": (read_by_position, one),
                f"by position, {len(ViewStore(many).files('sh'))} files": (read_by_position, many)}  # fmt: skip
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        generator = np.random.default_rng(0)
        with ProcessPoolExecutor(options.processes) as pool:
            for number in range(options.rounds + 1):
                order = generator.permutation(options.views)
                for way, (read, path) in ways.items():
                    start = time.perf_counter()
                    cores = sum(pool.map(partial(timed, read, path), np.array_split(order, options.processes)))
                    if number:  # the first fills the page cache
                        times[way].append((time.perf_counter() - start, cores))
    view, sh = all_bytes / options.views / 1e6, 27 * SIZE[0] * SIZE[1] / 1e6
    print(f"{options.views} views of {view:.2f} MB (SH: {sh:.2f}), "
          f"{options.processes} processes, {options.rounds} rounds")
    for way, taken in times.items():
        wall, cores = (statistics.median(column) for column in zip(*taken, strict=True))
        pairs = zip(times["memory map"], taken, strict=True)
        ratio = statistics.median(first / each for (_, first), (_, each) in pairs)
        print(f"{way:28s} {options.views / wall:8.0f} views/s, {options.views / cores:8.0f} a core's second "
              f"({ratio:.2f} of the memory map's)")


if __name__ == "__main__":
    main()

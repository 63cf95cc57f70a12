"""Training speed end to end: views, augmentation, network, loss, optimiser and training IoU.

    python benchmarks/train.py                          # all variants for this machine, one process each
    python benchmarks/train.py --variant rgb bf16 graph   # one variant: stem, precision, and how steps run
    python benchmarks/train.py --together 4             # four runs at a time on one device
    python benchmarks/train.py --rooms 8                # stored beside live views of the same scans
    python benchmarks/train.py --rooms 8 --resident 1   # these in 1 GB: scenes come and go
    python benchmarks/train.py --scenes 1513            # memory of so many scenes, nothing is trained

Steps run as "graph" (recorded once, replayed as one CUDA graph, as the train task does on one GPU) or "eager" (kernels
launched one by one). A run goes through the same code as the train task, from a cached store of random views; with
--rooms, from views of made-up scans of real size (benchmarks/live_scans.py), their fields of random numbers.

"first" are the seconds from the start of Python to the end of the first step; "million" those to a million images at
the rate of whole epochs after the first; GB is the most memory that was taken (without a GPU, by the whole process);
busy is the share of the time in which the GPU computes or copies, from a profile of 20 steps; the loss is that of the
last epoch, for comparing variants. Each variant runs in its own process.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.live import SOURCES, make_scans, measure_memory, open_views, peak_gigabytes  # noqa: E402
from dataloader import CameraList, ViewStoreWriter  # noqa: E402
from enet.data_module import SegmentationDataModule  # noqa: E402
from enet.lightning import pl  # noqa: E402
from enet.module import SegmentationModule  # noqa: E402
from enet.options import AugmentationOptions, ViewOptions  # noqa: E402
from enet.statistics import compute_statistics  # noqa: E402
from enet.stored_views import StoredViews  # noqa: E402
from enet.training import PRECISIONS  # noqa: E402

SIZE = (124, 124)
PROFILE_FROM, PROFILE_WARMUP, PROFILE_STEPS = 3, 3, 20  # of the last epoch's steps
GPU_VARIANTS = [
    (stem, precision, mode)
    for stem in ("rgb", "conv_sum")
    for precision in ("bf16", "32")
    for mode in ("graph", "eager")
]
CPU_VARIANTS = [(stem, precision, "eager") for precision in ("32", "bf16") for stem in ("rgb", "conv_sum")]


def make_store(folder: Path, views: int) -> Path:
    """A store of random views with piecewise constant labels."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.eye(4, dtype=torch.float64).expand(views, 4, 4)
    intrinsics = torch.tensor([[100.0, 0, 62], [0, 100, 62], [0, 0, 1]], dtype=torch.float64)
    cameras = CameraList("random", [str(view) for view in range(views)], poses, intrinsics, SIZE)
    channels = {"rgb": ("uint8", (3, *SIZE)), "sh": ("uint8", (27, *SIZE)), "label": ("uint8", SIZE)}
    writer = ViewStoreWriter.create(
        folder / "random", cameras, channels, {}, sh_range=torch.tensor([[-1.0, 1.0]]).expand(27, 2),
        attributes={"T": torch.eye(4).tolist()},
    )  # fmt: skip
    blocks = torch.randint(21, (views, 4, 4), generator=generator, dtype=torch.uint8)
    for start in range(0, views, 50):
        chosen = range(start, min(start + 50, views))
        images = torch.randint(256, (len(chosen), 30, *SIZE), generator=generator, dtype=torch.uint8)
        label = blocks[start : start + 50].repeat_interleave(31, 1).repeat_interleave(31, 2)
        writer.write(chosen, {"rgb": images[:, :3], "sh": images[:, 3:], "label": label})
    return writer.finish().path


class Stopwatch(pl.Callback):
    """Seconds of each epoch, and in the last one a profile of a few steps."""

    def __init__(self, profile_to: Path | None):
        self.seconds: list[float] = []
        self.first = float("nan")
        self.busy = float("nan")
        self._profile_to = profile_to
        self._profiler: torch.profiler.profile | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _synchronize()
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _synchronize()
        self.seconds.append(time.perf_counter() - self._start)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx: int
    ) -> None:
        if trainer.current_epoch == batch_idx == 0:
            _synchronize()
            self.first = time.time()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        if trainer.current_epoch < trainer.max_epochs - 1 or not torch.cuda.is_available():
            return
        if batch_idx == PROFILE_FROM:
            _synchronize()
            self._profiler = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CUDA],
                schedule=torch.profiler.schedule(wait=0, warmup=PROFILE_WARMUP, active=PROFILE_STEPS),
                on_trace_ready=self._read_profile,
            )
            self._profiler.start()
        elif self._profiler is not None:
            self._profiler.step()
            if batch_idx == PROFILE_FROM + PROFILE_WARMUP + PROFILE_STEPS:
                self._profiler.stop()
                self._profiler = None

    def _read_profile(self, profiler: torch.profiler.profile) -> None:
        gpu = torch.autograd.DeviceType.CUDA
        on_gpu = [event.time_range for event in profiler.events() if event.device_type == gpu]
        self.busy = _covered(on_gpu) / (max(e.end for e in on_gpu) - min(e.start for e in on_gpu))
        if self._profile_to:
            averages = profiler.key_averages()
            table = averages.table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=110)
            self._profile_to.write_text(table)


def _covered(intervals: list) -> float:
    """Length of the union of intervals."""
    covered, end = 0.0, float("-inf")
    for interval in sorted(intervals, key=lambda interval: interval.start):
        covered += max(0.0, interval.end - max(interval.start, end))
        end = max(end, interval.end)
    return covered


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(source: str, stem: str, precision: str, mode: str, arguments: argparse.Namespace) -> str:
    """Train a few epochs; a row of the table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    augmentation = AugmentationOptions(mirror=arguments.mirror)
    if arguments.rooms:
        views = open_views(source, arguments.store, stem != "rgb", augmentation, SIZE, arguments.resident)
    else:
        views = StoredViews([arguments.store], ViewOptions(), stem != "rgb", augmentation)
    epoch_views = arguments.batch_size * arguments.steps
    data = SegmentationDataModule(views, views, arguments.batch_size, epoch_views, seed=0)
    module = SegmentationModule(network={"stem": stem})
    module.set_statistics(compute_statistics(views, arguments.batch_size, device))
    module = module.to(memory_format=torch.channels_last)
    module.records_steps = device.type == "cuda" and mode == "graph"
    profile = arguments.profiles / f"{stem}_{precision}_{mode}.txt" if arguments.profiles else None
    watch = Stopwatch(profile)
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, precision=PRECISIONS[precision],
        max_epochs=arguments.epochs, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, benchmark=True, callbacks=[watch],
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, data)
    timed = watch.seconds[1:-1] if device.type == "cuda" else watch.seconds[1:]
    rates = [arguments.batch_size * arguments.steps / seconds for seconds in timed]
    first = watch.first - arguments.started
    milliseconds = 1e3 * min(timed) / arguments.steps
    return (
        f"{source:<9} {stem:<9} {precision:<5} {mode:<6} {max(rates):10.0f} {min(rates):10.0f} {milliseconds:9.2f} "
        f"{peak_gigabytes():6.2f} {watch.busy:6.0%} {first:7.1f} {first + 1e6 / max(rates):8.0f} "
        f"{float(trainer.callback_metrics['train/loss']):8.4f}"
    )


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", nargs=3, action="append", metavar=("STEM", "PRECISION", "MODE"))
    parser.add_argument("--views", type=int, default=1000 if on_gpu else 64)
    parser.add_argument("--batch-size", type=int, default=160 if on_gpu else 16)
    parser.add_argument("--steps", type=int, default=40 if on_gpu else 4, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=5 if on_gpu else 3)
    parser.add_argument("--profiles", type=Path, help="folder for tables of the kernels")
    parser.add_argument("--mirror", type=float, default=0.0, help="probability of mirroring a view")
    parser.add_argument("--together", type=int, default=1, help="runs of a variant at the same time")
    parser.add_argument("--rooms", type=int, default=0, help="scans whose views are trained on, stored and live")
    parser.add_argument("--resident", type=float, default=0.0, help="GB that scenes may take; 0 is no limit")
    parser.add_argument("--scenes", type=int, default=0, help="load so many scenes, and say what they take")
    parser.add_argument("--faces", type=int, default=130_000 if on_gpu else 10_000, help="of a scan's mesh")
    parser.add_argument("--resolution", type=int, default=256 if on_gpu else 64, help="of its field")
    parser.add_argument("--source", default="stored", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(measure(arguments.source, *arguments.variant[0], arguments))
        return
    if arguments.scenes:
        free = torch.cuda.mem_get_info()[0] if on_gpu else 4e9
        arguments.resident = arguments.resident or round(0.8 * free / 1e9, 1)
        with tempfile.TemporaryDirectory() as folder:
            measure_memory(Path(folder), arguments.scenes, arguments)
        return
    variants = arguments.variant or (GPU_VARIANTS if on_gpu else CPU_VARIANTS)
    variants = [(source, *variant) for variant in variants for source in (SOURCES if arguments.rooms else SOURCES[:1])]
    passed_on = ["views", "batch_size", "steps", "epochs", "mirror", "rooms", "resident"]
    passed_on += ["profiles"] * (arguments.profiles is not None)
    row = [sys.executable, __file__, "--row"]
    row += [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in passed_on]
    print(f"batches of {arguments.batch_size} views of {SIZE[0]}x{SIZE[1]}, {arguments.together} at a time")
    print(f"{'views':<9} {'stem':<9} {'prec.':<5} {'steps':<6} {'best im/s':>10} {'worst im/s':>10} {'ms/step':>9} "
          f"{'GB':>6} {'busy':>6} {'first s':>7} {'million':>8} {'loss':>8}", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if arguments.rooms:
            make_scans(Path(folder), arguments, SIZE)
            row.append(f"--store={folder}")
        else:
            row.append(f"--store={make_store(Path(folder), arguments.views)}")
        for source, *variant in variants:
            command = [*row, f"--started={time.time()}", "--source", source, "--variant", *variant]
            runs = [subprocess.Popen(command) for _ in range(arguments.together)]
            for run in runs:
                run.wait()


if __name__ == "__main__":
    main()

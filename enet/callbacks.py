"""Callbacks of the training: a line per epoch, and images for TensorBoard."""

from __future__ import annotations

import atexit
import logging
import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from enet.confusion_picture import confusion_picture
from enet.lightning import pl
from enet.metrics import class_iou
from enet.module import SegmentationModule
from enet.view_source import DeferredBatch, ViewBatch
from utils.errors import reading
from utils.files import read_json, write_json
from utils.labels import colorize, label_set
from utils.progress import Progress

logger = logging.getLogger(__name__)


class LeaveGroup(pl.Callback):
    """Lets each of several processes leave their group before it ends; Lightning does so for NCCL alone.

    Without it, what gloo left running can abort a process that has finished its work.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1 and torch.distributed.get_backend() == "gloo":
            atexit.register(torch.distributed.destroy_process_group)


class QuietLightning(pl.Callback):
    """Suppresses Lightning's irrelevant messages, in every process of a run.

    The run's folder is never empty, since it holds the run's settings; and Lightning calls what PyTorch has deprecated.
    """

    def __init__(self) -> None:
        # Before the trainer is made, which says that a GPU is not used where the user asked for the CPU.
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", "GPU available but not used", module="pytorch_lightning")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty", module="pytorch_lightning")
        warnings.filterwarnings("ignore", ".*LeafSpec", module="pytorch_lightning")


class EpochProgress(pl.Callback):
    """Epochs done, with time left, loss and scores; a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._meter: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._meter = Progress("training", trainer.max_epochs - trainer.current_epoch, "epoch")
            self._meter.__enter__()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._meter is not None:
            metrics = trainer.callback_metrics
            note = ", ".join(
                f"{name} {float(metrics[name]):.4f}" for name in ("train/loss", "val/mean_iou") if name in metrics
            )
            self._meter.update(note=note)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._meter is not None:
            self._meter.__exit__()
            self._meter = None


class TrainingClock(pl.Callback):
    """Seconds that a training took over all calls; of a killed one, up to its last checkpoint.

    They are kept in a file beside the checkpoints, not within them, so that equal trainings have equal checkpoints.
    The file lists the seconds until the end of every epoch; an epoch's are written before its checkpoint.
    """

    def __init__(self, path: Path):
        """The clock starts here, so that filling caches and starting processes counts."""
        self._path = path
        self._start = time.monotonic()
        self._seconds: list[float] = []
        self._before = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epochs = trainer.current_epoch  # up to the checkpoint of an earlier call
        if epochs:
            with reading(self._path, "the seconds of an interrupted training", "delete the training to start again"):
                self._seconds = [float(seconds) for seconds in read_json(self._path)][:epochs]
                if len(self._seconds) < epochs or not all(map(math.isfinite, self._seconds)):
                    raise ValueError(f"it does not hold the seconds of {epochs} epochs")
            self._before = self._seconds[-1]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seconds.append(round(self._before + time.monotonic() - self._start, 3))
        if trainer.is_global_zero:
            write_json(self._path, self._seconds)

    def total(self) -> float:
        """Seconds of all epochs, also where other processes trained."""
        return read_json(self._path)[-1]


class ValidationPictures(pl.Callback):
    """Per-class IoU, confusion matrix and sample triplets (image, ground truth, prediction) of each validation."""

    def __init__(self, samples: int = 4):
        self._samples = samples
        self._first: DeferredBatch | None = None

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: DeferredBatch,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if batch_idx == 0:
            self._first = batch

    def on_validation_end(self, trainer: pl.Trainer, pl_module: SegmentationModule) -> None:
        if not trainer.is_global_zero or not trainer.logger or self._first is None:
            return
        writer, step = trainer.logger.experiment, trainer.global_step
        confusion = pl_module.val_confusion.cpu()
        for name, iou in zip(label_set().names, class_iou(confusion), strict=True):
            if not torch.isnan(iou):
                writer.add_scalar(f"val_iou/{name}", float(iou), step)
        writer.add_image("val/confusion", confusion_picture(confusion), step)
        views = self._first.resolve().first(self._samples)
        writer.add_image("val/samples", torch.cat(tuple(triplets(views, pl_module.classify(views))), dim=-2), step)
        self._first = None


def triplets(views: ViewBatch, prediction: Tensor) -> Tensor:
    """Image, ground truth and prediction side by side, uint8 [B, 3, H, 3W] on the CPU."""
    color = (views.color * 255).round().to(torch.uint8).cpu()
    return torch.cat([color, colorize(views.label.cpu()), colorize(prediction.cpu())], dim=-1)

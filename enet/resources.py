"""What an epoch took, for TensorBoard."""

from __future__ import annotations

import time

import torch

from enet.lightning import pl


class Resources(pl.Callback):
    """Logs images/s, and the GPU memory that was used at most, of every epoch with its validation.

    Args:
        epoch_views: training views of an epoch, over all processes.
    """

    def __init__(self, epoch_views: int):
        self._views, self._start = epoch_views, time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.logger is None:
            return
        if pl_module.device.type == "cuda":  # the host is ahead of it; the module waits for it just after this, too
            torch.cuda.synchronize(pl_module.device)
        figures = {"speed/images_per_second": self._views / max(time.monotonic() - self._start, 1e-9)}
        if pl_module.device.type == "cuda":
            figures["memory/gib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
        trainer.logger.log_metrics(figures, step=trainer.global_step)

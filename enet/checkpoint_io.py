"""How Lightning writes and reads checkpoints: never half written, and a damaged one is reported as such."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from enet.lightning import pl
from utils.checkpoints import open_checkpoint
from utils.errors import UserError, reading, short
from utils.files import atomic_path

_PARTS = {"state_dict": dict, "optimizer_states": list, "loops": dict, "callbacks": dict, "epoch": int,
          "global_step": int}  # fmt: skip
_BETWEEN_PROCESSES = ".temp.ckpt"  # weights alone, from the processes that trained to the one that started them
_WHAT, _ADVICE = "the state of an interrupted training", "delete it to train again"


class CheckpointIO(TorchCheckpointIO):
    """Checkpoints that are never half written, so that a run killed while saving can be resumed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        with atomic_path(path) as temporary:  # Lightning's own way goes through the system's temporary folder
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """As data alone, whatever ``weights_only`` says; raises :class:`UserError` where it is damaged."""
        content = open_checkpoint(path, _WHAT, _ADVICE)
        if Path(path).name == _BETWEEN_PROCESSES:
            return content
        with reading(path, _WHAT, _ADVICE):
            for name, kind in _PARTS.items():  # Lightning passes over some that are missing
                if not isinstance(content[name], kind):
                    raise TypeError(f"{name} is {short(content[name])}")
        return content


class Restored(pl.Callback):
    """Records whether the state of an interrupted training has been restored and the training has started."""

    def __init__(self) -> None:
        self.done = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.done = True


@contextlib.contextmanager
def restoring(trainer: pl.Trainer, checkpoint: Path) -> Iterator[None]:
    """Turn failures while ``checkpoint`` is restored, but none after that, into a :class:`UserError`.

    With several processes their progress is not known here, and errors are passed on.
    """
    restored = next(callback for callback in trainer.callbacks if isinstance(callback, Restored))
    try:
        yield
    except UserError:
        raise
    except Exception:
        if restored.done or trainer.world_size > 1 or not checkpoint.exists():
            raise
        with reading(checkpoint, _WHAT, _ADVICE):
            raise

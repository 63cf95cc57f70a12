"""What each run leaves beside its results: its config, its operative config, its metrics, and when it ran.

``run.json`` keeps every run that made something in the folder.
"""

from __future__ import annotations

import platform
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import gin
import torch

from utils.disk import remove_orphans
from utils.files import json_text, read_json, write_json, write_text
from utils.locks import locked

METRICS_FILE = "metrics.json"
_PACKAGES = ("torch", "numpy", "gin-config", "pytorch-lightning", "torchmetrics", "tensorboard")


class RunRecords:
    """Writes ``config.gin`` at the start, ``operative_config.gin``, ``metrics.json`` and ``run.json`` at the end.

    Made when a run is accepted. Where a run finds all its work done, what the run that did it left stays as it is, and
    only what that one did not come to write is added.

    Args:
        folder: for the records.
        task_name: of the task.
        finished: whether there is nothing to make.
    """

    def __init__(self, folder: str | Path, task_name: str, finished: bool = False):
        self._folder, self._task_name, self._finished = Path(folder), task_name, finished
        self._start = time.monotonic()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        remove_orphans(self._folder)
        self._write("config.gin", gin.config_str())

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        if not (self._finished and path.exists()):
            write_text(path, text)

    def finish(self, metrics: dict[str, Any] | None) -> None:
        """Call once after the task has returned ``metrics``."""
        self._write("operative_config.gin", gin.operative_config_str())
        if metrics is not None:
            self._write(METRICS_FILE, json_text(metrics))
        path = self._folder / "run.json"
        if self._finished and path.exists():
            return
        with locked(path):
            runs = read_json(path, kind=list) if path.exists() else []
            write_json(path, [*runs, self._run()])

    def _run(self) -> dict[str, Any]:
        return {
            "task": self._task_name,
            "started": self._started,
            "seconds": round(time.monotonic() - self._start, 3),
            "command": sys.argv,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "packages": {name: metadata.version(name) for name in _PACKAGES},
        }

"""What each run leaves beside its results: its config, its operative config, its metrics, and when it ran.

``run.json`` keeps every run into the folder: a run that found its work done must not hide how long the work took.
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

from utils.files import read_json, write_json, write_text

METRICS_FILE = "metrics.json"
_PACKAGES = ("torch", "numpy", "gin-config", "pytorch-lightning", "torchmetrics", "tensorboard")


class RunRecords:
    """Writes ``config.gin`` at the start, ``operative_config.gin``, ``metrics.json`` and ``run.json`` at the end."""

    def __init__(self, folder: str | Path, task_name: str):
        self._folder, self._task_name = Path(folder), task_name
        self._start = time.monotonic()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(self._folder / "config.gin", gin.config_str())

    def finish(self, metrics: dict[str, Any] | None) -> None:
        """Call once after the task has returned ``metrics``."""
        write_text(self._folder / "operative_config.gin", gin.operative_config_str())
        if metrics is not None:
            write_json(self._folder / METRICS_FILE, metrics)
        path = self._folder / "run.json"
        runs = read_json(path) if path.exists() else []
        runs.append(
            {
                "task": self._task_name,
                "started": self._started,
                "seconds": round(time.monotonic() - self._start, 3),
                "command": sys.argv,
                "python": platform.python_version(),
                "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                "packages": {name: metadata.version(name) for name in _PACKAGES},
            }
        )
        write_json(path, runs)

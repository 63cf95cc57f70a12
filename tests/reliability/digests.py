"""What a stage wrote, without what tells only when and how long."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import torch

RECORDS = {"run.json", "metrics.json", "seconds.json", "inputs.json", "config.gin", "operative_config.gin"}
TIMES = {"seconds", "images_per_second", "views_per_second", "training_seconds", "loading_seconds", "written"}


def digests(work: Path) -> dict[str, str]:
    """Digest of every output by its path below ``work``."""
    return {
        str(path.relative_to(work)): hashlib.sha256(_content(path, work)).hexdigest()
        for path in sorted(work.rglob("*"))
        if path.is_file() and path.name not in RECORDS and "tfevents" not in path.name and ".lock" not in path.name
    }


def differences(work: Path, expected: dict[str, str]) -> list[str]:
    """Paths whose outputs differ, are missing or too many."""
    found = digests(work)
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def _content(path: Path, work: Path) -> bytes:
    if path.suffix == ".ckpt":
        return repr(_plain(torch.load(path, map_location="cpu", weights_only=True), work)).encode()
    if path.name == "study.db":
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as study:
            return repr(study.execute("select param_name, param_value from trial_params order by trial_id").fetchall()
                        + study.execute("select value from trial_values order by trial_id").fetchall()).encode()
    data = path.read_bytes().replace(str(work).encode(), b"WORK")
    if path.suffix == ".json":
        return json.dumps(_without_times(json.loads(data)), sort_keys=True).encode()
    return data


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(part) for name, part in value.items() if name not in TIMES}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def _plain(value: Any, work: Path) -> Any:
    """Tensors as digests; paths without the run's folder."""
    if isinstance(value, torch.Tensor):
        data = value.contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return hashlib.sha256(data).hexdigest(), str(value.dtype), tuple(value.shape)
    if isinstance(value, dict):
        return {str(name).replace(str(work), "WORK"): _plain(part, work) for name, part in value.items()
                if name not in TIMES}
    if isinstance(value, list | tuple):
        return [_plain(part, work) for part in value]
    return str(value).replace(str(work), "WORK")

"""What identifies the content of an input, so that results made from an older one are noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from utils.files import read_json


def _digest(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def file_identity(path: str | Path) -> str:
    """A short digest of a small file's content."""
    return _digest(Path(path).read_bytes())


def store_identity(path: str | Path, channels: Iterable[str]) -> str:
    """A short digest of a view store's cameras, its settings, and what its metadata say of ``channels``.

    Channels that are added later do not change it.
    """
    described = read_json(Path(path) / "meta.json")["channels"]
    used = {name: described.get(name) for name in sorted(channels)}
    files = (Path(path) / name for name in ("cameras.json", "settings.json"))
    return _digest(*(file.read_bytes() for file in files), json.dumps(used).encode())

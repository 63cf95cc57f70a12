"""What identifies the content of an input, so that results made from an older one are noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

_DESCRIBING_FILES = ("cameras.json", "meta.json", "settings.json")


def file_digest(*paths: str | Path) -> str:
    """A short digest of the content of small files; an absent one counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes() if Path(path).exists() else b"absent")
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def store_identity(path: str | Path) -> str:
    """A short digest of a view store's cameras, channels and settings."""
    return file_digest(*(Path(path) / name for name in _DESCRIBING_FILES))

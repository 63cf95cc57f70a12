"""Links from the page to the files that its numbers come from."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

_OF_A_RUN = (
    "test/scores/results.json", "training/results.json", "training/settings.json", "training/best.ckpt", "config.gin",
)


def links_to(paths: Sequence[Path], page_dir: Path) -> list[dict[str, str]]:
    """Name and relative address of each file that exists."""
    return [{"name": path.name, "href": _relative(path, page_dir)} for path in paths if path.is_file()]


def raw_files(run: Path, page_dir: Path) -> list[dict[str, str]]:
    """Links to a training run's files, named by their place in it."""
    return [{"name": name, "href": _relative(run / name, page_dir)} for name in _OF_A_RUN if (run / name).is_file()]


def _relative(path: Path, page_dir: Path) -> str:
    return urllib.parse.quote(os.path.relpath(path, page_dir))

"""Progress with rate and ETA: a bar on a terminal, occasional plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts finished items. Use as a context manager, or through :func:`progress`.

    On a terminal it is a bar. Elsewhere it logs a line at most every 15 seconds, and nothing for shorter work.
    """

    def __init__(self, description: str, total: int | None, unit: str = "it"):
        self._description, self._total, self._unit = description, total, unit
        self._bar = tqdm(total=total, desc=description, unit=unit) if sys.stderr.isatty() else None
        self._done = 0
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1, note: str = "") -> None:
        """Report ``count`` more finished items; ``note`` is a short state to show, such as a loss."""
        self._done += count
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            logger.info("%s", self._line(note))

    def _line(self, note: str) -> str:
        elapsed = time.monotonic() - self._start
        rate = self._done / max(elapsed, 1e-9)
        parts = [f"{self._description}: {self._done}"]
        if self._total:
            parts[0] += f"/{self._total}"
            parts.append(f"{(self._total - self._done) / max(rate, 1e-9):.0f} s left")
        parts.append(f"{rate:.3g} {self._unit}/s")
        return ", ".join([*parts, note] if note else parts)


def progress(
    items: Iterable[Item], description: str, total: int | None = None, unit: str = "it"
) -> Iterator[Item]:
    """Iterate over ``items`` and show the progress."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    with Progress(description, total, unit) as meter:
        for item in items:
            yield item
            meter.update()

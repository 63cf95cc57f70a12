"""Progress with rate and time left: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_OF_RATE = 30.0  # the rate is that of the latest work
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Progress:
    """Counts finished items. Use as a context manager, or through :func:`progress`.

    On a terminal it is a bar. Elsewhere it logs a line at most every 15 seconds, and nothing for shorter work; or one a
    call of :meth:`update`.

    Args:
        description: of the work.
        total: number of items; None where it is not known.
        unit: what an item is.
        parts: (number of items, relative cost of each) in their order, where costs are known to differ; the time left
            follows from the costs that are left and the rate at which the latest were worked off.
        every: log a line at each update.
    """

    def __init__(
        self, description: str, total: int | None, unit: str = "it", parts: Sequence[tuple[int, float]] = (),
        every: bool = False,
    ):  # fmt: skip
        self._description, self._total, self._unit = description, total, unit
        self._parts = list(parts) or [(total or 0, 1.0)]
        self._every = every
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=description, unit=unit, bar_format=_BAR if total else None)
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._marks = deque([(self._start, 0)])  # times, and how many items were done then

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def skip(self, count: int) -> None:
        """``count`` items were done before; they say nothing about the rate."""
        self._done += count
        self._marks = deque([(time.monotonic(), self._done)])
        if self._bar is not None:
            self._bar.update(count)

    def update(self, count: int = 1, note: str = "") -> None:
        """Report ``count`` more finished items; ``note`` is a short state to show, such as a loss."""
        now = time.monotonic()
        self._done += count
        self._marks.append((now, self._done))
        while len(self._marks) > 2 and now - self._marks[1][0] > _SECONDS_OF_RATE:
            self._marks.popleft()
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._figures(note)), refresh=False)
            self._bar.update(count)
        elif self._every or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            count_text = f"{self._done}/{self._total}" if self._total else f"{self._done}"
            logger.info("%s", ", ".join([f"{self._description}: {count_text}", *self._figures(note)]))

    def seconds_left(self) -> float | None:
        """Of the items that are left; None where nothing can be said."""
        (since, before), (now, done) = self._marks[0], self._marks[-1]
        worked = self._cost(done) - self._cost(before)
        if not self._total or worked <= 0:
            return None
        return (self._cost(self._total) - self._cost(done)) * (now - since) / worked

    def _cost(self, items: int) -> float:
        """Of the first ``items``."""
        cost, left = 0.0, items
        for number, each in self._parts:
            cost += min(left, number) * each
            left = max(left - number, 0)
        return cost + left * self._parts[-1][1]

    def _figures(self, note: str) -> list[str]:
        (since, before), (now, done) = self._marks[0], self._marks[-1]
        left = self.seconds_left()
        figures = [] if left is None or self._done == self._total else [f"{duration(left)} left"]
        if now > since:
            rate = (done - before) / (now - since)
            slow = 0 < rate < 1
            figures.append(f"{1 / rate:.3g} s a {self._unit}" if slow else f"{rate:.3g} {self._unit}/s")
        if note:
            figures.insert(0 if self._every else len(figures), note)
        return figures


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


def duration(seconds: float) -> str:
    """Seconds for people: in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""A thread that draws the latest camera of every browser, first coarsely, then finer while the camera rests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from analysis.viewer.camera_math import BrowserCamera
from analysis.viewer.schedule import ResolutionSchedule

logger = logging.getLogger(__name__)

Abandoned = Callable[[], bool]  # whether the picture being drawn is no longer wanted
Draw = Callable[[BrowserCamera, int, Abandoned], Any]  # camera, height -> picture, or None when abandoned
Deliver = Callable[[Hashable, Any, bool], None]  # browser, picture, whether it is the last pass


@dataclass
class _Request:
    """One browser's view: which camera, and the pass that comes next."""

    camera: BrowserCamera
    heights: list[int]
    next_pass: int = 0

    @property
    def done(self) -> bool:
        return self.next_pass >= len(self.heights)


class RenderLoop:
    """Draws requested views in a thread of its own; a new camera replaces the one before it.

    Coarse passes of all browsers come before finer ones of any. A first pass is always delivered, so that the
    picture moves while the camera does; a finer pass is cancelled as soon as its camera is replaced.
    """

    def __init__(self, draw: Draw, deliver: Deliver, schedule: ResolutionSchedule):
        self._draw = draw
        self._deliver = deliver
        self._schedule = schedule
        self._requests: dict[Hashable, _Request] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="render-loop", daemon=True)

    def start(self) -> None:
        """Begin to draw."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and cancel what it draws."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def submit(self, browser: Hashable, camera: BrowserCamera) -> None:
        """Draw this camera for that browser, instead of what it asked for before."""
        with self._changed:
            self._requests[browser] = _Request(camera, self._schedule.heights(camera.aspect))
            self._changed.notify_all()

    def remove(self, browser: Hashable) -> None:
        """The browser has disconnected."""
        with self._changed:
            self._requests.pop(browser, None)

    def refresh(self) -> None:
        """Draw every browser's view again, after a change of what is shown."""
        with self._changed:
            for browser, request in list(self._requests.items()):
                self._requests[browser] = _Request(request.camera, self._schedule.heights(request.camera.aspect))
            self._changed.notify_all()

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait until everything is drawn in full; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._next() is None and not self._busy, timeout)

    def _next(self) -> tuple[Hashable, _Request] | None:
        """The request with the fewest passes behind it."""
        open_requests = [item for item in self._requests.items() if not item[1].done]
        return min(open_requests, key=lambda item: item[1].next_pass) if open_requests else None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._stopping or self._next() is not None)
                if self._stopping:
                    return
                browser, request = self._next()
                self._busy = True
            try:
                self._draw_pass(browser, request)
            except Exception:  # the thread must survive a failed frame; the next camera may render
                logger.exception("a view could not be drawn")
                request.next_pass = len(request.heights)

    def _draw_pass(self, browser: Hashable, request: _Request) -> None:
        first = request.next_pass == 0
        height = request.heights[request.next_pass]

        def abandoned() -> bool:
            return self._stopping or (not first and self._requests.get(browser) is not request)

        started = time.monotonic()
        picture = self._draw(request.camera, height, abandoned)
        request.next_pass += 1
        if picture is None:
            return
        self._schedule.measured(height * request.camera.size(height)[1], time.monotonic() - started)
        if browser in self._requests:
            self._deliver(browser, picture, request.done)

"""Signals that stop a run: each ends it in the same way, resumable and with its own exit code."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Exit codes of a process that one of them stopped, before or after it could answer, as Python's subprocess gives them.
STOPPED_CODES = (*(128 + number for number in _STOPPING), *(-number for number in _STOPPING))
_PR_SET_PDEATHSIG = 1
_PARENT = "SSIR_PARENT"


class Stopped(BaseException):
    """A signal asked the run to stop. No ``Exception``, so that nothing takes it for a failure of a scene.

    Not a ``KeyboardInterrupt`` either, which Lightning answers by ending the process with an exit code of its own.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextlib.contextmanager
def stopping_signals() -> Iterator[None]:
    """Within it, SIGINT, SIGTERM and SIGHUP raise :class:`Stopped`; a second one ends the process at once.

    Does nothing outside the main thread, where Python delivers no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in _STOPPING}

    def stop(number: int, frame: FrameType | None) -> None:
        for each in _STOPPING:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:  # nohup's choice stays
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def end_with_this_process() -> dict[str, str]:
    """Environment of a child that runs ``run.py``: it gets SIGTERM when this process ends, however that ends."""
    return {_PARENT: str(os.getpid())}


def obey_parent() -> None:
    """In a child process, at its start: do what :func:`end_with_this_process` says (on Linux)."""
    parent = os.environ.pop(_PARENT, None)
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it ended before we asked
            os.kill(os.getpid(), signal.SIGTERM)

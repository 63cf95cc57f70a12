"""One writer at a time: a lock file beside an output folder, which says who holds it.

The lock is the operating system's (flock), so it ends with the process however that ends. It holds between machines
where the file system carries such locks, as NFS on Linux does; where it does not, one line in the log says so.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path

from utils.disk import writing
from utils.errors import UserError

logger = logging.getLogger(__name__)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_held: dict[Path, int] = {}  # by lock file: the descriptor; belongs to the process, as the locks themselves do
_owner = os.getpid()
_patience = 0.0
_SECONDS_BETWEEN_TRIES = 0.2


def set_patience(seconds: float) -> None:
    """How long :func:`lock` waits in this process for another one to let go before it refuses; at first it does not."""
    global _patience
    _patience = seconds


def lock_file(path: str | Path) -> Path:
    """The lock of the output ``path``."""
    path = Path(path)
    return path.with_name(f".{path.name}.lock")


def lock(path: str | Path) -> None:
    """Become the only writer of the output ``path`` until :func:`unlock`; nothing happens when this process is already.

    Raises:
        UserError: another process holds it, after :func:`set_patience`'s time; says which, where and since when.
    """
    file = _absolute(lock_file(path))
    _forget_after_fork()
    if file in _held:
        return
    deadline = time.monotonic() + _patience
    while True:
        with writing(path):
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                logger.warning("%s: this file system has no locks (%s); make sure that no other run writes there",
                               path, error.strerror)  # fmt: skip
            elif time.monotonic() < deadline:
                os.close(descriptor)
                time.sleep(_SECONDS_BETWEEN_TRIES)
                continue
            else:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise UserError(f"{path} is being written by {holder}; wait until it is done, or end it") from None
        if _is_same_file(descriptor, file):
            break
        os.close(descriptor)  # its last holder removed the file between our opening and locking it
    holder = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):  # a full disk holds the lock all the same
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())
    _held[file] = descriptor


def unlock(path: str | Path) -> None:
    """Let others write ``path``; nothing happens when this process does not hold it."""
    _forget_after_fork()
    _release(_absolute(lock_file(path)))


def held() -> list[Path]:
    """The outputs that this process is writing now."""
    _forget_after_fork()
    return [file.with_name(file.name.removeprefix(".").removesuffix(".lock")) for file in _held]


def unlock_all() -> None:
    """At a run's end: outputs that it did not finish can be written by others."""
    _forget_after_fork()
    for file in list(_held):
        _release(file)


@contextlib.contextmanager
def locked(path: str | Path):
    """Hold the lock of ``path`` for a block; raises as :func:`lock` does."""
    mine = _absolute(lock_file(path)) in _held
    lock(path)
    try:
        yield
    finally:
        if not mine:
            unlock(path)


def check_unlocked(path: str | Path) -> None:
    """Raise :class:`UserError` when another process writes ``path`` now; changes nothing."""
    file = _absolute(lock_file(path))
    _forget_after_fork()
    if file in _held or not file.exists():
        return
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise UserError(
                    f"{path} is being written by {_holder(descriptor)}; wait until it is done, or end it"
                ) from None
        finally:
            os.close(descriptor)


def _release(file: Path) -> None:
    descriptor = _held.pop(file, None)
    if descriptor is not None:
        with contextlib.suppress(OSError):  # gone with its folder, or the disk is read-only by now
            file.unlink()
        os.close(descriptor)


def _forget_after_fork() -> None:
    """A forked child must neither release nor rely on its parent's locks."""
    global _owner
    if _owner != os.getpid():
        _held.clear()
        _owner = os.getpid()


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    try:
        entry = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {entry['process']} on {entry['host']} since {entry['since']}"
    except (ValueError, KeyError, TypeError, OSError):
        return "another process"

"""Errors of writing to disk (full, read-only, over quota), and the temporary files of killed writers."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (*_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG, errno.ESTALE)
_TORCH_WRITER = "unexpected pos"  # what PyTorch says of a write that was cut short; its file may be gone by now
_CANNOT = "cannot be written"
_LEAST_FREE = 1 << 20  # bytes; a disk with less is full, whatever the library that wrote to it says
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host"
_TEMPORARY = re.compile(r"\..*\.(?P<host>[A-Za-z0-9-]+)-(?P<process>\d+)\.partial(\.[^.]+)?")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn a disk's refusal while ``path`` is written into a :class:`UserError` that names it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # PyTorch's and NumPy's writers raise the latter two
        refusal = disk_refusal(error, path)
        if refusal is None:
            raise
        raise refusal from error


def disk_refusal(error: Exception, path: str | Path | None = None) -> UserError | None:
    """The sentence for a disk's refusal to write ``path``; None where ``error`` is something else.

    Args:
        path: what was being written; None where that is not known.
    """
    number = getattr(error, "errno", None)
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)  # of a copy, where it goes
    if path is not None and name is not None and not _concerns(str(name), path):
        return None
    if number in _REFUSED:
        place = path if path is not None else name
        reason = error.strerror
    elif path is None or isinstance(error, FileNotFoundError):
        return None
    elif _TORCH_WRITER in str(error) or is_full(path):
        place, reason, number = path, os.strerror(errno.ENOSPC), errno.ENOSPC
    else:
        return None
    advice = "make room" if number in _FULL else "correct that, or choose another folder"
    what = place if place is not None else "an output"
    return UserError(f"{what} {_CANNOT} ({reason}); what is finished is safe: {advice}, and the same command with "
                     "--resume continues from here")


def says_disk_refusal(message: str) -> bool:
    """Whether an error message, such as another process's, is that of :func:`disk_refusal`."""
    return f" {_CANNOT} (" in message


def _concerns(name: str, path: str | Path) -> bool:
    """Whether a refusal of ``name`` is one of writing ``path``: of a file beside or within it, or a folder above."""
    written, refused = os.path.abspath(path), os.path.abspath(name)
    return refused.startswith(os.path.dirname(written)) or written.startswith(refused)


def is_full(path: str | Path) -> bool:
    """Whether the disk that ``path`` is or would be on has no room left, for bytes or for files."""
    folder = Path(path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with contextlib.suppress(OSError):
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize < _LEAST_FREE or (state.f_files > 0 and state.f_favail == 0)
    return False


def allocate(path: str | Path) -> None:
    """Take the room for all bytes of a file that was made sparse, so that a full disk refuses before work is done.

    Raises:
        UserError: there is none; the file is removed.
    """
    with open(path, "r+b") as file, writing(path):
        try:
            os.posix_fallocate(file.fileno(), 0, max(os.fstat(file.fileno()).st_size, 1))
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system without it
                return
            Path(path).unlink(missing_ok=True)
            raise


def create_array(path: str | Path, dtype: str, shape: tuple[int, ...]) -> None:
    """Make a ``.npy`` file of zeros with all its room taken; raises :class:`UserError` as above."""
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with writing(path), open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, described)
        file.truncate(file.tell() + np.dtype(dtype).itemsize * math.prod(shape))
    allocate(path)


def temporary_path(path: str | Path) -> Path:
    """The name beside ``path`` under which this process writes it; keeps the suffix, which says the format."""
    path = Path(path)
    return path.with_name(f".{path.stem}.{_HOST}-{os.getpid()}.partial{path.suffix}")


def remove_orphans(folder: str | Path, locked: bool = False) -> None:
    """Remove temporary files that killed processes left in ``folder``.

    Args:
        locked: whether no other process can be writing there; then also in sub-folders, and those of other machines.
    """
    names = Path(folder).rglob(".*.partial*") if locked else Path(folder).glob(".*.partial*")
    for path in list(names):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or not (locked or match["host"] == _HOST and not _is_alive(int(match["process"]))):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def flush(path: str | Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

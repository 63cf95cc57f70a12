"""What anything is made from: files, scans, fields and the channels of view stores, as short digests of their content.

An output keeps the identity of its inputs beside it (:mod:`utils.files`), so that results made from older inputs are
detected. Identities follow contents, never paths or times: a copied or moved folder is the same input. Contents that
take long to read are named by a :class:`FileSet`, whose digest is remembered with each file's size and time of change,
as version control does, so that what is unchanged is not read again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from utils.errors import UserError, reading
from utils.files import read_json
from utils.paths import PROJECT
from utils.threads import ordered_map

_BLOCK = 1 << 20
_LENGTH = 16  # hexadecimal digits: 64 bits
PREFIX = "sha256:"  # of every identity, so that messages can leave out digests
_RACY = 2_000_000_000  # ns; a file changed this shortly before it was remembered may change again unseen
FIELD_FILES = ("last.ckpt", "data.ckpt", "nested.npz", "trans_info.npz", "capture.npz", "held_out.json")
Stamps = dict[str, tuple[int, int, str]]  # of each file: bytes, time of change in ns, digest


def value_identity(value: Any) -> str:
    """Of anything JSON-able; dictionaries are equal whatever their order."""
    return _short(hashlib.sha256(json.dumps(value, sort_keys=True).encode()))


def tensor_identity(*tensors: Tensor | None) -> str:
    """Of the types, shapes and bytes of tensors, in their order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none")
            continue
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return _short(digest)


def file_identity(path: str | Path) -> str:
    """Of a file's bytes.

    Raises:
        UserError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); it is an input of this stage") from None
    return _short(digest)


@dataclass(frozen=True)
class FileSet:
    """Files that something is made from, by a name that does not depend on where they lie."""

    files: Mapping[str, Path]

    def identity(self, known: Stamps | None = None, remembered: int = 0) -> tuple[str, Stamps]:
        """The digest of names and contents, and what is to be remembered of each file.

        Args:
            known: what was remembered before.
            remembered: when that was, ns.

        Raises:
            UserError: a file cannot be read.
        """
        known = known or {}

        def stamp(name: str) -> tuple[int, int, str]:
            path = self.files[name]
            try:
                state = os.stat(path)
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}); it is an input of this stage") from None
            size, changed = state.st_size, state.st_mtime_ns
            old = known.get(name)
            if old is not None and tuple(old[:2]) == (size, changed) and settled(changed, remembered):
                return size, changed, old[2]
            return size, changed, file_identity(path)

        names = sorted(self.files)
        stamps = dict(zip(names, ordered_map(stamp, names), strict=True))
        return value_identity([[name, stamps[name][2]] for name in names]), stamps


def folder_stamp(folder: str | Path) -> tuple[str, int]:
    """What a listing tells of a folder's content: a digest of all files' names, sizes and times of change, and the
    latest of these times, ns. Reads no file. Links are followed; what cannot be looked at is part of the digest.
    """
    digest, latest = hashlib.sha256(), 0
    waiting, seen = [Path(folder)], set()
    while waiting:
        place = waiting.pop()
        lines = []
        with contextlib.suppress(OSError):
            state = os.stat(place)
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            for entry in os.scandir(place):
                try:
                    state = entry.stat()
                except OSError as error:
                    lines.append((entry.name, error.errno or 0, 0))
                    continue
                if stat.S_ISDIR(state.st_mode):
                    waiting.append(place / entry.name)
                else:
                    latest = max(latest, state.st_mtime_ns)
                lines.append((entry.name, state.st_size if stat.S_ISREG(state.st_mode) else -1, state.st_mtime_ns))
        digest.update(json.dumps([os.path.relpath(place, folder), sorted(lines)]).encode())
        waiting.sort()
    return _short(digest), latest


def settled(changed: int, seen: int) -> bool:
    """Whether a file that had last changed at ``changed`` when it was looked at, ``seen``, both ns, cannot have changed
    since without another time of change."""
    return changed + _RACY < seen


@functools.cache
def code_identity(*rooms: str) -> str:
    """Of the Python sources of rooms of the house, such as ``"dataloader"``."""
    paths = sorted(path for room in rooms for path in (PROJECT / room).rglob("*.py"))
    return FileSet({str(path.relative_to(PROJECT)): path for path in paths}).identity()[0]


class Scan(Protocol):
    """What :func:`scan_inputs` reads of a :class:`dataloader.Scene`."""

    name: str
    frames: list[str]
    color_paths: list[Path]
    depth_paths: list[Path | None]
    mask_paths: list[Path | None] | None
    confidence_paths: list[Path | None] | None
    mesh_path: Path

    def geometry_identity(self) -> str: ...


def scan_inputs(scan: Scan, depth: bool = True, mesh: bool = True) -> dict[str, Any]:
    """What a stage that reads a recorded scene is made from: its frames, cameras, photographs, depth maps and mesh.

    Args:
        scan: the scene.
        depth: whether depth maps are read.
        mesh: whether the mesh without labels is read, where there is one.
    """
    inputs: dict[str, Any] = {
        "scene": scan.name, "frames": value_identity(scan.frames), "cameras": scan.geometry_identity(),
        "photographs": FileSet(dict(zip(scan.frames, scan.color_paths, strict=True))),
    }  # fmt: skip
    if scan.mask_paths is not None:
        named = zip(scan.frames, scan.mask_paths, strict=True)
        inputs["masks"] = FileSet({name: path for name, path in named if path is not None})
    if depth:
        inputs["depth_maps"] = FileSet(
            {name: path for name, path in zip(scan.frames, scan.depth_paths, strict=True) if path is not None}
        )
    if depth and scan.confidence_paths is not None:
        named = zip(scan.frames, scan.confidence_paths, strict=True)
        inputs["confidence_maps"] = FileSet({name: path for name, path in named if path is not None})
    if mesh:
        inputs["mesh"] = FileSet({"mesh": scan.mesh_path} if scan.mesh_path.is_file() else {})
    return inputs


def field_inputs(path: str | Path) -> FileSet:
    """A radiance field's folder: its grid, placement, exposures, and which frames were held out of it."""
    folder = Path(path)
    return FileSet({name: folder / name for name in FIELD_FILES if (folder / name).is_file()})


def channel_identity(store: str | Path, channel: str) -> str | None:
    """Of one channel of a finished view store, by what its metadata say it was made from; None where it is absent."""
    path = Path(store) / "meta.json"
    content = read_json(path)
    with reading(path, "a view store's description", "render the views again"):
        entry = content["channels"].get(channel)
    return None if entry is None else value_identity(entry)


def store_identity(path: str | Path, channels: Iterable[str]) -> str:
    """Of a view store's cameras and of those of its channels that are named; what else is added does not change it."""
    folder = Path(path)
    described = {name: channel_identity(folder, name) for name in channels}
    return value_identity([file_identity(folder / "cameras.json"), described])


def resolve_inputs(
    settings: Any, known: Mapping[str, Stamps] | None = None, remembered: int = 0, place: str = ""
) -> tuple[Any, dict[str, Stamps]]:
    """``settings`` with each :class:`FileSet` replaced by its digest, and what to remember of the files.

    Args:
        settings: dictionaries, lists and plain values.
        known, remembered: as in :meth:`FileSet.identity`, by the place of the file set in ``settings``.
    """
    if isinstance(settings, FileSet):
        digest, stamps = settings.identity((known or {}).get(place), remembered)
        return digest, {place: stamps}
    items = settings.items() if isinstance(settings, Mapping) else enumerate(settings)
    resolved, found = {}, {}
    for key, value in items:
        inner = f"{place}.{key}" if place else str(key)
        if isinstance(value, (Mapping, list, tuple, FileSet)):
            resolved[key], stamps = resolve_inputs(value, known, remembered, inner)
            found.update(stamps)
        else:
            resolved[key] = value
    return (resolved if isinstance(settings, Mapping) else list(resolved.values())), found


def _short(digest: Any) -> str:
    return PREFIX + digest.hexdigest()[:_LENGTH]

"""Finding the files that a data set's lists name, as other systems and programs write names.

What is listed may differ from what is on the disk: in case and in how accents are composed (Windows and macOS do not
mind), in slashes, in a suffix left out, in a suffix changed by a conversion, and in a folder where the data were once.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def image_stem(name: str) -> str:
    """A file's name without its picture's suffix; other dots belong to the name."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name


class FileFinder:
    """Files under one folder.

    Args:
        folder: what listed paths are relative to.
        suffixes: that a name without suffix may have.
    """

    def __init__(self, folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES):
        self._folder, self._suffixes = folder, suffixes
        self._otherwise: list[tuple[str, Path]] = []

    def find(self, listed: str) -> Path:
        """The file that is meant; where there is none, the path as it is listed."""
        for parts in _readings(listed):
            path = self._folder.joinpath(*parts)
            if path.is_file():
                return path
        for parts in _readings(listed):
            found = _walk(self._folder, parts, self._suffixes)
            if found is not None:
                if image_stem(parts[-1]) != parts[-1]:
                    self._otherwise.append((listed, found))
                return found
        return self._folder.joinpath(*next(_readings(listed)))

    def remarks(self) -> list[str]:
        """What a user should know of names that were not found as they are listed; a sentence or none."""
        if not self._otherwise:
            return []
        listed, found = self._otherwise[0]
        return [f"{len(self._otherwise)} files are not there as they are listed and were found by similar names (such "
                f"as {listed}: {found.relative_to(self._folder)})"]


def _readings(listed: str):
    """Parts of a path, as it is written; then of an absolute one fewer and fewer, since folders get moved."""
    path = PurePosixPath(listed)
    if "\\" in listed:
        windows = PureWindowsPath(listed)
        path = PurePosixPath("/", *windows.parts[1:]) if windows.anchor else PurePosixPath(windows.as_posix())
        yield PurePosixPath(listed).parts  # a backslash can be part of a name
    yield path.parts
    if path.is_absolute():
        for first in range(1, len(path.parts)):
            yield path.parts[first:]


def _walk(folder: Path, parts: tuple[str, ...], suffixes: tuple[str, ...]) -> Path | None:
    """The only file whose path differs from ``parts`` in case, composition or suffix alone."""
    *folders, name = parts
    for part in folders:
        if part in ("..", "/") or (folder / part).is_dir():
            folder = folder / part
            continue
        similar = _listing(folder).get(_plain(part), ())
        if len(similar) != 1:
            return None
        folder = folder / similar[0]
    files = _listing(folder)
    for wanted in (_plain(name), *(_plain(name) + suffix for suffix in suffixes)):
        if len(files.get(wanted, ())) == 1 and (folder / files[wanted][0]).is_file():
            return folder / files[wanted][0]
    stem = image_stem(_plain(name))
    if stem == _plain(name):
        return None
    similar = [found for suffix in suffixes for found in files.get(stem + suffix, ())]
    return folder / similar[0] if len(similar) == 1 else None


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(maxsize=64)
def _names(folder: Path, changed: int) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for path in folder.iterdir():
        if not path.name.startswith("."):
            names.setdefault(_plain(path.name), []).append(path.name)
    return names


def _listing(folder: Path) -> dict[str, list[str]]:
    """Names in a folder by their plain forms; empty where it is none."""
    return _names(folder, folder.stat().st_mtime_ns) if folder.is_dir() else {}

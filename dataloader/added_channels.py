"""Adding channels to finished view stores: labels, depths of the mesh, quality; all or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataloader.view_array import StoreOptions, ViewArray, ViewArrayWriter, channel_file
from dataloader.view_channels import CHANNEL_KINDS
from dataloader.view_store import META_FILE, SHARDS, ViewStore, division
from utils.disk import flush, remove_orphans, temporary_path, writing
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.identity import resolve_inputs
from utils.locks import locked
from utils.outputs import first_difference


def channels_missing(
    path: str | Path, names: Sequence[str], settings: dict[str, Any] | None = None, overwrite: bool = False
) -> bool:
    """Whether :func:`add_channel` would compute channels of a finished store; changes nothing.

    Raises:
        UserError: they are there with other settings, and ``overwrite`` is off.
    """
    store = ViewStore(path)
    described = read_json(store.path / META_FILE)["channels"]
    present = [described[name].get("settings", {}) for name in names if name in described]
    if not present or overwrite:
        return True
    resolved = _resolved(settings)
    if len(present) == len(names) and all(old == resolved for old in present):
        return False
    difference = next(filter(None, (first_difference(old, resolved) for old in present)), "some of them are absent")
    raise UserError(f"{store.path} has {' or '.join(names)} already, made with other settings ({difference}); set "
                    "overwrite = True to replace it")


def add_channel(
    path: str | Path,
    name: str | Sequence[str],
    fill: Callable[..., None],
    settings: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> bool:
    """Add one channel, or several that are computed together, to a finished store; all or nothing.

    Args:
        path: the store.
        name: channel name, or names.
        fill: called with a :class:`dataloader.view_array.ViewArrayWriter`, or one per name, ``[N, (C,) H, W]`` in the
            stored dtype (the first of the channel's dtypes); writes every view into it.
            :func:`dataloader.view_channels.encode` converts.
        settings: what determined the content, as for :func:`utils.outputs.prepare_output`.
        overwrite: replace channels that are there.

    Returns:
        False, without calling ``fill``, when the channels are there with equal settings.

    Raises:
        UserError: they are there with other settings and ``overwrite`` is off, or another process writes the store.
    """
    names = [name] if isinstance(name, str) else list(name)
    if not channels_missing(path, names, settings, overwrite):
        return False
    with locked(path):
        store = ViewStore(path)
        described = read_json(store.path / META_FILE)["channels"]
        if any(channel in described for channel in names):
            # A crash while files are replaced must not leave new numbers under old settings.
            _describe(store, dict.fromkeys(names), {})
        kinds = [CHANNEL_KINDS[channel] for channel in names]
        divided = _fill_files(store, names, kinds, fill)
        resolved = _resolved(settings)
        _describe(store, {
            channel: {"dtype": kind.dtypes[0], "shape": list(kind.shape(store.size)), "settings": resolved}
            for channel, kind in zip(names, kinds, strict=True)
        }, divided)  # fmt: skip
    return True


def _describe(store: ViewStore, entries: Mapping[str, dict[str, Any] | None], divided: Mapping[str, int]) -> None:
    """Update the metadata of some channels, None removes one, and how many views each has in a file."""
    meta = read_json(store.path / META_FILE)
    kept = {channel: entry for channel, entry in meta["channels"].items() if channel not in entries}
    added = {channel: entry for channel, entry in entries.items() if entry is not None}
    others = {channel: views for channel, views in meta.pop(SHARDS, {}).items() if channel not in entries}
    write_json(store.path / META_FILE, {**meta, "channels": {**kept, **added}, **division({**others, **divided})})


def _resolved(settings: dict[str, Any] | None) -> dict[str, Any]:
    return json.loads(json.dumps(resolve_inputs(settings or {})[0]))


def _fill_files(store: ViewStore, names: list[str], kinds: list, fill: Callable[..., None]) -> dict[str, int]:
    """Let ``fill`` write temporary arrays, then give all of them their names; returns how they are divided."""
    remove_orphans(store.path, locked=True)
    shapes = [(len(store), *kind.shape(store.size)) for kind in kinds]
    divided = [StoreOptions().views_per_file(kind.dtypes[0], shape) for kind, shape in zip(kinds, shapes, strict=True)]
    folder = temporary_path(store.path / "added")
    try:
        with writing(store.path):
            folder.mkdir()
        arrays = [
            ViewArrayWriter(ViewArray(folder, name, np.dtype(kind.dtypes[0]), shape, views))
            for name, kind, shape, views in zip(names, kinds, shapes, divided, strict=True)
        ]
        fill(*arrays)
        for array in arrays:
            array.flush()
            _replace_files(store.path, array.array)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return dict(zip(names, divided, strict=True))


def _replace_files(store: Path, array: ViewArray) -> None:
    """Move a channel's new files into the store, and remove those of an older one that was divided otherwise."""
    new = {path.name for path, _ in array.files}
    with writing(store):
        for path, _ in array.files:
            os.replace(path, store / path.name)
        for path in [channel_file(store, array.name), *store.glob(f"{array.name}.[0-9]*.npy")]:
            if path.name not in new:
                path.unlink(missing_ok=True)
        flush(store)

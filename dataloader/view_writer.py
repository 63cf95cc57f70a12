"""Writing view stores: resumable view by view, finished atomically, the same bytes from the same input."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.camera_list import CameraList
from dataloader.view_array import StoreOptions, ViewArray, ViewArrayWriter, channel_file, views_per_file_there
from dataloader.view_channels import CHANNEL_KINDS, check_channel, dtype_name, encode
from dataloader.view_store import CAMERAS_FILE, FORMAT_VERSION, META_FILE, ViewStore, division
from utils.errors import UserError
from utils.files import write_json
from utils.identity import value_identity
from utils.outputs import commit_output, finished_settings, prepare_output

logger = logging.getLogger(__name__)
_DONE, _CLIPPED = "done", "clipped"  # arrays of an unfinished store
_NEVER_ALL_ZERO = {
    "alpha": "the field is transparent", "rgb": "the field is black", "photo": "the photographs are black"
}  # fmt: skip


class ViewStoreWriter:
    """Fills a store in any order of views; a view counts as written once its data are on disk."""

    def __init__(self, path: Path, partial: Path, cameras: CameraList, channels: Mapping[str, tuple[str, tuple]],
                 sh_range: Tensor | None, attributes: dict[str, Any], made_from: dict[str, dict[str, Any]]):
        """Use :meth:`create`."""
        self._path, self._partial, self._made_from = path, partial, made_from
        self._cameras, self._channels = cameras, dict(channels)
        self._sh_range, self._attributes = sh_range, attributes
        self._arrays = {name: self._writer(name, dtype, shape) for name, (dtype, shape) in self._channels.items()}
        self._clipped = self._writer(_CLIPPED, "int64", (len(self._channels),), False)
        # Opened last: where it exists, all the others do, complete.
        self._done = self._writer(_DONE, "bool", (), False)

    def _writer(self, name: str, dtype: str, shape: tuple[int, ...], divided: bool = True) -> ViewArrayWriter:
        shape = (len(self._cameras), *shape)
        views = StoreOptions().views_per_file(dtype, shape) if divided else 0
        views = views_per_file_there(self._partial, name, views)
        return ViewArrayWriter(ViewArray(self._partial, name, np.dtype(dtype), shape, views))

    @classmethod
    def create(
        cls,
        path: str | Path,
        cameras: CameraList,
        channels: Mapping[str, tuple[Any, Sequence[int]]],
        settings: dict[str, Any],
        sh_range: Tensor | None = None,
        overwrite: bool = False,
        attributes: dict[str, Any] | None = None,
        concerns: Mapping[str, Collection[str]] | None = None,
    ) -> ViewStoreWriter | None:
        """Start or, with ``--resume``, continue the store ``path``.

        Args:
            path: folder of the finished store.
            cameras: one per view; its image size is the store's.
            channels: name -> (dtype, shape of one view), see :mod:`dataloader.view_channels`.
            settings: whatever else determines the bytes, as for :func:`utils.outputs.prepare_output`. Cameras, channels
                and range are added.
            sh_range: float32 ``[27, 2]``, (min, max) of each SH channel; required for ``sh`` as uint8.
            overwrite: make it again although it is finished.
            attributes: JSON-able facts for readers, such as the scene's transform.
            concerns: of a channel, the names of the settings that determine it; of one that is not named, all do. With
                these the channel's identity is made (:func:`utils.identity.channel_identity`).

        Returns:
            None when the store is finished with equal settings.

        Raises:
            UserError: finished with other settings, or there are no cameras.
            ValueError: a channel is unknown, has a wrong dtype or shape, or the range is missing.
        """
        if len(cameras) == 0:
            raise UserError(f"{path}: there are no cameras to render; check the filter's or the scene's output")
        channels = {name: (dtype_name(dtype), tuple(shape)) for name, (dtype, shape) in channels.items()}
        for name, (dtype, shape) in channels.items():
            check_channel(name, dtype, shape, cameras.image_size)
        sh_range = _checked_range(channels, sh_range)
        partial = prepare_output(path, {
            "size": list(cameras.image_size),
            **settings,
            "views": len(cameras),
            "store_cameras": value_identity(cameras.to_json()),
            "store_channels": {name: dtype for name, (dtype, _) in channels.items()},
            "store_sh_range": None if sh_range is None else value_identity(sh_range.tolist()),
            "store_attributes": attributes or {},
        }, overwrite)  # fmt: skip
        if partial is None:
            return None
        resolved = finished_settings(partial)
        made_from = {name: {key: resolved[key] for key in (concerns or {}).get(name, settings)} for name in channels}
        return cls(Path(path), partial, cameras, channels, sh_range, attributes or {}, made_from)

    def pending(self) -> list[int]:
        """Views still to be written, ascending."""
        return np.flatnonzero(~self._done.array.read(0, len(self._cameras))).tolist()

    def write(self, index: int | Sequence[int], values: Mapping[str, Tensor]) -> None:
        """Store one view, or several at once (faster, one flush), encoding decoded values where they lie.

        Args:
            index: view, or B views.
            values: every channel of the store: ``[(C,) H, W]``, or ``[B, (C,) H, W]`` for several views.
        """
        single = isinstance(index, int)
        indices = [index] if single else [int(i) for i in index]
        if set(values) != set(self._channels):
            raise ValueError(f"got channels {sorted(values)}, the store has {sorted(self._channels)}")
        clipped = torch.zeros(len(indices), len(self._channels), dtype=torch.int64)
        for column, (name, (dtype, shape)) in enumerate(self._channels.items()):
            batch = values[name][None] if single else values[name]
            if tuple(batch.shape) != (len(indices), *shape):
                raise ValueError(f"{name}: got {list(batch.shape)}, expected {[len(indices), *shape]}")
            self._refuse_non_finite(name, batch, indices)
            stored, clipped[:, column] = encode(name, batch, dtype, self._sh_range)
            self._arrays[name][indices] = stored.cpu().numpy()
        self._clipped[indices] = clipped.numpy()
        for array in (*self._arrays.values(), self._clipped):
            array.flush()
        self._done[indices] = True
        self._done.flush()

    def _refuse_non_finite(self, name: str, batch: Tensor, indices: list[int]) -> None:
        if not batch.is_floating_point() or torch.isfinite(batch).all():
            return
        bad = indices[int((~torch.isfinite(batch)).flatten(1).any(1).nonzero()[0])]
        raise UserError(f"{self._path}: {name} of view {self._cameras.names[bad]} holds NaN or infinite values; the "
                        "field or the camera is damaged: run 'verify', then make the field again")

    def finish(self) -> ViewStore:
        """Complete the store and give it its final name.

        Raises:
            UserError: a picture channel, or the opacity, is 0 in every pixel of every view.
        """
        if missing := self.pending():
            raise RuntimeError(f"{self._path}: {len(missing)} views are not written, the first is {missing[0]}")
        for name in _NEVER_ALL_ZERO:
            array = self._arrays.get(name)
            if array is not None and not any(view.any() for view in array):
                raise UserError(f"{self._path}: {_NEVER_ALL_ZERO[name]} in every pixel of all {len(array)} views; the "
                                "field is empty, or its cameras stand elsewhere: check scan and field with 'verify'")
        counts = self._clipped.array.read(0, len(self._cameras)).sum(axis=0).tolist()
        clipped = dict(zip(self._channels, counts, strict=True))
        self._warn_of_clipping(clipped)
        self._cameras.save(self._partial / CAMERAS_FILE)
        write_json(self._partial / META_FILE, {
            "version": FORMAT_VERSION,
            "scene": self._cameras.scene,
            "views": len(self._cameras),
            "size": list(self._cameras.image_size),
            "channels": {name: {"dtype": dtype, "shape": list(shape), "settings": self._made_from[name]}
                         for name, (dtype, shape) in self._channels.items()},
            "sh_range": None if self._sh_range is None else self._sh_range.tolist(),
            "clipped": clipped,
            "attributes": self._attributes,
            **division({name: array.array.views_per_file for name, array in self._arrays.items()}),
        })  # fmt: skip
        channel_file(self._partial, _DONE).unlink()
        channel_file(self._partial, _CLIPPED).unlink()
        commit_output(self._path)
        return ViewStore(self._path)

    def _warn_of_clipping(self, clipped: dict[str, int]) -> None:
        for name, count in clipped.items():
            if count:
                share = count / math.prod(self._arrays[name].shape)
                logger.warning("%s: %d values of %s (%.2g%%) lay outside what can be stored and were clamped",
                               self._path, count, name, 100 * share)


def _checked_range(channels: Mapping[str, tuple[str, tuple]], sh_range: Tensor | None) -> Tensor | None:
    if channels.get("sh", ("",))[0] != "uint8":
        return None
    if sh_range is None or tuple(sh_range.shape) != (CHANNEL_KINDS["sh"].planes, 2):
        raise ValueError("sh as uint8 needs sh_range, float32 [27, 2]: the (min, max) of each channel")
    sh_range = sh_range.detach().cpu().float()
    if not torch.isfinite(sh_range).all() or (sh_range[:, 1] < sh_range[:, 0]).any():
        raise ValueError("sh_range must be finite, with min <= max in every row")
    return sh_range

"""Class probabilities of a store's views: of a network, or from a file that any program wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloader import ViewStore
from enet.module import SegmentationModule
from enet.view_inputs import ViewInputs
from utils.arrays import read_header
from utils.errors import UserError, reading
from utils.files import regular_file
from utils.labels import label_set

_WHAT = "predicted class probabilities, float16 [N, C, h, w]"
_ADVICE = "write them with numpy.save, one entry a view of the store, in its order"
_SUM_TOLERANCE = 0.02  # of probabilities in half precision


class StoredPredictions:
    """Predictions ``[1, C, h, w]``, view by view, from a ``.npy`` file.

    Attributes:
        trained_on: None: which scenes the network was trained on is not known.

    Raises:
        UserError: absent, damaged, of another shape, or not probabilities.
    """

    trained_on = None

    def __init__(self, path: Path, views: int):
        self._path = path
        regular_file(path, _WHAT, _ADVICE)
        with reading(path, _WHAT, _ADVICE), open(path, "rb") as file:
            self._header = read_header(file)
        header, length = self._header, path.stat().st_size
        if header.dtype not in (np.float16, np.float32) or header.fortran or len(header.shape) != 4:
            raise UserError(f"{path} holds {header.dtype} {list(header.shape)}; expected {_WHAT}: {_ADVICE}")
        if header.shape[:2] != (views, label_set().num_classes) or min(header.shape) < 1:
            raise UserError(f"{path} holds predictions of shape {list(header.shape)}; the store has {views} views and "
                            f"there are {label_set().num_classes} classes: {_ADVICE}")
        if length != header.offset + header.num_bytes:
            raise UserError(f"{path} is {length} bytes long, expected {header.offset + header.num_bytes}; it is "
                            "truncated: write it again")

    def __iter__(self) -> Iterator[Tensor]:
        header = self._header
        count = header.num_bytes // header.dtype.itemsize // header.shape[0]
        for view in range(header.shape[0]):
            offset = header.offset + view * count * header.dtype.itemsize
            with reading(self._path, _WHAT, _ADVICE):
                values = np.fromfile(self._path, header.dtype, count, offset=offset).reshape(1, *header.shape[1:])
            probabilities = torch.from_numpy(values).float()
            sums = probabilities.sum(1)
            if not (probabilities.min() >= 0 and (sums - 1).abs().max() < _SUM_TOLERANCE):
                raise UserError(f"{self._path}: view {view} holds no probabilities (they are from "
                                f"{probabilities.min():g}, and their sums from {sums.min():g} to {sums.max():g}; "
                                "expected 0 or more, and 1); store the softmax")
            yield probabilities


class CheckpointPredictions:
    """A network's predictions ``[n, C, H, W]`` of a store's views; the views need no labels.

    Args:
        module: the network.
        store: its views.
        batch_size: of them at a time.
        views: which ones; None: all.

    Attributes:
        trained_on: names of the scenes that the network was trained or validated on.

    Raises:
        UserError: the store lacks a channel that the network takes.
    """

    def __init__(
        self, module: SegmentationModule, store: ViewStore, batch_size: int, views: Sequence[int] | None = None
    ):
        self._module, self._inputs, self._batch_size = module, ViewInputs(module, store), batch_size
        self._views = list(range(len(store)) if views is None else views)
        self.trained_on: list[str] = list(module.hparams["scenes"])

    def __iter__(self) -> Iterator[Tensor]:
        for first in range(0, len(self._views), self._batch_size):
            views = self._views[first : first + self._batch_size]
            yield self._module.predict(**self._inputs(views)).clone()

"""Class probabilities of a store's views: of a network, or from a file that any program wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloader import ViewStore
from enet.geometry import geometry_images, pixel_to_gravity, stored_channels
from enet.module import SegmentationModule
from enet.options import ViewOptions
from enet.picture import blurred
from enet.sh_frames import sh_matrices
from utils.arrays import read_header
from utils.errors import UserError, reading
from utils.files import regular_file
from utils.labels import label_set
from utils.spherical_harmonics import transform_sh_image

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
        self._module, self._store, self._batch_size = module, store, batch_size
        self._views = list(range(len(store)) if views is None else views)
        self.trained_on: list[str] = list(module.hparams["scenes"])
        self._options = ViewOptions(**module.hparams["views"])
        store.check_channel(self._options.color)
        self._matrices = None
        self._beside = module.network.beside
        for channel in stored_channels(self._beside.geometry):
            store.check_channel(channel)
        if self._beside.uses_sh:
            store.check_channel("sh")
            self._matrices = self._to_frame()

    def _to_frame(self) -> Tensor | None:
        """Transforms ``[N, 9, 9]`` of the views' coefficients into the axes that the network was trained in."""
        if self._options.sh_frame == "grid":
            return None
        if "T" not in self._store.attributes:
            raise UserError(f"{self._store.path}/meta.json does not hold the field's transform T, which the network's "
                            f"sh_frame = {self._options.sh_frame!r} needs; render the views again")
        rotation = torch.tensor(self._store.attributes["T"], dtype=torch.float64).reshape(4, 4)[:3, :3]
        cameras = self._store.cameras.camera_to_world[:, :3, :3].double()
        return sh_matrices(self._options.sh_frame, cameras, rotation)[:, 0]

    def __iter__(self) -> Iterator[Tensor]:
        device = self._module.device
        for first in range(0, len(self._views), self._batch_size):
            views = self._views[first : first + self._batch_size]
            inputs = {"color": blurred(self._read(self._options.color, views).to(device), self._options.blur)}
            if self._beside.uses_sh:
                inputs["sh"] = self._sh(views, device)
            if self._beside.geometry:
                inputs["geometry"] = self._geometry(views, device)
            yield self._module.predict(**inputs).clone()

    def _sh(self, views: Sequence[int], device: torch.device) -> Tensor:
        sh = self._read("sh", views).to(device)
        return sh if self._matrices is None else transform_sh_image(sh, self._matrices[views].to(device))

    def _geometry(self, views: Sequence[int], device: torch.device) -> Tensor:
        channels = stored_channels(self._beside.geometry)
        stored = {channel: self._read(channel, views).to(device) for channel in channels}
        cameras = self._store.cameras
        to_gravity = pixel_to_gravity(
            cameras.camera_to_world[views], cameras.intrinsics[views], cameras.lens
        ).to(device)
        return geometry_images(
            self._beside.geometry, stored.get("depth"), stored["alpha"], to_gravity, self._options.surface_alpha
        )

    def _read(self, channel: str, views: Sequence[int]) -> Tensor:
        return torch.stack([self._store.read(channel, view) for view in views])

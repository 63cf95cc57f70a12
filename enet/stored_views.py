"""Views of stores as a source: from the numbers on disk to the network's input, aligned to the pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dataloader import StoreViews, ViewDataset, ViewStore
from dataloader.view_channels import decode
from enet.decoding import ViewFinisher, ViewImages
from enet.draws import NUM_DRAWS
from enet.geometry import mirror_signs, pixel_to_gravity, stored_channels
from enet.mixing import MixOptions
from enet.options import AugmentationOptions, ViewOptions
from enet.sh_frames import sh_matrices
from enet.view_source import DeferredBatch, Step, TrainingOrder, ViewBatch, ViewSource
from utils.device import exact_device, free_cached
from utils.errors import UserError

_VIEWS_AT_ONCE = 256  # read and copied to the device at a time


class StoredViews(ViewSource):
    """Views of any number of stores, original and novel ones together.

    With ``options.cache`` all of them are read once for each device and stay in its memory, as stored; otherwise they
    are read from disk every time.
    """

    num_draws = NUM_DRAWS

    def __init__(
        self,
        stores: Sequence[str | Path | StoreViews],
        options: ViewOptions,
        uses_sh: bool,
        augmentation: AugmentationOptions | None = None,
        weighted: bool = False,
        geometry: Sequence[str] = (),
        mix: MixOptions | None = None,
    ):
        """Open the stores and check them, without reading pixels.

        Args:
            stores: folders of finished, annotated stores, or some of their views.
            options: the network's input from a view, and whether views are cached.
            uses_sh: whether it takes SH images.
            augmentation: of training views; None changes nothing.
            weighted: whether pixels are weighted by the stores' render quality.
            geometry: kinds of geometry that the network takes, in the order of :data:`enet.inputs.GEOMETRY`.
            mix: shares of the folders (:attr:`dataloader.StoreViews.folder`) in training; None draws all views alike.

        Raises:
            UserError: as :class:`dataloader.ViewDataset`, also for the channels that geometry is made of; or a store
                does not say how its field's axes lie.
        """
        self.geometry = tuple(geometry)
        inputs, further = "rgb+sh" if uses_sh else "rgb", stored_channels(self.geometry)
        self._dataset = ViewDataset(stores, inputs, options.color, weighted, further)
        self._options, self._augmentation, self._mix = options, augmentation, mix or MixOptions()
        mirroring = augmentation is not None and augmentation.mirror > 0
        self._matrices = _matrices_of(self._dataset, options.sh_frame, mirroring)
        self._to_gravity = _pixels_of(self._dataset) if self.geometry else None
        self._on_device: dict[torch.device, _DeviceViews] = {}
        self.scenes, self.size = _seen(self._dataset), self._dataset.size
        self.has_sh, self.has_weight = uses_sh, weighted

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_device": {}}  # another process fills its own device

    def __len__(self) -> int:
        return len(self._dataset)

    def identity(self) -> list[dict[str, Any]]:
        return [entry.identity(self._dataset.channels) for entry in self._dataset.selections]

    def describe(self, view: int) -> str:
        return self._dataset.describe(view)

    def training_steps(self, order: TrainingOrder, epoch: int) -> Sequence[Step]:
        shares = self._mix.shares_at(epoch)
        if shares is None:
            return super().training_steps(order, epoch)
        return order.mixed(self._dataset.folder_of_view, shares, self.num_draws, epoch)

    def expected_draws(self, epochs: int) -> Tensor:
        return self._mix.expected_draws(self._dataset.folder_of_view, epochs)

    def batches(self, steps: Sequence[Step], device: torch.device) -> Iterator[DeferredBatch]:
        """One batch for every step.

        Raises:
            UserError: a label in a file is no class index, or an SH coefficient no finite number.
        """
        views = self._views_on(device)
        placed = [step.to(device) for step in steps]  # all at once: copies in between would make the host wait
        if views.cached is not None:
            for step in placed:
                yield DeferredBatch(views.cached, step)
            return
        for step, values in zip(placed, views.read(steps), strict=True):
            yield DeferredBatch(views.decoder, values, step)

    def release(self) -> None:
        self._on_device.clear()
        free_cached()

    def _views_on(self, device: torch.device) -> _DeviceViews:
        device = exact_device(device)
        if device not in self._on_device:
            matrices, to_gravity = (
                None if values is None else values.to(device) for values in (self._matrices, self._to_gravity)
            )  # fmt: skip
            signs = mirror_signs(self.geometry).to(device)
            finish = ViewFinisher(self._options, self.geometry, signs, self._augmentation)
            decoder = _Decoder(finish, matrices, to_gravity)
            self._on_device[device] = _DeviceViews(self._dataset, device, decoder, self._options)
        return self._on_device[device]


class _DeviceViews:
    """A source's part on one device: the decoder, and all stored values where they are cached."""

    def __init__(self, dataset: ViewDataset, device: torch.device, decoder: _Decoder, options: ViewOptions):
        self.decoder = decoder
        self._dataset, self._device, self._workers = dataset, device, options.workers
        self.cached = _CachedDecoder(decoder, _fill_cache(dataset, device)) if options.cache else None

    def read(self, steps: Sequence[Step]) -> Iterator[dict[str, Tensor]]:
        """Stored values of each step's views, read from disk ahead, on the device."""
        reader = DataLoader(
            [step.views for step in steps],
            batch_size=None,
            collate_fn=self._dataset.stored_batch,
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
        )
        for stored in reader:
            yield {name: values.to(self._device, non_blocking=True) for name, values in stored.items()}


def _fill_cache(dataset: ViewDataset, device: torch.device) -> dict[str, Tensor]:
    """All values as stored, 8 bits each where the stores have it so."""
    cache: dict[str, Tensor] = {}
    for views in torch.arange(len(dataset)).split(_VIEWS_AT_ONCE):
        for name, values in dataset.stored_batch(views).items():
            if name not in cache:
                cache[name] = torch.empty((len(dataset), *values.shape[1:]), dtype=values.dtype, device=device)
            cache[name][views[0] : views[-1] + 1] = values.to(device)
    return cache


@dataclass(frozen=True)
class _Decoder:
    """Decodes the stored values of a step's views into a :class:`ViewBatch`, on one device.

    Attributes:
        finish: makes the batch of decoded images.
        sh_matrices: of every view, see :class:`enet.decoding.ViewImages`.
        to_gravity: likewise.
    """

    finish: ViewFinisher
    sh_matrices: Tensor | None
    to_gravity: Tensor | None

    def __call__(self, values: dict[str, Tensor], step: Step) -> ViewBatch:
        images = ViewImages(
            decode("rgb", values["color"]),
            values["label"],
            decode("sh", values["sh"], values.get("sh_range")) if "sh" in values else None,
            decode("depth", values["depth"]) if "depth" in values else None,
            decode("alpha", values["alpha"]) if "alpha" in values else None,
            decode("quality", values["weight"]) if "weight" in values else None,
            *(None if of_all is None else of_all[step.views] for of_all in (self.sh_matrices, self.to_gravity)),
        )
        return self.finish(images, step.draws)


@dataclass(frozen=True)
class _CachedDecoder:
    """The same from all stored values of the source, which lie on the device."""

    decoder: _Decoder
    cache: dict[str, Tensor]

    def __call__(self, step: Step) -> ViewBatch:
        return self.decoder({name: values.index_select(0, step.views) for name, values in self.cache.items()}, step)


def _matrices_of(dataset: ViewDataset, frame: str, mirroring: bool) -> Tensor | None:
    """SH transforms [N, 2, 9, 9] of a dataset's views; None if all are 1.

    Raises:
        UserError: a store does not say how its field's axes lie in the world.
    """
    if not dataset.has_sh or (frame == "grid" and not mirroring):
        return None
    matrices = torch.empty(len(dataset), 2, 9, 9)
    for number, store in enumerate(dataset.stores):
        chosen = dataset.store_of_view == number
        camera_to_world = store.cameras.camera_to_world[dataset.index_in_store[chosen]][:, :3, :3]
        matrices[chosen] = sh_matrices(frame, camera_to_world, _world_to_grid(store))
    return matrices


def _pixels_of(dataset: ViewDataset) -> Tensor:
    """Of a dataset's views, [N, 3, 3]; see :func:`enet.geometry.pixel_to_gravity`."""
    to_gravity = torch.empty(len(dataset), 3, 3)
    for number, store in enumerate(dataset.stores):
        chosen = dataset.store_of_view == number
        views = dataset.index_in_store[chosen]
        cameras = store.cameras
        to_gravity[chosen] = pixel_to_gravity(cameras.camera_to_world[views], cameras.intrinsics[views], cameras.lens)
    return to_gravity


def _seen(dataset: ViewDataset) -> list[str]:
    """The scenes of a dataset, and those that networks whose predictions it takes as labels have learned from."""
    predicted = (entry.predicted for entry in dataset.selections)
    return sorted({*dataset.scenes, *(scene for labels in predicted if labels for scene in labels.trained_on)})


def _world_to_grid(store: ViewStore) -> Tensor:
    """Rotation [3, 3] from world axes to those of the field, which the SH coefficients are in."""
    if "T" not in store.attributes:
        raise UserError(
            f"{store.path}/meta.json does not hold the field's transform T, which mirroring and sh_frame need; render "
            "it again, or use sh_frame = 'grid' and mirror = 0"
        )
    return torch.tensor(store.attributes["T"], dtype=torch.float64)[:3, :3]

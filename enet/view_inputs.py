"""What a network takes of a store's views, which need no labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dataloader import ViewStore
from enet.geometry import geometry_images, pixel_to_gravity, stored_channels
from enet.module import SegmentationModule
from enet.options import ViewOptions
from enet.picture import blurred
from enet.sh_frames import sh_matrices
from utils.errors import UserError
from utils.spherical_harmonics import transform_sh_image


def channels_of(module: SegmentationModule) -> tuple[str, ...]:
    """Channels of stores that a network's inputs are made of."""
    beside = module.network.beside
    color = ViewOptions(**module.hparams["views"]).color
    return (color, *stored_channels(beside.geometry), *(("sh",) if beside.uses_sh else ()))


class ViewInputs:
    """Called with numbers of a store's views: their inputs on the network's device, by name.

    Args:
        module: the network.
        store: the views.

    Raises:
        UserError: the store lacks a channel that the network takes, or does not say how its field's axes lie.
    """

    def __init__(self, module: SegmentationModule, store: ViewStore):
        self._device, self._store = module.device, store
        self._options = ViewOptions(**module.hparams["views"])
        self._beside = module.network.beside
        for channel in channels_of(module):
            store.check_channel(channel)
        self._matrices = self._to_frame() if self._beside.uses_sh else None

    def __call__(self, views: Sequence[int]) -> dict[str, Tensor]:
        """``color`` [n, 3, H, W], 0..1; if the network takes them ``sh`` [n, 27, H, W], ``geometry`` [n, G, H, W]."""
        inputs = {"color": blurred(self._read(self._options.color, views), self._options.blur)}
        if self._beside.uses_sh:
            sh = self._read("sh", views)
            matrices = self._matrices
            inputs["sh"] = sh if matrices is None else transform_sh_image(sh, matrices[views].to(self._device))
        if self._beside.geometry:
            inputs["geometry"] = self._geometry(views)
        return inputs

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

    def _geometry(self, views: Sequence[int]) -> Tensor:
        stored = {channel: self._read(channel, views) for channel in stored_channels(self._beside.geometry)}
        cameras = self._store.cameras
        to_gravity = pixel_to_gravity(
            cameras.camera_to_world[views], cameras.intrinsics[views], cameras.lens
        ).to(self._device)
        return geometry_images(
            self._beside.geometry, stored.get("depth"), stored["alpha"], to_gravity, self._options.surface_alpha
        )

    def _read(self, channel: str, views: Sequence[int]) -> Tensor:
        return torch.stack([self._store.read(channel, view) for view in views]).to(self._device)

"""From stored values to the network's input: SH in the chosen axes, augmented, aligned to the pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dataloader import BatchDecoding, ViewDataset, ViewStore
from dataloader.view_channels import decode
from enet.augmentation import NUM_DRAWS, Draws, ViewBatch, augment, mirrored
from enet.options import AugmentationOptions
from utils.errors import UserError
from utils.spherical_harmonics import grid_to_frame, mirror_matrix, sh_transform, transform_sh_image


@dataclass(frozen=True)
class NetworkDecoding(BatchDecoding):
    """Training batches become :class:`StoredBatch`, all others :class:`ViewBatch`.

    Attributes:
        sh_frame: as in :class:`enet.options.ViewOptions`.
        augmentation: of training views.
    """

    sh_frame: str = "grid"
    augmentation: AugmentationOptions = AugmentationOptions()
    num_draws: int = NUM_DRAWS

    def prepare(
        self, dataset: ViewDataset, device: torch.device, training: bool
    ) -> Callable[[dict[str, Tensor]], Any]:
        if training:
            return partial(StoredBatch, decoder=ViewDecoder(dataset, device, self.sh_frame, self.augmentation))
        return ViewDecoder(dataset, device, self.sh_frame)


@dataclass
class StoredBatch:
    """Views as stored, on the training device, with what turns them into a :class:`ViewBatch`.

    Decoding waits until the training step, so that it can be fused with the network.

    Attributes:
        values: as :meth:`dataloader.ViewDataset.stored_batch` gives them, with ``draws`` float32 [B, NUM_DRAWS].
        decoder: of the views' dataset.
    """

    values: dict[str, Tensor]
    decoder: ViewDecoder

    def decode(self) -> ViewBatch:
        return self.decoder(self.values)


class ViewDecoder:
    """Stored values of a batch to a :class:`ViewBatch`, augmented where random numbers and options are given.

    Its tables lie on ``device``; nothing in a call waits for the device.
    """

    def __init__(
        self,
        dataset: ViewDataset,
        device: torch.device,
        sh_frame: str,
        augmentation: AugmentationOptions | None = None,
    ):
        self._augmentation = augmentation
        matrices = sh_matrices(dataset, sh_frame, augmentation is not None and augmentation.mirror > 0)
        self._sh_matrices = None if matrices is None else matrices.to(device)

    def __call__(self, values: dict[str, Tensor]) -> ViewBatch:
        """``values`` as in :class:`StoredBatch`; ``draws`` may be absent."""
        random = None
        if "draws" in values and self._augmentation is not None:
            random = Draws.split(values["draws"])
        batch = ViewBatch(
            decode("rgb", values["color"]),
            self._decode_sh(values, random) if "sh" in values else None,
            values["label"],
            decode("quality", values["weight"]) if "weight" in values else None,
        )
        return batch if random is None else augment(batch, random, self._augmentation)

    def _decode_sh(self, values: dict[str, Tensor], random: Draws | None) -> Tensor:
        sh, views = decode("sh", values["sh"], values.get("sh_range")), values["index"]
        if self._sh_matrices is None:
            return sh
        flipped = torch.zeros_like(views) if random is None else mirrored(random, self._augmentation).to(views.dtype)
        return transform_sh_image(sh, self._sh_matrices[views, flipped])


def sh_matrices(dataset: ViewDataset, frame: str, mirroring: bool) -> Tensor | None:
    """Transforms float32 [N, 2, 9, 9] of the views' SH: into ``frame``, plain and mirrored; None if all are 1.

    In the frame's axes the camera's right axis is the mirror's normal.

    Raises:
        UserError: a store does not say how its field's axes lie in the world.
    """
    if not dataset.has_sh or (frame == "grid" and not mirroring):
        return None
    matrices = torch.empty(len(dataset), 2, 9, 9)
    for number, store in enumerate(dataset.stores):
        chosen = dataset.store_of_view == number
        camera_to_world = store.cameras.camera_to_world[dataset.index_in_store[chosen]][:, :3, :3]
        world_to_grid = _world_to_grid(store)
        rotations = grid_to_frame(frame, camera_to_world, world_to_grid)
        camera_to_frame = rotations @ (world_to_grid @ camera_to_world)
        plain = sh_transform(rotations)
        mirror = sh_transform(mirror_matrix(camera_to_frame[:, :, 0]))
        matrices[chosen] = torch.stack([plain, mirror @ plain], dim=1).float()
    return matrices


def _world_to_grid(store: ViewStore) -> Tensor:
    """Rotation [3, 3] from world axes to those of the field, which the SH coefficients are in."""
    if "T" not in store.attributes:
        raise UserError(
            f"{store.path}/meta.json does not hold the field's transform T, which mirroring and sh_frame need; render "
            "it again, or use sh_frame = 'grid' and mirror = 0"
        )
    return torch.tensor(store.attributes["T"], dtype=torch.float64)[:3, :3]

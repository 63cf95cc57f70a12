"""From stored values to what the network sees: SH in the chosen axes, augmented, aligned to the pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dataloader import ViewStore
from dataloader.view_channels import decode
from enet.augmentation import Draws, ViewBatch, augment, mirrored
from enet.options import AugmentationOptions
from enet.view_table import ViewTable
from utils.errors import UserError
from utils.spherical_harmonics import mirror_matrix, sh_transform, transform_sh_image


@dataclass
class StoredBatch:
    """Views as stored, on the training device, with what turns them into a :class:`ViewBatch`.

    Decoding waits until the training step, so that it can be fused with the network.

    Attributes:
        values: ``color``, ``label``, ``sh``, ``weight`` [B, ...] in the stored dtypes.
        views: int64 [B], places in the table.
        draws: float32 [B, NUM_DRAWS], uniform random numbers.
        decoder: of the table.
    """

    values: dict[str, Tensor]
    views: Tensor
    draws: Tensor
    decoder: ViewDecoder

    def decode(self) -> ViewBatch:
        return self.decoder(self.values, self.views, self.draws)


class ViewDecoder:
    """Stored values of a batch to a :class:`ViewBatch`, augmented where random numbers are given.

    Its tables lie on ``device``; nothing in a call waits for the device.
    """

    def __init__(self, table: ViewTable, device: torch.device, augmentation: AugmentationOptions | None = None):
        self._augmentation = augmentation
        self._store_of_view = table.store_of_view.to(device)
        matrices = sh_matrices(table, augmentation is not None and augmentation.mirror > 0)
        self._sh_matrices = None if matrices is None else matrices.to(device)
        self._sh_ranges = None
        stores = table.dataset.stores
        if table.uses_sh and stores[0].sh_range is not None:
            self._sh_ranges = torch.stack([store.sh_range for store in stores]).to(device)

    def __call__(self, values: dict[str, Tensor], views: Tensor, draws: Tensor | None = None) -> ViewBatch:
        """Arguments as in :class:`StoredBatch`."""
        random = None if draws is None or self._augmentation is None else Draws.split(draws)
        batch = ViewBatch(
            decode("rgb", values["color"]),
            self._decode_sh(values["sh"], views, random) if "sh" in values else None,
            values["label"],
            decode("quality", values["weight"]) if "weight" in values else None,
        )
        return batch if random is None else augment(batch, random, self._augmentation)

    def _decode_sh(self, stored: Tensor, views: Tensor, random: Draws | None) -> Tensor:
        sh = decode("sh", stored, None if self._sh_ranges is None else self._sh_ranges[self._store_of_view[views]])
        if self._sh_matrices is None:
            return sh
        flipped = torch.zeros_like(views) if random is None else mirrored(random, self._augmentation).to(views.dtype)
        return transform_sh_image(sh, self._sh_matrices[views, flipped])


def sh_matrices(table: ViewTable, mirroring: bool) -> Tensor | None:
    """Transforms float32 [N, 2, 9, 9] of the views' SH: into ``sh_frame``, plain and mirrored; None if all are 1.

    In the frame's axes the camera's right axis is the mirror's normal.

    Raises:
        UserError: a store does not say how its field's axes lie in the world.
    """
    frame = table.options.sh_frame
    if not table.uses_sh or (frame == "grid" and not mirroring):
        return None
    matrices = torch.empty(len(table), 2, 9, 9)
    for number, store in enumerate(table.dataset.stores):
        chosen = table.store_of_view == number
        camera_to_world = store.cameras.camera_to_world[table.index_in_store[chosen]][:, :3, :3]
        grid_to_frame, camera_to_frame = _frame_rotations(frame, camera_to_world, _world_to_grid(store))
        plain = sh_transform(grid_to_frame)
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


def _frame_rotations(frame: str, camera_to_world: Tensor, world_to_grid: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations [N, 3, 3] from the grid's axes, and from the camera's, to those of ``frame``."""
    camera_to_grid = world_to_grid @ camera_to_world
    grid_to_frame = {
        "grid": torch.eye(3, dtype=torch.float64).expand_as(camera_to_grid),
        "gravity": world_to_grid.T.expand_as(camera_to_grid),
        "camera": camera_to_grid.mT,
    }[frame]
    return grid_to_frame, grid_to_frame @ camera_to_grid

"""From stored values to what the network sees: SH in the chosen axes, augmented, aligned to the pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from dataloader import ViewStore
from dataloader.view_channels import dequantize_sh
from enet.augmentation import Draws, ViewBatch, augment, mirrored
from enet.options import AugmentationOptions
from enet.view_table import ViewTable
from utils.errors import UserError
from utils.spherical_harmonics import mirror_matrix, sh_transform, transform_sh_image


class ViewDecoder:
    """Raw stored values of a batch to a :class:`ViewBatch`, augmented where random numbers are given.

    Its tables lie on ``device``; nothing in a call waits for the device.
    """

    def __init__(self, table: ViewTable, device: torch.device, augmentation: AugmentationOptions | None = None):
        self._augmentation = augmentation
        self._store_of_view = table.store_of_view.to(device)
        matrices = sh_matrices(table, augmentation is not None and augmentation.mirror > 0)
        self._sh_matrices = None if matrices is None else matrices.to(device)
        self._sh_ranges = None
        if table.uses_sh and table.stored_dtype("sh") == torch.uint8:
            self._sh_ranges = torch.stack([store.sh_range for store in table.stores]).to(device)

    def __call__(self, raw: dict[str, Tensor], views: Tensor, draws: Tensor | None = None) -> ViewBatch:
        """``raw``: colour, label, sh, quality as stored [B, ...]; ``views`` [B]; ``draws`` [B, NUM_DRAWS]."""
        random = None if draws is None or self._augmentation is None else Draws.split(draws)
        batch = ViewBatch(
            raw["color"].float() / 255,
            self._decode_sh(raw["sh"], views, random) if "sh" in raw else None,
            raw["label"],
            raw["quality"].float() / 255 if "quality" in raw else None,
        )
        return batch if random is None else augment(batch, random, self._augmentation)

    def _decode_sh(self, stored: Tensor, views: Tensor, random: Draws | None) -> Tensor:
        sh = stored.float()
        if self._sh_ranges is not None:
            sh = dequantize_sh(stored, self._sh_ranges[self._store_of_view[views]])
        if self._sh_matrices is not None:
            flipped = (
                torch.zeros_like(views) if random is None else mirrored(random, self._augmentation).to(views.dtype)
            )
            sh = transform_sh_image(sh, self._sh_matrices[views, flipped])
        return sh


def sh_matrices(table: ViewTable, mirroring: bool) -> Tensor | None:
    """Transforms float32 [N, 2, 9, 9] of the views' SH: into ``sh_frame``, plain and mirrored; None if all are 1.

    In the frame's axes the camera's right axis is the mirror's normal.
    """
    frame = table.options.sh_frame
    if not table.uses_sh or (frame == "grid" and not mirroring):
        return None
    matrices = []
    for store, rows in zip(table.stores, table.rows, strict=True):
        camera_to_world = store.cameras.camera_to_world[rows][:, :3, :3]
        grid_to_frame, camera_to_frame = _frame_rotations(frame, camera_to_world, _world_to_grid(store))
        plain = sh_transform(grid_to_frame)
        mirror = sh_transform(mirror_matrix(camera_to_frame[:, :, 0]))
        matrices.append(torch.stack([plain, mirror @ plain], dim=1))
    return torch.cat(matrices).float()


def _world_to_grid(store: ViewStore) -> Tensor:
    """Rotation [3, 3] from world axes to those the store's SH coefficients are in."""
    rotation = store.attributes.get("world_to_grid_rotation")
    if rotation is None:
        raise UserError(
            f"{store.path} does not say in which axes its SH coefficients are (world_to_grid_rotation in meta.json), which "
            "mirroring and sh_frame need; render it again, or use sh_frame = 'grid' and mirror = 0"
        )
    return torch.tensor(rotation, dtype=torch.float64)


def _frame_rotations(frame: str, camera_to_world: Tensor, world_to_grid: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations [N, 3, 3] from the grid's axes, and from the camera's, to those of ``frame``."""
    camera_to_grid = world_to_grid @ camera_to_world
    grid_to_frame = {
        "grid": torch.eye(3, dtype=torch.float64).expand_as(camera_to_grid),
        "gravity": world_to_grid.T.expand_as(camera_to_grid),
        "camera": camera_to_grid.mT,
    }[frame]
    return grid_to_frame, grid_to_frame @ camera_to_grid

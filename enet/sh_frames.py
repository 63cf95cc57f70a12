"""Axes of SH images, and the transform of their coefficients when a view is mirrored."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.spherical_harmonics import grid_to_frame, mirror_matrix, sh_transform


def sh_matrices(
    frame: str,
    camera_to_world: Tensor,  # [N, 3, 3] rotations
    world_to_grid: Tensor,  # [3, 3] or [N, 3, 3] rotations from world axes to the fields', in which coefficients are
) -> Tensor:
    """Transforms float32 [N, 2, 9, 9] of the coefficients of views: into ``frame``, plain and mirrored left to right.

    Mirroring shows the world reflected in the camera's vertical plane: in the frame's axes, the camera's right axis is
    the mirror's normal.

    Args:
        frame: "grid", "gravity" or "camera", see :class:`enet.options.ViewOptions`.
        camera_to_world, world_to_grid: float64, so that rounding errors do not accumulate.
    """
    rotations = grid_to_frame(frame, camera_to_world, world_to_grid)
    camera_to_frame = rotations @ (world_to_grid @ camera_to_world)
    plain = sh_transform(rotations)
    mirror = sh_transform(mirror_matrix(camera_to_frame[:, :, 0]))
    return torch.stack([plain, mirror @ plain], dim=1).float()

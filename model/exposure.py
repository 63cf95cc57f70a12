"""What a camera's exposure does to a field's colours, and what it would be for a camera anywhere.

photograph = gain * field + offset for each colour channel. Automatic exposure follows what the camera sees, so cameras
close to each other that look the same way have like exposures: a new camera takes the mean of the training cameras,
weighted by how near they are in position and direction. Nothing of a new camera's own picture is used.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.files import atomic_path

EXPOSURE_FILE = "exposure.npz"
NEAR_METRES = 0.1
_NEAR_RADIANS = 0.2
_FADE = 8.0


@dataclass(frozen=True)
class ExposureModel:
    """Exposures of the training cameras.

    Attributes:
        camera_to_world: float64 ``[N, 4, 4]``, metres.
        gain: float32 ``[N, 3]``.
        offset: float32 ``[N, 3]``.
        near: distance within which exposures are alike, in the world's unit.
    """

    camera_to_world: Tensor
    gain: Tensor
    offset: Tensor
    near: float = NEAR_METRES

    def at(self, camera_to_world: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and offset ``[..., 3]`` of cameras ``[..., 4, 4]``, float32 on the CPU.

        Far from all training cameras (by about eight times ``near``, or turned by 1.6 rad) they fade to 1 and 0.
        """
        pose = camera_to_world.double().cpu()
        distance = (pose[..., None, :3, 3] - self.camera_to_world[:, :3, 3]).norm(dim=-1)
        trace = (pose[..., None, :3, :3] * self.camera_to_world[:, :3, :3]).sum((-1, -2))
        angle = torch.arccos(((trace - 1) / 2).clamp(-1, 1))
        squared = (distance / self.near) ** 2 + (angle / _NEAR_RADIANS) ** 2
        nearest = squared.amin(-1, keepdim=True)
        weights = torch.softmax(-squared / 2, dim=-1) * torch.exp(-nearest / (2 * _FADE**2))
        weights = weights.float()
        return 1 + weights @ (self.gain - 1), weights @ self.offset

    def save(self, folder: str | Path) -> None:
        """Write ``exposure.npz`` into a field's folder."""
        with atomic_path(Path(folder) / EXPOSURE_FILE) as temporary:
            np.savez(
                temporary, camera_to_world=self.camera_to_world.numpy(), gain=self.gain.numpy(),
                offset=self.offset.numpy(), near=np.float64(self.near),
            )  # fmt: skip

    @classmethod
    def load(cls, folder: str | Path) -> ExposureModel | None:
        """Read ``exposure.npz`` of a field's folder; None where there is none.

        Raises:
            UserError: the file is damaged.
        """
        path = Path(folder) / EXPOSURE_FILE
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                pose, gain, offset = (torch.from_numpy(archive[name]) for name in ("camera_to_world", "gain", "offset"))
                count = len(pose)
                near = float(archive["near"]) if "near" in archive.files else NEAR_METRES
                return cls(pose.double().reshape(count, 4, 4), gain.float().reshape(count, 3),
                           offset.float().reshape(count, 3), near)  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged ({error}); fit the scene again, or delete it to render every view at "
                            "the average exposure") from None

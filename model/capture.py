"""Exposure and pose error of the training cameras, and their estimates for a camera anywhere.

photograph = gain * field + offset for each colour channel, seen from near the given pose. Automatic exposure depends on
what the camera sees, and tracking drifts slowly, so cameras that are close in position and direction have similar
exposures and similar pose errors: a new camera takes the mean of the training cameras, weighted by how near they are.
The new camera's own image is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from utils.rotations import axis_angle_to_matrix

NEAR_METRES = 0.1
_NEAR_RADIANS = 0.2
_FADE = 8.0


@dataclass(frozen=True)
class CaptureModel:
    """Exposures and pose corrections of the training cameras.

    Attributes:
        camera_to_world: float64 ``[N, 4, 4]``, the given poses, metres.
        gain: float32 ``[N, 3]``.
        offset: float32 ``[N, 3]``.
        turn: float64 ``[N, 3]``, rotations as axis-angle vectors in the world's axes, about the cameras' centres.
        shift: float64 ``[N, 3]``, translations of the cameras' centres, metres.
        near: distance within which cameras are similar, in the world's unit.
    """

    camera_to_world: Tensor
    gain: Tensor
    offset: Tensor
    turn: Tensor
    shift: Tensor
    near: float = NEAR_METRES

    @property
    def moved(self) -> bool:
        """Whether any pose was corrected."""
        return bool((self.turn != 0).any() or (self.shift != 0).any())

    def exposure(self, camera_to_world: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and offset ``[..., 3]`` of cameras ``[..., 4, 4]``, float32 on the CPU.

        Far from all training cameras (by about eight times ``near``, or rotated by 1.6 rad) they fade to 1 and 0.
        """
        weights = self._weights(camera_to_world).float()
        return 1 + weights @ (self.gain - 1), weights @ self.offset

    def estimated_pose(self, camera_to_world: Tensor) -> Tensor:
        """Estimated true poses of cameras with the given poses ``[..., 4, 4]``, float64 on the CPU."""
        weights = self._weights(camera_to_world)
        pose = camera_to_world.double().cpu().clone()
        pose[..., :3, :3] = axis_angle_to_matrix(weights @ self.turn) @ pose[..., :3, :3]
        pose[..., :3, 3] += weights @ self.shift
        return pose

    def _weights(self, camera_to_world: Tensor) -> Tensor:
        """Weight of each training camera, float64 ``[..., N]``; sums to at most 1."""
        pose = camera_to_world.double().cpu()
        distance = (pose[..., None, :3, 3] - self.camera_to_world[:, :3, 3]).norm(dim=-1)
        trace = (pose[..., None, :3, :3] * self.camera_to_world[:, :3, :3]).sum((-1, -2))
        angle = torch.arccos(((trace - 1) / 2).clamp(-1, 1))
        squared = (distance / self.near) ** 2 + (angle / _NEAR_RADIANS) ** 2
        nearest = squared.amin(-1, keepdim=True)
        return torch.softmax(-squared / 2, dim=-1) * torch.exp(-nearest / (2 * _FADE**2))

    def save(self, folder: str | Path) -> None:
        """Write ``capture.npz`` into a field's folder."""
        from dataloader.exposures import Exposures, save_exposures

        save_exposures(folder, Exposures(**vars(self)))

    @classmethod
    def load(cls, folder: str | Path) -> CaptureModel | None:
        """Read ``capture.npz`` of a field's folder; None where there is none.

        Raises:
            UserError: the file is damaged.
        """
        from dataloader.exposures import load_exposures

        stored = load_exposures(folder)
        return None if stored is None else cls(**stored._asdict())

"""Exposure and pose error of the training cameras, and their estimates for a camera anywhere.

photograph = gain * field + offset for each colour channel, seen from near the given pose. Automatic exposure depends on
what the camera sees, and tracking drifts slowly, so cameras that are close in position and direction have similar
exposures and similar pose errors: a new camera takes the mean of the training cameras, weighted by how near they are.
The new camera's own image is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.arrays import read_npz
from utils.errors import reading
from utils.files import atomic_path
from utils.limits import FARTHEST
from utils.rotations import axis_angle_to_matrix

CAPTURE_FILE = "capture.npz"
_PER_CAMERA = ("gain", "offset", "turn", "shift")
_WHAT = "the exposures of a fit"
_DAMAGED = "fit the scene again, or delete it to render every view at the average exposure"
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
        with atomic_path(Path(folder) / CAPTURE_FILE) as temporary:
            np.savez(
                temporary, camera_to_world=self.camera_to_world.numpy(), gain=self.gain.numpy(),
                offset=self.offset.numpy(), turn=self.turn.numpy(), shift=self.shift.numpy(),
                near=np.float64(self.near),
            )  # fmt: skip

    @classmethod
    def load(cls, folder: str | Path) -> CaptureModel | None:
        """Read ``capture.npz`` of a field's folder; None where there is none.

        Raises:
            UserError: the file is damaged.
        """
        path = Path(folder) / CAPTURE_FILE
        if not path.is_file():
            return None
        with reading(path, _WHAT, _DAMAGED):
            arrays = read_npz(path, _WHAT, ("camera_to_world", *_PER_CAMERA, "near"), advice=_DAMAGED)
            values = {name: torch.from_numpy(array.astype(np.float64)) for name, array in arrays.items()}
            pose, near = values["camera_to_world"].reshape(-1, 4, 4), values["near"].item()
            gain, offset, turn, shift = (values[name].reshape(len(pose), 3) for name in _PER_CAMERA)
            for name, numbers in values.items():
                if not len(pose) or not (numbers.abs() < FARTHEST).all():  # also where one is NaN
                    raise ValueError(f"{name} is empty or holds a number that is not finite or beyond {FARTHEST:g}")
            if near <= 0:
                raise ValueError(f"near is {near}")
            return cls(pose, gain.float(), offset.float(), turn, shift, near)

"""From a scene's world coordinates into the frame of its voxel grid, as PeRFception-ScanNet defines it.

With a rigid ``T``, a mean ``m`` and a scale ``s``, a world point x goes to ``(T x - m) s``. A camera's rotation
becomes ``R_T R``: lengths scale and angles are preserved, so view directions are rotated by ``R_T``. Centre and
radius of the grid are (0, 0, 0) and (1, 1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.arrays import read_npz
from utils.errors import UserError, reading
from utils.files import atomic_path
from utils.limits import FARTHEST


@dataclass(frozen=True)
class SceneTransform:
    """World to grid and back.

    Attributes:
        T: float64 ``[4, 4]``, rigid.
        pcd_mean: float64 ``[3]``, subtracted after ``T``; metres.
        scene_scale: grid units per metre.
        frame_ids: names of the frames that the field was fitted to; may be empty.
    """

    T: Tensor
    pcd_mean: Tensor
    scene_scale: float
    frame_ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "T", torch.as_tensor(self.T, dtype=torch.float64).reshape(4, 4))
        object.__setattr__(self, "pcd_mean", torch.as_tensor(self.pcd_mean, dtype=torch.float64).reshape(3))
        object.__setattr__(self, "scene_scale", float(self.scene_scale))

    @classmethod
    def identity(cls) -> SceneTransform:
        """The identity: world and grid coincide."""
        return cls(torch.eye(4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 1.0)

    @property
    def rotation(self) -> Tensor:
        """float64 ``[3, 3]``: rotates world directions into grid directions."""
        return self.T[:3, :3]

    def to_grid(self, camera_to_world: Tensor) -> Tensor:
        """Poses ``[..., 4, 4]`` of cameras in the grid's frame; float64. Rotations stay rotations."""
        pose = self.T.to(camera_to_world.device) @ camera_to_world.double()
        mean = self.pcd_mean.to(pose.device)
        return torch.cat(
            (torch.cat((pose[..., :3, :3], ((pose[..., :3, 3] - mean) * self.scene_scale)[..., None]), -1),
             pose[..., 3:, :]), -2
        )  # fmt: skip

    def points_to_grid(self, points: Tensor) -> Tensor:
        """World points ``[..., 3]`` in metres to grid coordinates, same dtype, computed in float64."""
        transform = self.T.to(points.device)
        moved = points.double() @ transform[:3, :3].T + (transform[:3, 3] - self.pcd_mean.to(points.device))
        return (moved * self.scene_scale).to(points.dtype)

    def points_from_grid(self, points: Tensor) -> Tensor:
        """Inverse of :meth:`points_to_grid`."""
        transform = self.T.to(points.device)
        moved = points.double() / self.scene_scale + self.pcd_mean.to(points.device) - transform[:3, 3]
        return (moved @ transform[:3, :3]).to(points.dtype)

    def metres(self, length: Tensor | float) -> Tensor | float:
        """A length in grid units, such as a rendered depth, in metres."""
        return length / self.scene_scale

    def save(self, path: str | Path) -> None:
        """Write ``trans_info.npz`` atomically: ``T``, ``pcd_mean [1, 3]``, ``scene_scale``, ``frame_ids``."""
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                T=self.T.numpy(),
                pcd_mean=self.pcd_mean.numpy()[None],
                scene_scale=np.float64(self.scene_scale),
                frame_ids=np.array(self.frame_ids, dtype=np.str_),
            )

    @classmethod
    def load(cls, path: str | Path) -> SceneTransform:
        """Read ``trans_info.npz`` without running any code in it.

        Frame names that are stored as pickled objects cannot be read so: they are left out, and a warning says it.

        Raises:
            UserError: absent, damaged, incomplete, or T is not rigid.
        """
        what = "a PeRFception scene folder's trans_info.npz with numeric T (4x4), pcd_mean (3) and scene_scale"
        with reading(path, what):
            values = read_npz(path, what, ("T", "pcd_mean", "scene_scale"), ("frame_ids",))
            frame_ids = [str(name) for name in values.pop("frame_ids", np.empty(0)).reshape(-1)]
            transform = cls(**{name: array.astype(np.float64) for name, array in values.items()}, frame_ids=frame_ids)
            transform._check(path)
        return transform

    def _check(self, path: str | Path) -> None:
        gram = self.rotation @ self.rotation.T
        rigid = torch.allclose(gram, torch.eye(3, dtype=torch.float64), atol=1e-4) and torch.det(self.rotation) > 0
        bottom = torch.allclose(self.T[3], self.T.new_tensor([0, 0, 0, 1]), atol=1e-6)
        if not (rigid and bottom and float(self.T.abs().max()) < FARTHEST):
            raise UserError(f"{path}: T is not a rigid transform (rotation times its transpose is "
                            f"{gram.diagonal().tolist()} on the diagonal, the last row {self.T[3].tolist()}); replace "
                            "the file")
        if not 1 / FARTHEST < self.scene_scale < FARTHEST or not float(self.pcd_mean.abs().max()) < FARTHEST:
            raise UserError(f"{path}: scene_scale is {self.scene_scale}, pcd_mean {self.pcd_mean.tolist()}; expected "
                            "a positive scale and finite numbers: replace the file")

"""Recorded poses, moved and turned a little."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import gin
import torch
from torch import Tensor

from dataloader import CameraList, Mesh
from enet.fresh_poses import FreshPoses, Poses, ScenePoses, directions_of
from utils.errors import UserError
from utils.rotations import axis_angle_to_matrix


@gin.configurable
@dataclass(frozen=True)
class JitteredPoses(FreshPoses, ScenePoses):
    """New poses near the recorded ones, in every epoch others.

    Attributes:
        metres: the camera moves by up to this, evenly over the ball.
        radians: it turns about any axis by up to this.
        share: of the views that are moved; the others keep their recorded poses.
    """

    metres: float = 0.1
    radians: float = 0.1
    share: float = 1.0

    num_draws = 7  # whether; the shift's direction and length; the turn's axis and angle

    def __post_init__(self) -> None:
        if not (0 <= self.metres < math.inf and 0 <= self.radians <= math.pi and 0 <= self.share <= 1):
            raise UserError(f"JitteredPoses.metres = {self.metres}, radians = {self.radians}, share = {self.share}: "
                            "expected metres from 0 on, radians from 0 to pi, and a share from 0 to 1")

    def identity(self) -> dict[str, Any]:
        return {"jittered": asdict(self)}

    def of_scene(self, scene: str, load_mesh: Callable[[], Mesh], cameras: CameraList) -> JitteredPoses:
        return self

    def draw(self, recorded: Poses, draws: Tensor) -> tuple[Poses, Tensor]:
        draws = draws.double()
        chosen = draws[:, 0] < self.share
        shift = self.metres * draws[:, 3, None] ** (1 / 3) * directions_of(draws[:, 1:3])
        turn = axis_angle_to_matrix(self.radians * draws[:, 6, None] * directions_of(draws[:, 4:6]))
        moved = recorded.camera_to_world.clone()
        moved[:, :3, :3] = moved[:, :3, :3] @ turn
        moved[:, :3, 3] += shift
        poses = torch.where(chosen[:, None, None], moved, recorded.camera_to_world)
        return Poses(poses, recorded.intrinsics), chosen

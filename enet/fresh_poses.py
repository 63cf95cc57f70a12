"""Poses that are new in every epoch: what a source of live views asks of whatever draws them.

A pose depends on its scene and on the random numbers that come with the step, which seed, epoch and position in the
epoch decide: never on what was drawn before, so that a resumed training sees the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dataloader import CameraList, Mesh
from model.annotated_field import AnnotatedViews
from model.radiance_field import RadianceField


class Poses(NamedTuple):
    """Cameras of B views, on the CPU: camera_to_world float64 ``[B, 4, 4]``; intrinsics float64 ``[B, 3, 3]``."""

    camera_to_world: Tensor
    intrinsics: Tensor


class ScenePoses(ABC):
    """Draws the poses of one scene."""

    @abstractmethod
    def draw(self, recorded: Poses, draws: Tensor) -> tuple[Poses, Tensor]:
        """New poses instead of recorded ones, and which are new.

        Args:
            recorded: those whose turn it is; a view that gets no new one keeps its own.
            draws: float32 ``[B, D]``, uniform in [0, 1), the numbers that were asked for.

        Returns:
            the poses, and bool ``[B]`` on the CPU.
        """

    def quality(self, views: AnnotatedViews, poses: Poses, field: RadianceField) -> Tensor | None:
        """Expected render quality float32 ``[B, H, W]``, 0..1, of drawn views, where the views are; None if unknown."""
        return None


class FreshPoses(ABC):
    """Draws poses of any scene.

    Attributes:
        num_draws: random numbers that a view gets for it.
        rates: whether it knows the quality of the views it draws.
    """

    num_draws: int
    rates: bool = False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON-able: all options."""

    @abstractmethod
    def of_scene(self, scene: str, load_mesh: Callable[[], Mesh], cameras: CameraList) -> ScenePoses:
        """What draws the poses of one scene; picklable.

        Args:
            scene: its name.
            load_mesh: reads its mesh, with labels.
            cameras: the recorded ones that may be trained on, at the views' size.
        """


def directions_of(uniform: Tensor) -> Tensor:
    """Unit vectors ``[B, 3]``, evenly over the sphere, of numbers ``[B, 2]`` in [0, 1)."""
    height, angle = 2 * uniform[:, 0] - 1, 2 * math.pi * uniform[:, 1]
    radius = (1 - height**2).sqrt()
    return torch.stack((radius * angle.cos(), radius * angle.sin(), height), dim=-1)

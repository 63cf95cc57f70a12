"""The random numbers of training views, by what they decide."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """A step's random numbers, each [B], uniform in [0, 1)."""

    mirror: Tensor
    crop_size: Tensor
    crop_row: Tensor
    crop_column: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    gamma: Tensor
    red: Tensor
    green: Tensor
    blue: Tensor
    blur: Tensor
    noise: Tensor
    noise_seed: Tensor
    depth_scale: Tensor
    depth_bulges: Tensor
    depth_holes: Tensor
    depth_seed: Tensor

    @classmethod
    def split(cls, draws: Tensor) -> Draws:
        """From the first NUM_DRAWS of [B, D]."""
        return cls(*draws[:, :NUM_DRAWS].unbind(-1))


NUM_DRAWS = len(fields(Draws))

"""How rays are rendered: the one form in which options go from gin to the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import gin
import torch

LEAST_STEP = 1e-3  # voxels, also in csrc/binding.h: shorter steps are lost in rounding, and take for ever
_LARGEST = torch.finfo(torch.float32).max


@gin.configurable
@dataclass(frozen=True)
class RenderOptions:
    """Plenoxel rendering options, with svox2's names and the values the released scenes were rendered with.

    ``csrc/types.h`` has the same struct, member for member.

    Attributes:
        step_size: distance of samples along a ray, in voxels; at least 0.001.
        sigma_thresh: samples with a density at or below this are empty.
        stop_thresh: a ray ends, with transmittance 0, when its transmittance falls below this.
        near_clip: distance from the camera, in the grid's world units, before which nothing is sampled.
        background_brightness: grey level seen behind the grid and its background layers, if there are any, 0 to 1.
        sh_background: add transmittance * background_brightness to all SH channels of rays that meet the grid, as the
            paper's code does; an empty ray has no coefficients, so the default leaves it out.
    """

    step_size: float = 0.5
    sigma_thresh: float = 1e-10
    stop_thresh: float = 1e-7
    near_clip: float = 0.0
    background_brightness: float = 1.0
    sh_background: bool = False

    def __post_init__(self) -> None:
        for name in ("step_size", "sigma_thresh", "near_clip", "background_brightness"):
            if not abs(value := getattr(self, name)) <= _LARGEST:
                raise ValueError(f"RenderOptions.{name} must be a finite number, found {value}")
        if not self.step_size > 0:
            raise ValueError(f"RenderOptions.step_size must be positive, found {self.step_size}")
        if self.step_size < LEAST_STEP:
            raise ValueError(f"RenderOptions.step_size must be at least {LEAST_STEP}, found {self.step_size}")
        if self.sigma_thresh < 0:
            raise ValueError(f"RenderOptions.sigma_thresh must not be negative, found {self.sigma_thresh}")
        if self.near_clip < 0:
            raise ValueError(f"RenderOptions.near_clip must not be negative, found {self.near_clip}")
        if not 0 <= self.stop_thresh < 1:
            raise ValueError(f"RenderOptions.stop_thresh must be in [0, 1), found {self.stop_thresh}")


def option_numbers(options: RenderOptions, brightness: float | None = None) -> list[float]:
    """Options as the ops take them; with another ``background_brightness`` where one is given.

    No method: torch.compile calls none of an object that it takes for a constant, as what gin configures.
    """
    brightness = options.background_brightness if brightness is None else brightness
    return [
        options.step_size, options.sigma_thresh, options.stop_thresh, options.near_clip, brightness,
        float(options.sh_background),
    ]  # fmt: skip

"""The background beyond the grid's box: concentric sphere images, out to infinity (svox2's background model).

The unit sphere is inscribed in the grid's box of radius 1; coordinates here are the grid's, centre 0 and that
radius. Each sphere is an equirectangular image of colour and density; layers are evenly spaced in inverse radius.
``lib/plenoxel/reference_layers.py`` has the mathematics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib.plenoxel.index import usable_for_gradients
from lib.plenoxel.reference_layers import _shade_layers

if TYPE_CHECKING:
    from dataloader.perfception import PerfceptionBackground

DENSITY_UNIT = 30.0
"""Densities are stored in this unit, so that one learning rate serves them and the colours."""


@dataclass
class SphereLayers:
    """Concentric sphere images.

    Attributes:
        texture: float32 ``[R, 2 R, L, 4]``, contiguous: rows from +y to -y, columns around y from -z over -x and +z
            (svox2's axes); of each of L layers (at least 2) three colour coefficients, and the density in
            ``DENSITY_UNIT``.
    """

    texture: Tensor

    def __post_init__(self) -> None:
        self.texture = usable_for_gradients(self.texture)
        rows, columns, layers, channels = self.texture.shape
        if channels != 4 or layers < 2 or columns != 2 * rows:
            raise ValueError(
                f"sphere layers must be [R, 2 R, L, 4] with L of at least 2, found {list(self.texture.shape)}"
            )

    @classmethod
    def around(cls, layers: int, rows: int, device: torch.device) -> SphereLayers:
        """To begin a fit with: a grey sky at infinity, behind nearly transparent layers."""
        texture = torch.zeros(rows, 2 * rows, layers, 4, device=device)
        texture[..., 3] = 0.1 / DENSITY_UNIT
        texture[:, :, -1, 3] = 20.0 / DENSITY_UNIT
        return cls(texture)

    @classmethod
    def from_stored(cls, stored: PerfceptionBackground) -> SphereLayers:
        """From what a checkpoint holds; directions without a row are empty."""
        columns, rows = stored.links.shape
        dense = stored.data.new_zeros(columns, rows, *stored.data.shape[1:])
        there = stored.links >= 0
        dense[there] = stored.data[stored.links[there].long()]
        dense[..., 3] /= DENSITY_UNIT
        return cls(dense.transpose(0, 1).contiguous())

    def to_stored(self) -> PerfceptionBackground:
        """As a checkpoint holds it, on the CPU."""
        from dataloader.perfception import PerfceptionBackground

        rows, columns, layers, _ = self.texture.shape
        data = self.texture.detach().cpu().transpose(0, 1).reshape(columns * rows, layers, 4)
        data = data * data.new_tensor([1, 1, 1, DENSITY_UNIT])
        return PerfceptionBackground(data, torch.arange(columns * rows, dtype=torch.int32).reshape(columns, rows))

    def to(self, device: torch.device | str) -> SphereLayers:
        """The same on ``device``."""
        return replace(self, texture=self.texture.to(device))

    def shade(
        self,
        origins: Tensor,  # [N, 3] in the grid's frame, centre 0 and radius 1
        directions: Tensor,  # [N, 3], of any length
        step_size: float = 0.5,
        brightness: float = 1.0,
        seen: Tensor | None = None,  # [N] bool
        backend: str = "auto",
    ) -> Tensor:
        """Colours ``[N, 3]`` that rays see behind the grid, in front of a last ``brightness``; differentiable.

        Args:
            directions: their length is that of a world unit, as svox2 measures the optical depth along them.
            step_size: between samples, in layers.
            seen: whose colour is asked for; the others get ``brightness``.
            backend: "reference" for plain PyTorch, anything else for the op.
        """
        if backend == "reference":
            shade = _shade_layers
        else:
            from lib.plenoxel.layers import shade_layers as shade  # here: a checkout may not have the built extension
        rays = origins.contiguous(), directions.contiguous()
        return shade(self.texture, *rays, step_size, brightness, DENSITY_UNIT, seen)

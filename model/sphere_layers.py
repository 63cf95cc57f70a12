"""What lies beyond the grid's box: concentric sphere images around it, out to infinity (svox2's background model).

The unit sphere is the one that the grid's box of radius 1 holds; coordinates here are the grid's, centre 0 and that
radius. Each sphere is an equirectangular image of colour and density; layers are evenly spaced in inverse radius. As in
svox2, a ray takes ``layers / step_size + 2`` samples where it leaves spheres whose inverse radii are evenly spaced too,
interpolated trilinearly, and the distance between two samples is the difference of their inverse radii.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

if TYPE_CHECKING:
    from dataloader.perfception import PerfceptionBackground

_SH_BAND_0 = 0.28209479177387814  # colours are stored as the coefficient of a constant, like those of voxels
_SAMPLES_AT_ONCE = 1 << 22
_APART = 1e-3  # samples stay this far beyond a ray's nearest point to the middle


@dataclass
class SphereLayers:
    """Concentric sphere images.

    Attributes:
        texture: float32 ``[4, L, R, 2 R]``: three colour coefficients and the density of each of L layers (at least 2),
            rows from +y to -y, columns around y from -z over -x and +z (svox2's axes).
    """

    texture: Tensor

    def __post_init__(self) -> None:
        channels, layers, rows, columns = self.texture.shape
        if channels != 4 or layers < 2 or columns != 2 * rows:
            raise ValueError(
                f"sphere layers must be [4, L, R, 2 R] with L of at least 2, found {list(self.texture.shape)}"
            )

    @classmethod
    def around(cls, layers: int, rows: int, device: torch.device) -> SphereLayers:
        """To begin a fit with: a grey sky at infinity, behind layers that are hardly there."""
        texture = torch.zeros(4, layers, rows, 2 * rows, device=device)
        texture[3] = 0.1
        texture[3, -1] = 20.0
        return cls(texture)

    @classmethod
    def from_stored(cls, stored: PerfceptionBackground) -> SphereLayers:
        """From what a checkpoint holds; directions without a row are empty."""
        columns, rows = stored.links.shape
        dense = stored.data.new_zeros(columns, rows, *stored.data.shape[1:])
        there = stored.links >= 0
        dense[there] = stored.data[stored.links[there].long()]
        return cls(dense.permute(3, 2, 1, 0).contiguous())

    def to_stored(self) -> PerfceptionBackground:
        """As a checkpoint holds it, on the CPU."""
        from dataloader.perfception import PerfceptionBackground

        _, layers, rows, columns = self.texture.shape
        data = self.texture.detach().cpu().permute(3, 2, 1, 0).reshape(columns * rows, layers, 4).contiguous()
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
    ) -> Tensor:
        """Colours ``[N, 3]`` that rays see behind the grid, in front of a last ``brightness``; differentiable.

        Args:
            directions: their length is that of a world unit, as svox2 measures the optical depth along them.
            step_size: between samples, in layers.
        """
        steps = int(self.texture.shape[1] / step_size) + 2
        at_once = max(1, _SAMPLES_AT_ONCE // steps)
        padded = _wrapped(self.texture)
        parts = [
            _composite(padded, part, ahead, steps, brightness)
            for part, ahead in zip(origins.split(at_once), directions.split(at_once), strict=True)
        ]
        return torch.cat(parts) if parts else torch.zeros_like(origins)


def _wrapped(texture: Tensor) -> Tensor:
    """``[1, 4, L, R + 1, 2 R + 1]``: the first column again after the last one, and, as svox2 does, the first row."""
    columns = torch.cat((texture, texture[..., :1]), dim=-1)
    return torch.cat((columns, columns[..., :1, :]), dim=-2)[None]


def _composite(padded: Tensor, origins: Tensor, directions: Tensor, steps: int, brightness: float) -> Tensor:
    length = directions.norm(dim=-1, keepdim=True)
    ahead = directions / length
    along = (origins * ahead).sum(-1, keepdim=True)
    nearest = ((origins**2).sum(-1, keepdim=True) - along**2).clamp(min=0)  # squared distance from the middle
    number = torch.arange(steps, dtype=origins.dtype, device=origins.device)
    inverse = 1 - (number + 0.5) / steps  # of the spheres' radii, [S]
    inner = 1 / (nearest.sqrt() + _APART).clamp(min=1)  # inverse radius at which the spheres begin, [N, 1]
    before = torch.minimum(torch.cat((torch.ones_like(inverse[:1]), inverse[:-1])), inner)
    interval = (before - inverse).clamp(min=0)  # 0 for spheres that the ray does not leave
    distance = (inverse**-2 - nearest).clamp(min=0).sqrt() - along
    # [N, S, 3], on the unit sphere
    points = (origins[:, None] + distance[..., None] * ahead[:, None]) * inverse[:, None]
    layers = padded.shape[2]
    longitude = torch.atan2(points[..., 0], points[..., 2]) / math.pi
    latitude = -torch.asin(points[..., 1].clamp(-1, 1)) * (2 / math.pi)
    layer = ((1 - inverse) * layers - 0.5).clamp(0, layers - 1) * (2 / (layers - 1)) - 1
    where = torch.stack((longitude, latitude, layer.expand_as(longitude)), dim=-1)
    values = grid_sample(padded, where[None, :, :, None], align_corners=True, padding_mode="border")[0, ..., 0]
    optical = values[3].clamp(min=0) * interval / length
    through = torch.exp(-optical.cumsum(-1))
    weight = torch.cat((torch.ones_like(through[:, :1]), through[:, :-1]), dim=-1) - through
    color = (values[:3] * _SH_BAND_0 + 0.5).clamp(min=0)
    return (weight * color).sum(-1).T + through[:, -1:] * brightness

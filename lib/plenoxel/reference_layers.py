"""Sphere layers in plain PyTorch: slow and obvious, the yardstick of the ops in `layers.py`, with the same arguments.

A ray takes `int(L / step_size) + 2` samples where it leaves spheres whose inverse radii are evenly spaced, interpolated
trilinearly. The distance between two samples is the difference of their inverse radii. Unlike in svox2, spheres that a
ray left before it began do not count.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

_CONSTANT_BASIS = 0.28209479177387814  # colours are stored as the coefficient of a constant, like those of voxels
_APART = 1e-3  # samples stay this far beyond a ray's nearest point to the middle


def _shade_layers(
    texture: Tensor,  # [R, 2R, L, 4]
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    step_size: float = 0.5,
    brightness: float = 1.0,
    density_unit: float = 1.0,
    seen: Tensor | None = None,  # [N] bool
) -> Tensor:
    """Colours [N, 3] that rays see, `brightness` where not `seen`; differentiable with respect to `texture`."""
    layers = texture.shape[2]
    steps = int(layers / step_size) + 2
    length = directions.norm(dim=-1, keepdim=True)
    ahead = directions / length
    along = (origins * ahead).sum(-1, keepdim=True)
    nearest = ((origins**2).sum(-1, keepdim=True) - along**2).clamp(min=0)  # squared distance from the middle
    number = torch.arange(steps, dtype=origins.dtype, device=origins.device)
    inverse = 1 - (number + 0.5) / steps  # of the spheres' radii, [S]
    inner = 1 / (nearest.sqrt() + _APART).clamp(min=1)  # inverse radius at which the spheres begin, [N, 1]
    before = torch.minimum(torch.cat((torch.ones_like(inverse[:1]), inverse[:-1])), inner)
    distance = (inverse**-2 - nearest).clamp(min=0).sqrt() - along
    # 0 for spheres that the ray does not leave, or left before it began
    interval = torch.where(distance > 0, (before - inverse).clamp(min=0), 0.0)
    # [N, S, 3], on the unit sphere
    points = (origins[:, None] + distance[..., None] * ahead[:, None]) * inverse[:, None]
    values = _interpolated(texture, points, (1 - inverse) * layers - 0.5)
    optical = values[3].clamp(min=0) * density_unit * interval / length
    through = torch.exp(-optical.cumsum(-1))
    weight = torch.cat((torch.ones_like(through[:, :1]), through[:, :-1]), dim=-1) - through
    color = (values[:3] * _CONSTANT_BASIS + 0.5).clamp(min=0)
    rgb = (weight * color).sum(-1).T + through[:, -1:] * brightness
    return rgb if seen is None else torch.where(seen[:, None], rgb, brightness)


def _interpolated(
    texture: Tensor,  # [R, 2R, L, 4]
    points: Tensor,  # [N, S, 3] on the unit sphere
    layer: Tensor,  # [S]
) -> Tensor:
    """Numbers [4, N, S] of the texture."""
    layers = texture.shape[2]
    columns = torch.cat((texture, texture[:, :1]), dim=1)
    wrapped = torch.cat((columns, columns[:1]))  # as in svox2, the first row again after the last one
    longitude = torch.atan2(points[..., 0], points[..., 2]) / math.pi
    latitude = -torch.asin(points[..., 1].clamp(-1, 1)) * (2 / math.pi)
    depth = (layer.clamp(0, layers - 1) * (2 / (layers - 1)) - 1).expand_as(longitude)
    where = torch.stack((longitude, latitude, depth), dim=-1)[None, :, :, None]  # [1, N, S, 1, 3]
    image = wrapped.permute(3, 2, 0, 1)[None]  # [1, 4, L, R + 1, 2R + 1]
    return grid_sample(image, where, align_corners=True, padding_mode="border")[0, ..., 0]

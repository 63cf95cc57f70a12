"""How colours of training views are varied, so that a network does not rely on one camera, light or way of rendering.

Everything is a function of a view's random numbers, noise as well, so that a step can be repeated, resumed and
recorded as a CUDA graph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from enet.draws import Draws
from enet.options import AugmentationOptions
from enet.picture import blurred_each

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_SEEDS = 1 << 24  # that a random number, float32 in [0, 1), can tell apart
_BYTES = 4


def vary(
    color: Tensor,  # [B, 3, H, W] 0..1
    draws: Draws,
    options: AugmentationOptions,
) -> Tensor:
    """White balance, brightness, contrast, saturation, hue, gamma, blur, noise, as a camera has them; in 0..1."""
    before = color
    if options.white_balance:
        gains = torch.stack((draws.red, draws.green, draws.blue), dim=1)
        color = color * (1 + options.white_balance * (2 * gains - 1))[:, :, None, None]
    if options.brightness:
        color = color * _factor(draws.brightness, options.brightness)
    if options.contrast:
        middle = _grey(color).mean((2, 3), keepdim=True)
        color = torch.lerp(middle, color, _factor(draws.contrast, options.contrast))
    if options.saturation:
        color = torch.lerp(_grey(color), color, _factor(draws.saturation, options.saturation))
    if options.hue:
        color = _turned(color, math.pi * options.hue * (2 * draws.hue - 1))
    if options.gamma:
        exponent = (1 + options.gamma) ** (2 * draws.gamma - 1)
        color = color.clamp(0, 1) ** exponent[:, None, None, None]
    if color is not before:
        color = color.clamp(0, 1)
    if options.blur:
        color = blurred_each(color, options.blur * draws.blur, options.blur)
    if options.noise:
        strength = options.noise * draws.noise[:, None, None, None]
        color = (color + strength * noise_of(draws.noise_seed, tuple(color.shape[1:]))).clamp(0, 1)
    return color


def _factor(draw: Tensor, strength: float) -> Tensor:
    return (1 + strength * (2 * draw - 1))[:, None, None, None]


def _grey(color: Tensor) -> Tensor:
    weights = zip(_LUMA, color.unbind(1), strict=True)
    return sum(weight * channel for weight, channel in weights)[:, None]


def _turned(color: Tensor, angle: Tensor) -> Tensor:
    """Colours turned about the axis of greys by ``angle`` [B] in radians."""
    mean = color.mean(1, keepdim=True)
    across = (color.roll(1, 1) - color.roll(-1, 1)) / math.sqrt(3)  # the axis' unit vector times the colour
    cosine, sine = (values[:, None, None, None] for values in (angle.cos(), angle.sin()))
    return mean + cosine * (color - mean) + sine * across


def noise_of(
    seeds: Tensor,  # [B], in [0, 1)
    shape: tuple[int, ...],
) -> Tensor:
    """Noise float32 [B, *shape] of mean 0 and deviation 1, independent between values, the same for equal seeds.

    Each value is the sum of four random bytes, which is nearly normal; they are a hash of the seed and the value's
    place (the finalizer of MurmurHash3), so that any device gives the same.
    """
    places = torch.arange(math.prod(shape), device=seeds.device)
    hashed = _mixed((seeds.double() * _SEEDS).long())[:, None] ^ _mixed(places + _SEEDS)
    hashed = _mixed(hashed)
    total = sum((hashed >> (8 * number)) & 255 for number in range(_BYTES))
    mean, deviation = _BYTES * 255 / 2, math.sqrt(_BYTES * (256**2 - 1) / 12)
    return ((total - mean) / deviation).float().unflatten(1, shape)


def _mixed(values: Tensor) -> Tensor:
    """32-bit hashes int64 of int64 values; products that overflow keep the lower bits that are needed."""
    mask = 0xFFFFFFFF
    values = values & mask
    values = ((values ^ (values >> 16)) * 0x85EBCA6B) & mask
    values = ((values ^ (values >> 13)) * 0xC2B2AE35) & mask
    return values ^ (values >> 16)

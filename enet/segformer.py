"""SegFormer-B0's encoder, the Mix Transformer MiT-B0 (Xie et al., NeurIPS 2021, arXiv:2105.15203), from scratch.

Four stages: patches that overlap are embedded by a strided convolution, without position encodings; then blocks of
self-attention, whose keys and values come from an image made smaller, and of a feed-forward network with a 3x3
depthwise convolution inside, which tells a token where it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enet.pyramid_network import DropPath, Encoder

_BLOCKS = 2  # of each stage
_EXPANSION = 4  # of the feed-forward network's channels
_EPSILON = 1e-6  # of the layer normalisations
_INITIAL_STD = 0.02  # of linear weights


@dataclass(frozen=True)
class _Stage:
    """Sizes of one stage: patches, their stride, channels, heads, and what keys' and values' sides are divided by."""

    patch: int
    stride: int
    channels: int
    heads: int
    reduction: int


_STAGES = (_Stage(7, 4, 32, 1, 8), _Stage(3, 2, 64, 2, 4), _Stage(3, 2, 160, 5, 2), _Stage(3, 2, 256, 8, 1))


class MixTransformer(Encoder):
    """MiT-B0.

    Args:
        in_channels: of the images.
        drop_path: probability that the last block's branches are left out; it grows from 0 at the first.
    """

    channels = tuple(stage.channels for stage in _STAGES)

    def __init__(self, in_channels: int, drop_path: float):
        super().__init__()
        dropped = torch.linspace(0, drop_path, _BLOCKS * len(_STAGES)).tolist()
        sources = (in_channels, *self.channels[:-1])
        self.stages = nn.ModuleList(
            _StageOfBlocks(source, stage, dropped[_BLOCKS * k : _BLOCKS * (k + 1)])
            for k, (source, stage) in enumerate(zip(sources, _STAGES, strict=True))
        )
        self.apply(_initialize)

    def forward(self, image: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


class _StageOfBlocks(nn.Module):
    def __init__(self, in_channels: int, stage: _Stage, dropped: list[float]):
        super().__init__()
        self.embed = nn.Conv2d(in_channels, stage.channels, stage.patch, stage.stride, stage.patch // 2)
        self.embed_norm = _norm(stage.channels)
        self.blocks = nn.ModuleList(_Block(stage, probability) for probability in dropped)
        self.norm = _norm(stage.channels)

    def forward(self, image: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C', H', W']
        embedded = self.embed(image)
        size = embedded.shape[-2:]
        tokens = self.embed_norm(_as_tokens(embedded))
        for block in self.blocks:
            tokens = block(tokens, size)
        return _as_image(self.norm(tokens), size)


class _Block(nn.Module):
    def __init__(self, stage: _Stage, drop_path: float):
        super().__init__()
        self.norm1, self.attention = _norm(stage.channels), _Attention(stage)
        self.norm2, self.feed_forward = _norm(stage.channels), _MixFeedForward(stage.channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:  # [B, H * W, C]
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens), size))
        return tokens + self.drop_path(self.feed_forward(self.norm2(tokens), size))


class _Attention(nn.Module):
    """Efficient self-attention: keys and values of an image whose sides are ``reduction`` times smaller."""

    def __init__(self, stage: _Stage):
        super().__init__()
        channels = stage.channels
        self.heads = stage.heads
        self.query, self.key_value = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, channels)
        self.reduce = self.reduce_norm = None
        if stage.reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, stage.reduction, stage.reduction)
            self.reduce_norm = _norm(channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:  # [B, N, C]
        fewer = tokens
        if self.reduce is not None:
            fewer = self.reduce_norm(_as_tokens(self.reduce(_as_image(tokens, size))))
        query = self._split(self.query(tokens))
        key, value = map(self._split, self.key_value(fewer).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:  # [B, N, C] -> [B, heads, N, C / heads]
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _MixFeedForward(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        hidden = channels * _EXPANSION
        self.expand, self.shrink = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:  # [B, N, C]
        mixed = _as_tokens(self.mix(_as_image(self.expand(tokens), size)))
        return self.shrink(F.gelu(mixed))


def _norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, _EPSILON)


def _as_tokens(image: Tensor) -> Tensor:  # [B, C, H, W] -> [B, H * W, C]
    return image.flatten(2).transpose(1, 2)


def _as_image(tokens: Tensor, size: tuple[int, int]) -> Tensor:  # [B, H * W, C] -> [B, C, H, W]
    return tokens.transpose(1, 2).unflatten(2, tuple(size))


def _initialize(layer: nn.Module) -> None:
    """As the paper's: truncated normal for linear layers, by the outputs' number for convolutions."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=_INITIAL_STD)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.Conv2d):
        fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
        nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
        nn.init.zeros_(layer.bias)

"""Larger networks: an encoder of features at 1/4, 1/8, 1/16 and 1/32 of the size under SegFormer's all-MLP head.

How such an encoder takes in SH and geometry is one and the same: its first layer sees the colour and what is beside it
as one image, 3 + n channels. Where it begins with weights that were learned on colour alone, those of the n are 0 at
first, so that it starts as what it learned, and all of them are trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enet.inputs import Beside
from enet.stems import COLOR_CHANNELS

MINIMUM_SIZE = 32
_EMBEDDED = 256  # channels of the head, as SegFormer-B0's


class Encoder(nn.Module):
    """What a :class:`PyramidNetwork` is built on.

    Attributes:
        channels: of its four features.
    """

    channels: tuple[int, int, int, int]

    def forward(
        self,
        image: Tensor,  # [B, 3 + n, H, W]
    ) -> list[Tensor]:
        """Features [B, channels[k], H / 4 / 2^k, W / 4 / 2^k], sizes rounded up."""
        raise NotImplementedError


class PyramidNetwork(nn.Module):
    """Logits at the images' size: the head's, at a quarter of it, interpolated.

    Args:
        encoder: takes 3 + ``beside.channels`` channels.
        num_classes: output channels.
        beside: what is taken beside the colour.
        dropout: of the head's channels before its classifier.
    """

    def __init__(self, encoder: Encoder, num_classes: int, beside: Beside, dropout: float):
        super().__init__()
        self.num_classes = num_classes
        self.beside, self.uses_sh = beside, beside.uses_sh
        self.encoder = encoder
        self.head = AllMlpHead(encoder.channels, num_classes, dropout)

    def forward(
        self,
        color: Tensor,  # [B, 3, H, W]
        sh: Tensor | None = None,  # [B, 27, H, W]; left unused where the network does not take it
        geometry: Tensor | None = None,  # [B, G, H, W]; likewise
    ) -> Tensor:
        """Logits [B, num_classes, H, W] of normalised images.

        Raises:
            ValueError: the images are smaller than 32x32, or one that is taken is missing or of another shape.
        """
        height, width = color.shape[-2:]
        if min(height, width) < MINIMUM_SIZE:
            raise ValueError(f"images must be at least {MINIMUM_SIZE}x{MINIMUM_SIZE}, found {height}x{width}")
        extra = self.beside.join(color, sh, geometry)
        image = color if extra is None else torch.cat([color, extra], dim=1)
        return F.interpolate(self.head(self.encoder(image)), (height, width), mode="bilinear", align_corners=False)


class AllMlpHead(nn.Module):
    """SegFormer's decoder: features are projected, brought to the largest one's size, and fused by 1x1 convolutions."""

    def __init__(self, channels: Sequence[int], num_classes: int, dropout: float):
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(count, _EMBEDDED, 1) for count in channels)
        self.fuse = nn.Conv2d(_EMBEDDED * len(channels), _EMBEDDED, 1, bias=False)
        self.norm = nn.BatchNorm2d(_EMBEDDED)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(_EMBEDDED, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        projected = [layer(feature) for layer, feature in zip(self.project, features, strict=True)]
        projected = [F.interpolate(image, size, mode="bilinear", align_corners=False) for image in projected]
        fused = F.relu(self.norm(self.fuse(torch.cat(projected[::-1], dim=1))))
        return self.classifier(self.dropout(fused))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): leaves out a residual branch of some views while training.

    Args:
        probability: of that; what is kept is scaled, so that the mean stays.
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return branch
        kept = 1 - self.probability
        chosen = torch.rand(branch.shape[0], *[1] * (branch.dim() - 1), device=branch.device) < kept
        return branch * (chosen.to(branch.dtype) / kept)


def first_channels(extra: Beside) -> int:
    """Channels that an encoder's first layer takes."""
    return COLOR_CHANNELS + extra.channels


def widen_first(weight: Tensor, channels: int) -> Tensor:
    """A first convolution's weights [O, 3, k, k] for ``channels`` input channels, 0 for those beyond the colour."""
    more = weight.new_zeros(weight.shape[0], channels - weight.shape[1], *weight.shape[2:])
    return torch.cat((weight, more), dim=1)

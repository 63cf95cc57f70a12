"""ENet's first block, for colour alone and for colour with more images, SH or geometry: four ways to combine them.

Each turns images [B, ., H, W] into 16 channels at half the size (rounded up): 13 from 3x3 convolutions of stride 2 and
3 from max-pooling the colour, then batch normalisation and PReLU. Names as in the paper, where SH are all there is
beside the colour; parameters keep those names whatever the images are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from enet.blocks import PReLU, norm_activate

COLOR_CHANNELS = 3
STEM_CHANNELS = 16
_CONVOLVED = STEM_CHANNELS - COLOR_CHANNELS


def _halving(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)


class RgbStem(nn.Module):
    """ENet's initial block: a convolution of the colour beside its max-pool.

    Args:
        extra_channels: of the images that the other stems combine with the colour; none here.
    """

    def __init__(self, extra_channels: int = 0) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(STEM_CHANNELS)
        self.activation = PReLU()
        self._build_convolutions(extra_channels)

    def _build_convolutions(self, extra_channels: int) -> None:
        self.color = _halving(COLOR_CHANNELS, _CONVOLVED)

    def _features(self, color: Tensor, extra: Tensor | None) -> Tensor:
        """The 16 channels before normalisation."""
        return self._beside_pooled(self.color(color), color)

    def _beside_pooled(self, convolved: Tensor, color: Tensor) -> Tensor:
        """With the pooled colour, in the convolution's precision: what follows is as wide as its first part."""
        return torch.cat([convolved, self.pool(color).to(convolved.dtype)], dim=1)

    def forward(
        self,
        color: Tensor,  # [B, 3, H, W]
        extra: Tensor | None = None,  # [B, extra_channels, H, W]
    ) -> Tensor:
        return norm_activate(self._features(color, extra), self.norm, self.activation)


class ConcatStem(RgbStem):
    """One convolution over the colour and the other images together, in the paper 30 channels."""

    def _build_convolutions(self, extra_channels: int) -> None:
        self.joint = _halving(COLOR_CHANNELS + extra_channels, _CONVOLVED)

    def _features(self, color: Tensor, extra: Tensor) -> Tensor:
        return self._beside_pooled(self.joint(torch.cat([color, extra], dim=1)), color)


class ConvConcatStem(RgbStem):
    """One convolution of the colour (7 channels) and one of the other images (6), side by side."""

    def _build_convolutions(self, extra_channels: int) -> None:
        self.color = _halving(COLOR_CHANNELS, _CONVOLVED - _CONVOLVED // 2)
        self.sh = _halving(extra_channels, _CONVOLVED // 2)

    def _features(self, color: Tensor, extra: Tensor) -> Tensor:
        return self._beside_pooled(torch.cat([self.color(color), self.sh(extra)], dim=1), color)


class ConvSumStem(RgbStem):
    """The colour stem, with convolutions of the other images added to its convolved and to its pooled channels."""

    def _build_convolutions(self, extra_channels: int) -> None:
        super()._build_convolutions(extra_channels)
        self.sh_to_convolved = _halving(extra_channels, _CONVOLVED)
        self.sh_to_pooled = _halving(extra_channels, COLOR_CHANNELS)

    def _features(self, color: Tensor, extra: Tensor) -> Tensor:
        convolved = self.color(color) + self.sh_to_convolved(extra)
        pooled = self.sh_to_pooled(extra)
        return torch.cat([convolved, pooled + self.pool(color).to(pooled.dtype)], dim=1)


STEMS: dict[str, type[RgbStem]] = {
    "rgb": RgbStem,
    "concat": ConcatStem,
    "conv_concat": ConvConcatStem,
    "conv_sum": ConvSumStem,
}

"""ENet's first block, for colour alone and for colour with a 27-channel SH image: four ways to combine them.

Each turns images [B, ., H, W] into 16 channels at half the size (rounded up): 13 from 3x3 convolutions of stride 2 and
3 from max-pooling the colour, then batch normalisation and PReLU. Names as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from enet.blocks import PReLU, norm_activate
from utils.spherical_harmonics import SH_CHANNELS

COLOR_CHANNELS = 3
STEM_CHANNELS = 16
_CONVOLVED = STEM_CHANNELS - COLOR_CHANNELS


def _halving(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)


class RgbStem(nn.Module):
    """ENet's initial block: a convolution of the colour beside its max-pool."""

    uses_sh = False

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(STEM_CHANNELS)
        self.activation = PReLU()
        self._build_convolutions()

    def _build_convolutions(self) -> None:
        self.color = _halving(COLOR_CHANNELS, _CONVOLVED)

    def _features(self, color: Tensor, sh: Tensor | None) -> Tensor:
        """The 16 channels before normalisation."""
        return self._beside_pooled(self.color(color), color)

    def _beside_pooled(self, convolved: Tensor, color: Tensor) -> Tensor:
        """With the pooled colour, in the convolution's precision: what follows is as wide as its first part."""
        return torch.cat([convolved, self.pool(color).to(convolved.dtype)], dim=1)

    def forward(
        self,
        color: Tensor,  # [B, 3, H, W]
        sh: Tensor | None = None,  # [B, 27, H, W]
    ) -> Tensor:
        return norm_activate(self._features(color, sh), self.norm, self.activation)


class ConcatStem(RgbStem):
    """One convolution over the 30 channels of colour and SH together."""

    uses_sh = True

    def _build_convolutions(self) -> None:
        self.joint = _halving(COLOR_CHANNELS + SH_CHANNELS, _CONVOLVED)

    def _features(self, color: Tensor, sh: Tensor) -> Tensor:
        return self._beside_pooled(self.joint(torch.cat([color, sh], dim=1)), color)


class ConvConcatStem(RgbStem):
    """One convolution of the colour (7 channels) and one of the SH (6), side by side."""

    uses_sh = True

    def _build_convolutions(self) -> None:
        self.color = _halving(COLOR_CHANNELS, _CONVOLVED - _CONVOLVED // 2)
        self.sh = _halving(SH_CHANNELS, _CONVOLVED // 2)

    def _features(self, color: Tensor, sh: Tensor) -> Tensor:
        return self._beside_pooled(torch.cat([self.color(color), self.sh(sh)], dim=1), color)


class ConvSumStem(RgbStem):
    """The colour stem, with convolutions of the SH added to its convolved and to its pooled channels."""

    uses_sh = True

    def _build_convolutions(self) -> None:
        super()._build_convolutions()
        self.sh_to_convolved = _halving(SH_CHANNELS, _CONVOLVED)
        self.sh_to_pooled = _halving(SH_CHANNELS, COLOR_CHANNELS)

    def _features(self, color: Tensor, sh: Tensor) -> Tensor:
        convolved = self.color(color) + self.sh_to_convolved(sh)
        pooled = self.sh_to_pooled(sh)
        return torch.cat([convolved, pooled + self.pool(color).to(pooled.dtype)], dim=1)


STEMS: dict[str, type[RgbStem]] = {
    "rgb": RgbStem,
    "concat": ConcatStem,
    "conv_concat": ConvConcatStem,
    "conv_sum": ConvSumStem,
}

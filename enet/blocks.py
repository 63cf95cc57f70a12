"""ENet's building blocks (Paszke et al., 2016), bias-free, with batch normalisation after every convolution.

The encoder activates by PReLU, one scalar slope for each use; the decoder by ReLU. Max-pooling leaves out an odd last
row or column, and unpooling is given the size to restore.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.norm import can_fuse, normalise

Activation = Callable[[], nn.Module]
Size = tuple[int, int]


class PReLU(nn.PReLU):
    """:class:`torch.nn.PReLU` with one slope, written so that its gradient on a CPU takes a third of the time."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(F.relu(x), x, self.weight.to(x.dtype))


class ConvBlock(nn.Sequential):
    """Bias-free convolution, batch normalisation, activation; the size is kept for a stride of 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        activation: Activation = nn.Identity,
        stride: int = 1,
        dilation: int = 1,
    ):
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding = tuple(dilation * (k - 1) // 2 for k in kernel)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False),
            nn.BatchNorm2d(out_channels),
            activation(),
        )

    def forward(self, x: Tensor) -> Tensor:
        convolution, norm, activation = self
        return norm_activate(convolution(x), norm, activation)


def norm_activate(x: Tensor, norm: nn.Module, activation: nn.Module) -> Tensor:
    """``activation(norm(x))``, in one op while training on a GPU."""
    if _fuses(norm) and can_fuse(x):
        return normalise(x, norm, _slope(activation))
    return activation(norm(x))


def add_residual(x: Tensor, block: ConvBlock, dropout: nn.Dropout2d, residual: Tensor, activation: nn.Module) -> Tensor:
    """``activation(residual + dropout(block(x)))``, in one op after the convolution while training on a GPU.

    Channels that the residual does not have are 0 there.
    """
    convolution, norm, inner = block
    x = convolution(x)
    if _fuses(norm) and can_fuse(x, residual):
        keep = None
        if dropout.p > 0:
            keep = F.dropout(torch.ones(x.shape[:2], device=x.device), dropout.p)
        return normalise(x, norm, _slope(inner), residual, keep, _slope(activation))
    x = dropout(inner(norm(x)))
    if residual.shape[1] < x.shape[1]:
        residual = F.pad(residual, (0, 0, 0, 0, 0, x.shape[1] - residual.shape[1]))
    return activation(residual + x)


def _fuses(norm: nn.Module) -> bool:
    """Whether it is a plain batch norm in training; one over several processes is not."""
    return norm.training and type(norm) is nn.BatchNorm2d and norm.weight.dtype is torch.float32


def _slope(activation: nn.Module) -> Tensor | float:
    """Of an activation below 0."""
    if isinstance(activation, nn.PReLU):
        return activation.weight
    return {nn.ReLU: 0.0, nn.Identity: 1.0}[type(activation)]


class RegularBottleneck(nn.Module):
    """Residual block: 1x1 to a quarter of the channels, a 3x3 (dilated) or 5x1 and 1x5 convolution, 1x1 back."""

    def __init__(
        self,
        channels: int,
        activation: Activation,
        dropout: float,
        dilation: int = 1,
        asymmetric: bool = False,
    ):
        super().__init__()
        internal = channels // 4
        if asymmetric:
            middle = [ConvBlock(internal, internal, kernel, activation) for kernel in ((5, 1), (1, 5))]
        else:
            middle = [ConvBlock(internal, internal, 3, activation, dilation=dilation)]
        self.extension = nn.Sequential(
            ConvBlock(channels, internal, 1, activation),
            *middle,
            ConvBlock(internal, channels, 1, activation),
            nn.Dropout2d(dropout),
        )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        *blocks, last, dropout = self.extension
        hidden = x
        for block in blocks:
            hidden = block(hidden)
        return add_residual(hidden, last, dropout, x, self.activation)


class DownsamplingBottleneck(nn.Module):
    """Halves the size: max-pooling padded with zero channels, plus a bottleneck that starts with a 2x2 stride."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation, dropout: float):
        super().__init__()
        internal = in_channels // 4
        self.extension = nn.Sequential(
            ConvBlock(in_channels, internal, 2, activation, stride=2),
            ConvBlock(internal, internal, 3, activation),
            ConvBlock(internal, out_channels, 1, activation),
            nn.Dropout2d(dropout),
        )
        self.activation = activation()
        self.pooled_pixels = 2  # a side; 3 in some old networks, which take images of even sizes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] to [B, C', H//2, W//2], and the winning pixels' indices [B, C, H//2, W//2]."""
        main, winners = F.max_pool2d(x, self.pooled_pixels, 2, (self.pooled_pixels - 1) // 2, return_indices=True)
        first, second, last, dropout = self.extension
        return add_residual(second(first(x)), last, dropout, main, self.activation), winners


class UpsamplingBottleneck(nn.Module):
    """Doubles the size: a 1x1 convolution put back by max-unpooling, plus a bottleneck with a 2x2 transposed one."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation, dropout: float):
        super().__init__()
        internal = in_channels // 4
        self.main = ConvBlock(in_channels, out_channels, 1)
        self.reduce = ConvBlock(in_channels, internal, 1, activation)
        self.transposed = nn.ConvTranspose2d(internal, internal, 2, stride=2, bias=False)
        self.transposed_norm = nn.BatchNorm2d(internal)
        self.transposed_activation = activation()
        self.expand = nn.Sequential(ConvBlock(internal, out_channels, 1, activation), nn.Dropout2d(dropout))
        self.activation = activation()

    def forward(self, x: Tensor, winners: Tensor, size: Size) -> Tensor:
        """[B, C, h, w] to [B, C', *size], where ``size`` is that before the pooling, 2h or 2h + 1."""
        main = F.max_unpool2d(self.main(x), winners, 2, output_size=size)
        extension = self.transposed(self.reduce(x), output_size=size)
        extension = norm_activate(extension, self.transposed_norm, self.transposed_activation)
        block, dropout = self.expand
        return add_residual(extension, block, dropout, main, self.activation)

"""ENet-ScanNet's encoder, which 3DMV (Dai & Niessner, ECCV 2018) trained on ScanNet: classes at 1/8 of the size.

It was carried over from Torch 7: activations have a slope for each channel, normalisations a larger epsilon, and what
dropout drops in training is taken off in evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enet.inputs import Beside
from enet.stems import COLOR_CHANNELS, STEM_CHANNELS
from utils.errors import short

_EPSILON = 1e-3
_FIRST_BLOCK, _CLASSIFIER = 4, 26  # places in the file
_MOST_CLASSES = 1024
_DROPPED = {64: 0.01, 128: 0.1}  # share, by channels
_OUTSIDE_BLOCKS = (
    (r"0\.0\.(weight|bias)", r"first.\1"), (r"2\.(\w+)", r"norm.\1"), (r"3\.weight", "activation.weight"),
    (rf"{_CLASSIFIER}\.0\.weight", "classifier.weight"),
)  # fmt: skip
_MIDDLES = ("", "dilated 2", "asymmetric", "dilated 4", "", "dilated 8", "asymmetric", "dilated 16")


def is_encoder(state: Mapping[str, Tensor]) -> bool:
    """Whether weights have this network's names."""
    return "0.0.weight" in state and f"{_FIRST_BLOCK}.0.0.0.weight" in state


def encoder_network(state: Mapping[str, Tensor]) -> EncoderNetwork:
    """The network with weights of a file.

    Raises:
        ValueError, RuntimeError: the weights are of another network, or without its classifier.
    """
    classifier = state.get(f"{_CLASSIFIER}.0.weight")
    if classifier is None or classifier.dim() != 4 or not 2 <= classifier.shape[0] <= _MOST_CLASSES:
        found = None if classifier is None else list(classifier.shape)
        raise ValueError(f"the classifier {_CLASSIFIER}.0.weight of an encoder is {found}")
    network = EncoderNetwork(classifier.shape[0])
    renamed = {_renamed(name): values for name, values in state.items() if not name.endswith("num_batches_tracked")}
    counters = {name: values for name, values in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **renamed})
    return network


def _renamed(name: str) -> str:
    for pattern, ours in _OUTSIDE_BLOCKS:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, ours, name)
    block = re.fullmatch(r"(\d{1,2})\.(0\.0\.(\d)\.\w+|2\.weight)", name)
    if block is None:
        raise ValueError(f"{short(name)} is unknown")
    place = f"blocks.{int(block[1]) - _FIRST_BLOCK}"
    return f"{place}.activation.weight" if block[3] is None else f"{place}.extension.{block[2].removeprefix('0.0.')}"


class EncoderNetwork(nn.Module):
    """Logits at the images' size, which is at least 16x16: logarithms of interpolated probabilities.

    Args:
        num_classes: output channels.
    """

    beside = Beside()
    uses_sh = False

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.first = nn.Conv2d(COLOR_CHANNELS, STEM_CHANNELS - COLOR_CHANNELS, 3, stride=2, padding=1)
        self.norm, self.activation = nn.BatchNorm2d(STEM_CHANNELS, _EPSILON), nn.PReLU(STEM_CHANNELS)
        self.blocks = nn.Sequential(
            _Bottleneck(STEM_CHANNELS, 16, 64, halves=True), *(_Bottleneck(64, 16, 64) for _ in range(4)),
            _Bottleneck(64, 32, 128, halves=True), *(_Bottleneck(128, 32, 128, middle) for middle in 2 * _MIDDLES),
        )  # fmt: skip
        self.classifier = nn.Conv2d(128, num_classes, 1, bias=False)

    def forward(
        self,
        color: Tensor,  # [B, 3, H, W]
        sh: Tensor | None = None,  # left unused
        geometry: Tensor | None = None,  # likewise
    ) -> Tensor:
        pooled = F.max_pool2d(color, 2)  # without the last row or column of odd sizes
        x = torch.cat((self.first(color)[..., : pooled.shape[-2], : pooled.shape[-1]], pooled), dim=1)
        logits = self.classifier(self.blocks(self.activation(self.norm(x))))
        shares = F.interpolate(logits.softmax(1), color.shape[-2:], mode="bilinear", align_corners=False)
        return shares.clamp(min=torch.finfo(shares.dtype).tiny).log()


class _Bottleneck(nn.Module):
    """Residual block; ``middle``: nothing for a 3x3 convolution, or "dilated N", or "asymmetric"."""

    def __init__(self, inputs: int, internal: int, outputs: int, middle: str = "", halves: bool = False):
        super().__init__()
        self.halves, self.padded = halves, outputs - inputs
        self.kept = 1 - _DROPPED[outputs]
        size = 2 if halves else 1
        self.extension = nn.Sequential(
            nn.Conv2d(inputs, internal, size, size, bias=False), nn.BatchNorm2d(internal, _EPSILON), nn.PReLU(internal),
            *_middle(internal, middle), nn.BatchNorm2d(internal, _EPSILON), nn.PReLU(internal),
            nn.Conv2d(internal, outputs, 1, bias=False), nn.BatchNorm2d(outputs, _EPSILON),
        )  # fmt: skip
        self.activation = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        main = F.max_pool2d(x, 2) if self.halves else x
        return self.activation(F.pad(main, (0, 0, 0, 0, 0, self.padded)) + self.kept * self.extension(x))


def _middle(channels: int, kind: str) -> list[nn.Module]:
    if kind == "asymmetric":
        return [nn.Conv2d(channels, channels, (1, 5), padding=(0, 2), bias=False),
                nn.Conv2d(channels, channels, (5, 1), padding=(2, 0))]  # fmt: skip
    dilation = int(kind.split()[-1]) if kind else 1
    return [nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)]

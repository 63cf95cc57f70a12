"""Other projects' networks as they name their weights, written down independently of the code that reads them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enet import ENet

_NORM = ("weight", "bias", "running_mean", "running_var")
_ENCODER = (
    "downsample1_0 regular1_1 regular1_2 regular1_3 regular1_4 downsample2_0 regular2_1 dilated2_2 asymmetric2_3 "
    "dilated2_4 regular2_5 dilated2_6 asymmetric2_7 dilated2_8 regular3_0 dilated3_1 asymmetric3_2 dilated3_3 "
    "regular3_4 dilated3_5 asymmetric3_6 dilated3_7"
).split()
STEM_CONVOLUTIONS = {
    "rgb": ("main_branch",), "concat": ("main_branch",), "conv_concat": ("main_branch", "sh_branch"),
    "conv_sum": ("sh_branch_1", "sh_branch_2", "main_branch"),
}  # fmt: skip
_STEM_PARTS = ("sh_to_convolved", "sh_to_pooled", "joint", "color", "sh", "norm", "activation")


def _sequence(place: str, *parts: str) -> list[str]:
    """Names of a Sequential of convolutions (c), normalisations (n) and activations with a slope (a)."""
    names = {"c": ("weight",), "n": _NORM, "a": ("weight",)}
    return [f"{place}.{number}.{name}" for number, part in enumerate("".join(parts)) for name in names[part]]


def original_names(stem: str) -> list[str]:
    """All but counters, in the original project's order."""
    names = [f"initial_block.{part}.weight" for part in STEM_CONVOLUTIONS[stem]]
    names += [f"initial_block.batch_norm.{part}" for part in _NORM] + ["initial_block.out_activation.weight"]
    for block in _ENCODER:
        middle = "cnacna" if block.startswith("asymmetric") else "cna"
        names += _sequence(f"{block}.ext_conv1", "cna") + _sequence(f"{block}.ext_conv2", middle)
        names += [*_sequence(f"{block}.ext_conv3", "cna"), f"{block}.out_activation.weight"]
    for up, regular in (("upsample4_0", ("regular4_1", "regular4_2")), ("upsample5_0", ("regular5_1",))):
        names += _sequence(f"{up}.main_conv1", "cn") + _sequence(f"{up}.ext_conv1", "cn") + [f"{up}.ext_tconv1.weight"]
        names += [f"{up}.ext_tconv1_bnorm.{part}" for part in _NORM] + _sequence(f"{up}.ext_conv2", "cn")
        for block in regular:
            names += [name for number in "123" for name in _sequence(f"{block}.ext_conv{number}", "cn")]
    return [*names, "transposed_conv.weight"]


def original_state(network: ENet, stem: str) -> dict[str, Tensor]:
    """A network's weights by the original project's names."""
    state = network.state_dict()
    ours = [name for name in state if not name.endswith("num_batches_tracked")]
    of_stem = [name for part in _STEM_PARTS for name in ours if name.startswith(f"stem.{part}.")]
    ours = of_stem + [name for name in ours if not name.startswith("stem.")]
    return {name: state[own].clone() for name, own in zip(original_names(stem), ours, strict=True)}


class _Branches(nn.Sequential):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [branch(x) for branch in self]


class _Joined(nn.Module):
    def forward(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, 1)


class _Sum(nn.Module):
    def forward(self, parts: list[Tensor]) -> Tensor:
        extension, main = parts
        return extension + F.pad(main, (0, 0, 0, 0, 0, extension.shape[1] - main.shape[1]))


class _Scale(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=0.001)


def _block(inputs: int, inner: int, outputs: int, middle: list[nn.Module], halves: bool = False) -> nn.Sequential:
    first = nn.Conv2d(inputs, inner, 2, 2, bias=False) if halves else nn.Conv2d(inputs, inner, 1, bias=False)
    extension = nn.Sequential(
        first, _norm(inner), nn.PReLU(inner), *middle, _norm(inner), nn.PReLU(inner),
        nn.Conv2d(inner, outputs, 1, bias=False), _norm(outputs), _Scale(1 - (0.01 if outputs == 64 else 0.1)),
    )  # fmt: skip
    main = nn.MaxPool2d(2) if halves else nn.Identity()
    return nn.Sequential(_Branches(extension, main), _Sum(), nn.PReLU(outputs))


def encoder(classes: int = 41) -> nn.Sequential:
    """ENet-ScanNet's encoder and classifier: logits at an eighth of the size, of even images."""

    def plain(channels: int, dilation: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)]

    def asymmetric() -> list[nn.Module]:
        return [nn.Conv2d(32, 32, (1, 5), padding=(0, 2), bias=False), nn.Conv2d(32, 32, (5, 1), padding=(2, 0))]

    def stage() -> list[nn.Module]:
        middles = [plain(32), plain(32, 2), asymmetric(), plain(32, 4)]
        middles += [plain(32), plain(32, 8), asymmetric(), plain(32, 16)]
        return [_block(128, 32, 128, middle) for middle in middles]

    return nn.Sequential(
        _Branches(nn.Conv2d(3, 13, 3, 2, 1), nn.MaxPool2d(2)), _Joined(), _norm(16), nn.PReLU(16),
        _block(16, 16, 64, plain(16), halves=True), *(_block(64, 16, 64, plain(16)) for _ in range(4)),
        _block(64, 32, 128, plain(32), halves=True), *stage(), *stage(),
        nn.Sequential(nn.Conv2d(128, classes, 1, bias=False)),
    )  # fmt: skip

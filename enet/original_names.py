"""The original project's and ENet-ScanNet's network files: their names for ENet's weights, and what differs there.

Three versions of one code base have written such files. In the newest, which the original project is built on
(``out_activation``), upsampling bottlenecks add their expansion without an activation. In the one before
(``out_prelu``), a ReLU goes first, as here. The oldest, ENet-ScanNet's, also pools over 3x3 pixels before a
downsampling bottleneck and has transposed convolutions of 3x3. Stems are told apart by the shapes of their
convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from enet.network import ENet
from enet.stems import COLOR_CHANNELS, STEM_CHANNELS
from utils.errors import short
from utils.spherical_harmonics import SH_CHANNELS

_STEM = "initial_block."
_CLASSIFIER = "transposed_conv.weight"
_BLOCK = re.compile(r"(downsample|regular|dilated|asymmetric|upsample)([1-5])_(\d)\.(.*)")
_IN_BLOCK = re.compile(r"ext_conv([123])\.([0-5])\.(.*)")
_CONVOLVED = STEM_CHANNELS - COLOR_CHANNELS
_MOST_CLASSES = 1024


def is_original(state: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names of these files."""
    return any(name.startswith(_STEM) for name in state) and _CLASSIFIER in state


def original_network(state: Mapping[str, Tensor]) -> ENet:
    """The network of these files with its weights.

    Raises:
        ValueError, KeyError, RuntimeError: the weights are of another network.
    """
    classes = state[_CLASSIFIER].shape[1] if state[_CLASSIFIER].dim() == 4 else 0
    if not 2 <= classes <= _MOST_CLASSES:
        raise ValueError(f"{_CLASSIFIER} has the shape {list(state[_CLASSIFIER].shape)}")
    stem, renamed = _stem(state)
    oldest = any(name.startswith("upsample4_0.ext_conv3.") for name in state)
    for name, values in state.items():
        if not name.startswith(_STEM):
            renamed[_renamed(name, oldest)] = values
    network = ENet(classes, stem)
    _alter(network, renamed, with_relu=any(".out_prelu." in name for name in state), oldest=oldest)
    renamed = {name: values for name, values in renamed.items() if not name.endswith("num_batches_tracked")}
    missing, unknown = network.load_state_dict(renamed, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        raise ValueError(f"weights are missing or unknown, such as {short((missing + unknown)[0])}")
    return network


def _alter(network: ENet, state: Mapping[str, Tensor], with_relu: bool, oldest: bool) -> None:
    """Make the network that of the file's version."""
    for block in (network.upsample4, network.upsample5):
        if not with_relu:
            block.expand[0][2] = nn.Identity()
        if oldest:
            channels = block.transposed.in_channels
            block.transposed = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, bias=False)
    if oldest:
        network.downsample1.pooled_pixels = network.downsample2.pooled_pixels = 3
    if "stem.sh.weight" in state:  # how many channels each gives is the file's choice
        for part in ("color", "sh"):
            old = getattr(network.stem, part)
            count = state[f"stem.{part}.weight"].shape[0]
            setattr(network.stem, part, nn.Conv2d(old.in_channels, count, 3, stride=2, padding=1, bias=False))


def _stem(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Which stem it is, and its weights by the names here."""
    renamed, convolutions = {}, {}
    for name, values in state.items():
        if not name.startswith(_STEM):
            continue
        rest = name.removeprefix(_STEM)
        part = rest.split(".")[0]
        if part == "batch_norm":
            renamed[rest.replace("batch_norm", "stem.norm", 1)] = values
        elif part in ("out_activation", "out_prelu"):
            renamed["stem.activation.weight"] = values
        elif values.dim() == 4:
            convolutions[(values.shape[1], values.shape[0], len(convolutions))] = values
        else:
            raise ValueError(f"{short(name)} of the shape {list(values.shape)} is unknown")
    for stem, parts in _stem_shapes(convolutions).items():
        found = [(shape[1], shape[0]) for shape in convolutions]
        if sorted(found) == sorted(parts.values()):
            for part, (outputs, inputs) in parts.items():
                key = next(shape for shape in convolutions if shape[:2] == (inputs, outputs))
                renamed[f"stem.{part}.weight"] = convolutions.pop(key)
            return stem, renamed
    raise ValueError("its first convolutions, of " + ", ".join(f"{i} to {o} channels" for i, o, _ in convolutions)
                     + f", take neither {COLOR_CHANNELS} channels of colour nor {SH_CHANNELS} of SH beside them")


def _stem_shapes(convolutions: Mapping[tuple[int, int, int], Tensor]) -> dict[str, dict[str, tuple[int, int]]]:
    """(outputs, inputs) of each stem's convolutions; those of conv_concat may be split in any way."""
    of_color = next((outputs for inputs, outputs, _ in convolutions if inputs == COLOR_CHANNELS), 0)
    return {
        "rgb": {"color": (_CONVOLVED, COLOR_CHANNELS)},
        "concat": {"joint": (_CONVOLVED, COLOR_CHANNELS + SH_CHANNELS)},
        "conv_concat": {"color": (of_color, COLOR_CHANNELS), "sh": (_CONVOLVED - of_color, SH_CHANNELS)},
        "conv_sum": {
            "color": (_CONVOLVED, COLOR_CHANNELS), "sh_to_convolved": (_CONVOLVED, SH_CHANNELS),
            "sh_to_pooled": (COLOR_CHANNELS, SH_CHANNELS),
        },
    }  # fmt: skip


def _renamed(name: str, oldest: bool) -> str:
    if name == _CLASSIFIER:
        return "classifier.weight"
    block = _BLOCK.fullmatch(name)
    if block is None:
        raise ValueError(f"{short(name)} is unknown")
    kind, stage, number, rest = block.groups()
    if kind == "upsample":
        return f"upsample{stage}.{_in_upsampling(rest, oldest)}"
    if kind == "downsample":
        place = f"downsample{stage}"
    elif stage == "5":
        place = "stage5"
    else:
        place = f"stage{stage}.{int(number) - (stage != '3')}"  # the third stage alone begins at 0
    if rest in ("out_activation.weight", "out_prelu.weight"):
        return f"{place}.activation.weight"
    inner = _IN_BLOCK.fullmatch(rest)
    if inner is None:
        raise ValueError(f"{short(name)} is unknown")
    convolution, part, last = int(inner[1]) - 1, int(inner[2]), inner[3]
    if kind == "asymmetric":  # the middle one is two
        convolution, part = (2, part - 3) if part > 2 else (3 if convolution == 2 else convolution, part)
    return f"{place}.extension.{convolution}.{part}.{last}"


def _in_upsampling(rest: str, oldest: bool) -> str:
    parts = {"main_conv1.": "main.", "ext_conv1.": "reduce."}
    if oldest:
        parts |= {"ext_conv2.0.": "transposed.", "ext_conv2.1.": "transposed_norm.", "ext_conv3.": "expand.0."}
    else:
        parts |= {"ext_tconv1.": "transposed.", "ext_tconv1_bnorm.": "transposed_norm.", "ext_conv2.": "expand.0."}
    for theirs, ours in parts.items():
        if rest.startswith(theirs):
            return ours + rest.removeprefix(theirs)
    raise ValueError(f"{short(rest)} of an upsampling bottleneck is unknown")

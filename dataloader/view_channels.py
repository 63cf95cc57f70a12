"""What a view store's channels hold, and how values become stored numbers and back.

====================  ==============  ==============  ====================================================
channel               stored          decoded         error of storing
====================  ==============  ==============  ====================================================
rgb, photo            uint8 [3,H,W]   float32 0..1    1/510
alpha, quality        uint8 [H,W]     float32 0..1    1/510
sh                    uint8 [27,H,W]  float32         (max - min) / 510 of the channel's range
sh                    float16         float32         2^-11 of the value (and 65504 at most)
depth, depth_mesh     uint16 [H,W]    float32 metres  0.5 mm (and 65.535 m at most); 0 = nothing there
label                 uint8 [H,W]     int64           none: class index, see utils.labels
====================  ==============  ==============  ====================================================

Values outside what can be stored are clamped and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.spherical_harmonics import SH_CHANNELS

_MILLIMETRES = 1000.0
_LARGEST_UINT16 = 65535


@dataclass(frozen=True)
class ChannelKind:
    """How a channel is stored: its coding, planes (0 for ``[H, W]``) and allowed dtypes."""

    coding: str
    planes: int
    dtypes: tuple[str, ...] = ("uint8",)

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Shape of one view at ``size`` (height, width)."""
        return (*((self.planes,) if self.planes else ()), *size)


CHANNEL_KINDS: dict[str, ChannelKind] = {
    "rgb": ChannelKind("unit", 3),
    "photo": ChannelKind("unit", 3),
    "alpha": ChannelKind("unit", 0),
    "quality": ChannelKind("unit", 0),
    "sh": ChannelKind("range", SH_CHANNELS, ("uint8", "float16")),
    "depth": ChannelKind("millimetres", 0, ("uint16",)),
    "depth_mesh": ChannelKind("millimetres", 0, ("uint16",)),
    "label": ChannelKind("class", 0),
}


def dtype_name(dtype: str | type | np.dtype | torch.dtype) -> str:
    """``"uint8"`` and the like, from NumPy's or PyTorch's spelling."""
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else np.dtype(dtype).name


def encode(name: str, values: Tensor, dtype: str, sh_range: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Numbers to store for decoded ``values`` of channel ``name``, and how many had to be clamped.

    Integers of the stored kind (images as uint8, labels) pass unchanged. Computed where ``values`` lie.

    Args:
        name: a key of :data:`CHANNEL_KINDS`.
        values: a batch of views, ``[B, (C,) H, W]``.
        dtype: of the channel.
        sh_range: float32 ``[27, 2]``, (min, max); for ``sh`` as uint8.

    Returns:
        the stored numbers (depth as int32, since PyTorch computes little with uint16), and the count of each view,
        int64 ``[B]``.
    """
    coding = CHANNEL_KINDS[name].coding
    unclamped = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    if values.dtype == torch.uint8 and dtype == "uint8":
        return values, unclamped
    if coding == "class":
        return values.to(torch.uint8), unclamped
    if coding == "millimetres":
        units = (values.double().nan_to_num(0.0, 0.0, 0.0) * _MILLIMETRES).round()
        return units.clamp(0, _LARGEST_UINT16).to(torch.int32), _count_outside(units, 0, _LARGEST_UINT16)
    if dtype == "float16":
        limit = torch.finfo(torch.float16).max
        return values.clamp(-limit, limit).half(), _count_outside(values, -limit, limit)
    levels = values.float() * 255 if coding == "unit" else quantize_sh(values, sh_range)
    levels = levels.round()
    return levels.nan_to_num(0.0).clamp(0, 255).to(torch.uint8), _count_outside(levels, 0, 255)


def _count_outside(values: Tensor, low: float, high: float) -> Tensor:
    """Values of each view ``[B]`` outside the bounds; NaN is outside."""
    return (~((values >= low) & (values <= high))).flatten(1).sum(dim=1)


def decode(name: str, stored: Tensor, sh_range: Tensor | None = None) -> Tensor:
    """Values of stored numbers ``[..., (C,) H, W]``: see the table above; computed where ``stored`` lies."""
    coding = CHANNEL_KINDS[name].coding
    if coding == "class":
        return stored.long()
    if coding == "millimetres":
        return stored.to(torch.float32) / _MILLIMETRES
    if coding == "unit":
        return stored.float() / 255
    return dequantize_sh(stored, sh_range) if stored.dtype == torch.uint8 else stored.float()


def quantize_sh(sh: Tensor, sh_range: Tensor) -> Tensor:
    """Unrounded levels (0..255 inside the range) of SH images ``[..., 27, H, W]``, float32."""
    low, step = _sh_steps(sh_range, sh.device)
    # In an empty range every other value is infinitely many steps away, so that it counts as clamped.
    return (sh.float() - low) / step.clamp(min=torch.finfo(torch.float32).tiny)


def dequantize_sh(levels: Tensor, sh_range: Tensor) -> Tensor:
    """SH images float32 ``[..., 27, H, W]`` of levels; ``sh_range`` is ``[27, 2]`` or, per image, ``[..., 27, 2]``."""
    low, step = _sh_steps(sh_range, levels.device)
    return torch.addcmul(low, levels.float(), step)


def _sh_steps(sh_range: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    sh_range = sh_range.to(device=device, dtype=torch.float32)[..., None, None]
    low, high = sh_range[..., 0, :, :], sh_range[..., 1, :, :]
    return low, (high - low) / 255


def check_channel(name: str, dtype: str, shape: Sequence[int], size: tuple[int, int]) -> None:
    """Raise ``ValueError`` when a channel of that name cannot have this dtype or per-view shape."""
    if name not in CHANNEL_KINDS:
        raise ValueError(f"unknown channel {name!r}; the channels are {', '.join(CHANNEL_KINDS)}")
    kind = CHANNEL_KINDS[name]
    if dtype not in kind.dtypes or tuple(shape) != kind.shape(size):
        raise ValueError(
            f"channel {name!r} is {dtype} {list(shape)}; expected {' or '.join(kind.dtypes)} {list(kind.shape(size))}"
        )

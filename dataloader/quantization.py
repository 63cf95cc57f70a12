"""Per-column quantization and bit packing, as PeRFception's public code does it.

Per column, scale = (max - min) / (2^bits - 1), q = round((x - min) / (scale + 1e-12)), and x is read back as
q * scale + min, so the error is at most scale / 2. With 4 bits two consecutive rows share a byte and with 2 bits
four do, the first in the highest bits; the last byte row is filled up with zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-12
_ROWS_AT_ONCE = 1 << 18
PACKED_BITS = (8, 4, 2)


def quantize_columns(values: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize float32 ``values [V, ...]`` over the rows.

    Args:
        bits: 8, 4 or 2.

    Returns:
        packed uint8 ``[ceil(V * bits / 8), ...]``, and minimum and scale, float32 ``[1, ...]``.
    """
    low = values.min(dim=0, keepdim=True)[0]
    high = values.max(dim=0, keepdim=True)[0]
    scale = (high - low) / (2**bits - 1)
    levels = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
    for part, rounded in zip(values.split(_ROWS_AT_ONCE), levels.split(_ROWS_AT_ONCE), strict=True):
        rounded.copy_(((part - low) / (scale + _EPSILON)).round())
    return pack_rows(levels, bits), low, scale


def dequantize_columns(packed: Tensor, low: Tensor | float, scale: Tensor | float, bits: int, rows: int) -> Tensor:
    """float32 ``[rows, ...]`` of what :func:`quantize_columns` returned."""
    return unpack_rows(packed, bits, rows).float().mul_(scale).add_(low)


def pack_rows(levels: Tensor, bits: int) -> Tensor:
    """Pack uint8 levels ``[V, ...]`` below 2^bits, 8 / bits consecutive rows to a byte, first row highest."""
    per_byte = 8 // bits
    missing = -len(levels) % per_byte
    levels = torch.cat((levels, levels.new_zeros(missing, *levels.shape[1:])))
    groups = levels.reshape(-1, per_byte, *levels.shape[1:])
    packed = torch.zeros_like(groups[:, 0])
    for k in range(per_byte):
        packed |= groups[:, k] << (8 - bits * (k + 1))
    return packed


def unpack_rows(packed: Tensor, bits: int, rows: int) -> Tensor:
    """Inverse of :func:`pack_rows`: uint8 ``[rows, ...]``."""
    per_byte = 8 // bits
    parts = [(packed >> (8 - bits * (k + 1))) & (2**bits - 1) for k in range(per_byte)]
    return torch.stack(parts, dim=1).reshape(-1, *packed.shape[1:])[:rows]


def packed_rows(rows: int, bits: int) -> int:
    """Byte rows that ``rows`` rows take."""
    return -(-rows * bits // 8)

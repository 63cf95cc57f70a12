"""The Lightning checkpoint of a PeRFception scene: where it lies, reading and writing of its quantized tensors."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataloader.quantization import PACKED_BITS, dequantize_columns, packed_rows, quantize_columns
from utils.errors import UserError
from utils.files import atomic_path

CHECKPOINT_FILES = ("last.ckpt", "data.ckpt")
_STORED_TYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LIGHTNING_VERSION = "1.5.5"  # the version whose checkpoint layout this is; Lightning migrates by it


def checkpoint_path(path: Path) -> Path:
    """The checkpoint of a scene folder, or ``path`` itself when it is a file; raises :class:`UserError` if absent."""
    if path.is_file():
        return path
    for name in CHECKPOINT_FILES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path} holds no {' or '.join(CHECKPOINT_FILES)}; expected a PeRFception scene folder "
                    "(plenoxel_scannet_SCENE): fit the scene or download it")


def write_checkpoint(path: Path, writer: CheckpointWriter) -> None:
    """Write what ``writer`` collected with Lightning's keys, atomically; the same content gives the same bytes."""
    content = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": _LIGHTNING_VERSION,
        "state_dict": writer.state,
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "reso_idx": 0,
        **writer.ranges,
    }
    # PyTorch writes the file's own name into the archive; through memory the bytes do not depend on it.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


class CheckpointWriter:
    """Collects the checkpoint's tensors; minimum and scale of quantized ones go to its top level."""

    def __init__(self, bits: int):
        self.state: dict[str, Tensor] = {}
        self.ranges: dict[str, Any] = {}
        self._bits = bits

    def add(self, name: str, values: Tensor, quantized: bool) -> None:
        values = values.float().contiguous()
        if not quantized or self._bits == 32:
            self.state[f"model.{name}"] = values.cpu()
            return
        if self._bits == 16:
            stored, low, scale = values.half(), 0.0, 1.0
        else:
            stored, low, scale = quantize_columns(values, self._bits)
            low, scale = low.cpu(), scale.cpu()
        self.state[f"model.{name}"] = stored.cpu()
        self.ranges[f"model.{name}_min"], self.ranges[f"model.{name}_scale"] = low, scale


class ColumnReader:
    """Reads the checkpoint's tensors of V rows, dequantized."""

    def __init__(self, checkpoint: dict[str, Any], rows: int, configured_bits: Any):
        self._checkpoint, self._rows = checkpoint, rows
        self._configured_bits = configured_bits

    def read(self, name: str, path: Path) -> Tensor:
        stored = self._checkpoint["state_dict"][f"model.{name}"].detach()
        if stored.dtype not in _STORED_TYPES or stored.dim() < 1:
            raise UserError(f"{path}: model.{name} is {stored.dtype} {list(stored.shape)}; expected rows of bytes or "
                            "floats: the file is damaged")
        if stored.dtype != torch.uint8:
            bits, expected = 0, self._rows
        else:
            bits = self._bits(len(stored))
            expected = packed_rows(self._rows, bits)
        if len(stored) != expected:
            raise UserError(f"{path}: model.{name} has {len(stored)} rows for {self._rows} occupied voxels; expected "
                            "as many, half or a quarter as many: the file is damaged")
        return dequantize(self._checkpoint, name, stored, bits, self._rows, path)

    def quantization(self, name: str) -> Tensor | None:
        """Minimum and scale ``[2, ...]`` of the columns of what is stored in bytes; None of floats."""
        stored = self._checkpoint["state_dict"][f"model.{name}"]
        if stored.dtype != torch.uint8:
            return None
        low, scale = (_of_columns(self._checkpoint[f"model.{name}_{part}"], stored) for part in ("min", "scale"))
        return torch.stack([values.expand(1, *stored.shape[1:])[0] for values in (low, scale)])

    def _bits(self, stored_rows: int) -> int:
        """Bits per number: what config.gin says if the rows agree, else what the rows say."""
        candidates = [self._configured_bits] if self._configured_bits in PACKED_BITS else []
        for bits in (*candidates, *PACKED_BITS):
            if packed_rows(self._rows, bits) == stored_rows:
                return bits
        return 8


def dequantize(
    checkpoint: dict[str, Any], name: str, stored: Tensor, bits: int, rows: int, path: Path
) -> Tensor:
    """float32 values of a stored tensor; ``bits`` is 0 for floats."""
    low, scale = (_of_columns(checkpoint.get(f"model.{name}_{part}"), stored) for part in ("min", "scale"))
    if bits == 0:
        return stored.float() if low is None or scale is None else stored.float() * scale + low
    if low is None or scale is None:
        raise UserError(f"{path}: model.{name} is quantized (uint8) but model.{name}_min or _scale is missing; the "
                        "file is damaged: download it again")
    return dequantize_columns(stored, low, scale, bits, rows)


def _of_columns(value: Any, stored: Tensor) -> Tensor | None:
    """Minimum or scale of ``stored``'s columns, which must not make more numbers of it."""
    if value is None:
        return None
    value, row = torch.as_tensor(value, dtype=torch.float32, device=stored.device).detach(), (1, *stored.shape[1:])
    if torch.broadcast_shapes(value.shape, row) != row or not torch.isfinite(value).all():
        raise ValueError(f"minimum or scale {list(value.shape)} of rows {list(stored.shape[1:])}, or not finite")
    return value

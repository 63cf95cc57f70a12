"""The Lightning checkpoint of a PeRFception scene: safe loading, and reading and writing of its quantized tensors."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataloader.quantization import PACKED_BITS, dequantize_columns, packed_rows, quantize_columns
from utils.errors import UserError
from utils.files import atomic_path

CHECKPOINT_FILES = ("last.ckpt", "data.ckpt")
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


class _Ignored:
    """Placeholder for a class that old Lightning checkpoints use as a dictionary key; it is not needed."""


def open_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint's content on the CPU, without running any code in it.

    Raises:
        UserError: truncated, damaged, no dict, or holding more than tensors and plain values.
    """
    harmless = [(_Ignored, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")]
    try:
        with torch.serialization.safe_globals(harmless):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = next((line for line in str(error).splitlines() if "GLOBAL" in line), str(error).splitlines()[0])
        raise UserError(f"{path} holds more than tensors and plain values, and opening it could run code "
                        f"({wanted.strip()}); it is refused: save it again with state_dict, reso_idx and the "
                        "quantization ranges only") from None
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} ({path.stat().st_size} bytes) cannot be read as a checkpoint ({reason}); it is "
                        "truncated or damaged: copy or download it again") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}; expected a Lightning checkpoint (a dict with "
                        "state_dict)")
    return checkpoint


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


def tensors_to(content: Any, device: torch.device | str) -> Any:
    """``content`` with all tensors in it, and in the dictionaries in it, on ``device``."""
    if isinstance(content, dict):
        return {name: tensors_to(value, device) for name, value in content.items()}
    return content.to(device) if isinstance(content, Tensor) else content


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
        if stored.dtype != torch.uint8:
            bits, expected = 0, self._rows
        else:
            bits = self._bits(len(stored))
            expected = packed_rows(self._rows, bits)
        if len(stored) != expected:
            raise UserError(f"{path}: model.{name} has {len(stored)} rows for {self._rows} occupied voxels; expected "
                            "as many, half or a quarter as many: the file is damaged")
        return dequantize(self._checkpoint, name, stored, bits, self._rows, path)

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
    low, scale = (checkpoint.get(f"model.{name}_{part}") for part in ("min", "scale"))
    if bits == 0:
        return stored.float() if low is None or scale is None else stored.float() * scale + low
    if low is None or scale is None:
        raise UserError(f"{path}: model.{name} is quantized (uint8) but model.{name}_min or _scale is missing; the "
                        "file is damaged: download it again")
    return dequantize_columns(stored, low, scale, bits, rows)

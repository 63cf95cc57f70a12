"""The file of nested grids, which PeRFception's format has no place for: ``nested.npz`` beside ``trans_info.npz``.

Arrays, none of them pickled: ``size`` int64 ``[4]`` (levels and the resolution of each), ``voxels`` int64 ``[V]``, the
number of each row's voxel, level by level, the innermost first; ``density`` float32 ``[V]``; ``sh``, uint8 ``[V, 27]``
with ``sh_low`` and ``sh_scale`` float32 ``[1, 27]`` (as PeRFception quantizes columns), or float16 or float32 without
them; where there is a background, ``background`` float32 ``[C, layers, 4]`` and ``background_links`` int32 ``[2R, R]``,
as a checkpoint holds them; and as text ``checksum``, that of all other arrays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloader.quantization import dequantize_columns, quantize_columns
from utils.arrays import read_npz
from utils.errors import UserError, reading
from utils.files import atomic_path
from utils.identity import tensor_identity

NESTED_FILE = "nested.npz"
_WHAT, _ADVICE = "a field of nested grids", "fit the scene again"
_REQUIRED = ("size", "voxels", "density", "sh", "checksum")
_OPTIONAL = ("sh_low", "sh_scale", "background", "background_links")
_STORED = {16: torch.float16, 32: torch.float32}
_MOST_LEVELS = 16


def check_bits(bits: int) -> None:
    """Raise :class:`UserError` unless SH coefficients of nested grids can be saved with so many bits."""
    if bits != 8 and bits not in _STORED:
        raise UserError(f"fit.bits = {bits}: a field of nested grids is saved with 8, 16 or 32; use one of these, or "
                        "FitOpen.nested = 1")


def save_nested_grids(
    path: Path,
    size: tuple[int, int, int, int],
    voxels: Tensor,  # [V] int64
    density: Tensor,  # [V]
    sh: Tensor,  # [V, 27]
    bits: int,
    background: tuple[Tensor, Tensor] | None,
) -> None:
    """Write the file atomically; the same grids give the same bytes.

    Args:
        size: levels and the resolution of each.
        bits: of each SH coefficient: 8, 16 or 32.
        background: its data and links.

    Raises:
        UserError: another number of bits.
    """
    check_bits(bits)
    arrays = {"size": torch.tensor(size), "voxels": voxels, "density": density.float()}
    if bits == 8:
        arrays["sh"], arrays["sh_low"], arrays["sh_scale"] = quantize_columns(sh.float(), 8)
    else:
        arrays["sh"] = sh.to(_STORED[bits])
    if background is not None:
        arrays["background"], arrays["background_links"] = background
    arrays = {name: values.detach().cpu().contiguous() for name, values in arrays.items()}
    checksum = tensor_identity(*arrays.values())
    with atomic_path(path) as temporary:
        np.savez(temporary, checksum=np.array(checksum), **{name: values.numpy() for name, values in arrays.items()})


class NestedGrids:
    """What a file holds, whole, but not yet checked to be a grid.

    Attributes:
        levels, resolution: see the module.
        voxels: int64 ``[V]``.
        density, sh: float32, on the device asked for.
        quantization: minimum and scale of ``sh``'s columns, float32 ``[2, 27]``, where it was stored in bytes.
        background: data and links, or None.

    Raises:
        UserError: absent or damaged.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        arrays = read_npz(path, _WHAT, _REQUIRED, _OPTIONAL, _ADVICE)
        with reading(path, _WHAT, _ADVICE):
            checksum = str(arrays.pop("checksum"))
            names = [name for name in ("size", "voxels", "density", "sh", *_OPTIONAL) if name in arrays]
            tensors = {name: torch.from_numpy(arrays[name]) for name in names}
            if tensor_identity(*tensors.values()) != checksum:
                raise ValueError("its checksum does not fit its numbers")
            size = tensors["size"]
            if size.dtype != torch.int64 or size.shape != (4,) or size.min() < 1 or size[0] > _MOST_LEVELS:
                raise ValueError(f"its size is {size.tolist()}; expected the number of levels and three resolutions")
            self.levels, *resolution = size.tolist()
            self.resolution = tuple(resolution)
            if tensors["voxels"].dtype != torch.int64 or tensors["density"].dtype != torch.float32:
                raise ValueError(f"voxels are {tensors['voxels'].dtype} and density {tensors['density'].dtype}")
            self.voxels, self.density = tensors["voxels"].to(device), tensors["density"].to(device)
            sh = tensors["sh"].to(device)
            self.quantization = None
            if sh.dtype == torch.uint8:
                low, scale = tensors["sh_low"].to(device), tensors["sh_scale"].to(device)
                self.quantization = torch.cat([values.float().expand(1, sh.shape[1]) for values in (low, scale)])
                sh = dequantize_columns(sh, low, scale, 8, len(sh))
            self.sh = sh.float()
            if self.voxels.dim() != 1 or self.density.dim() != 1 or self.sh.dim() != 2:
                raise ValueError(f"density is {list(self.density.shape)} and sh {list(self.sh.shape)}")
            self.background = None
            if "background" in tensors:
                self.background = tensors["background"].to(device), tensors["background_links"].int().to(device)

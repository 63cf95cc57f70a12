"""PeRFception-ScanNet scene folders: a Plenoxel grid as a Lightning checkpoint, and its transform from the world.

``last.ckpt`` (or ``data.ckpt``) holds density, SH coefficients (usually 8 bits per number) and their cells'
indices; ``config.gin`` the resolution; ``trans_info.npz`` the transform from the world; ``thick.npy`` and ``init.npy``
the cells that were occupied at the start. Format: Jeong et al., "PeRFception: Perception using Radiance Fields",
NeurIPS 2022 (public code and released scenes). Nothing read from a folder can run code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.nested_field import NESTED_FILE, NestedGrids, save_nested_grids
from dataloader.perfception_checkpoint import (
    CHECKPOINT_FILES,
    CheckpointWriter,
    ColumnReader,
    checkpoint_path,
    dequantize,
    write_checkpoint,
)
from dataloader.perfception_config import CONFIG_FILE, find_value, read_config, resolution_of, write_config
from dataloader.quantization import PACKED_BITS, packed_rows
from dataloader.scene_transform import SceneTransform
from utils.checkpoints import open_checkpoint
from utils.errors import UserError, reading, short
from utils.files import atomic_path
from utils.spherical_harmonics import BASIS_SIZE, SH_CHANNELS

FIELD_PREFIX = "plenoxel_scannet_"  # of a scene folder's name, before the scene's
TRANSFORM_FILE = "trans_info.npz"
_WHAT = "a PeRFception checkpoint"
_SMALL_GRID, _CELLS_PER_VOXEL = 1 << 27, 1024  # 512^3; a surface fills 1 / 340 of a grid of 1024^3
_SMALL_BACKGROUND, _DIRECTIONS_PER_ROW = 1 << 20, 64


@dataclass(frozen=True)
class PerfceptionBackground:
    """Layered sphere images around the grid.

    Attributes:
        data: float32 ``[C, layers, 4]``, colour and density.
        links: int32 ``[2R, R]``, row of ``data`` of each direction, or -1.
    """

    data: Tensor
    links: Tensor


@dataclass(frozen=True)
class PerfceptionScene:
    """A Plenoxel grid.

    Attributes:
        resolution: cells along x, y, z.
        links_idx: int64 ``[V]``, (i * Ry + j) * Rz + k of each occupied cell; of nested grids, level by level.
        density: float32 ``[V]``.
        sh: float32 ``[V, 27]``, channel-major (9 of red, 9 of green, 9 of blue).
        transform: world to grid; centre 0, radius 1.
        config: bindings of config.gin.
        background: layered sphere images, or None.
        path: the scene's folder.
        levels: number of nested grids, see ``nested_field.py``; PeRFception's own have one.
        quantization: float32 ``[2, 27]``, minimum and scale of each column of ``sh``, where it was stored in bytes.
    """

    resolution: tuple[int, int, int]
    links_idx: Tensor
    density: Tensor
    sh: Tensor
    transform: SceneTransform
    config: dict[str, Any] = field(default_factory=dict)
    background: PerfceptionBackground | None = None
    path: Path | None = None
    levels: int = 1
    quantization: Tensor | None = None


def load_perfception_scene(path: str | Path, device: torch.device | str = "cpu") -> PerfceptionScene:
    """Read a scene folder, or a checkpoint in one; float, 16-, 8-, 4- and 2-bit numbers, density quantized or not.

    A folder of nested grids, which this project writes beside that format, is read likewise.

    Args:
        path: the folder or the checkpoint.
        device: where the stored numbers are unpacked to floats.

    Raises:
        UserError: a file is absent, truncated, would need code to be run, or holds what the format does not allow.
    """
    if (Path(path) / NESTED_FILE).is_file():
        return _load_nested(Path(path), device)
    path = checkpoint_path(Path(path))
    checkpoint = open_checkpoint(path, _WHAT, device=device)
    config = read_config(path.parent)
    with reading(path, _WHAT, "expected state_dict with model.links_idx, model.density_data and model.sh_data, and "
                 "reso_idx: fit or download the scene again"):  # fmt: skip
        state = checkpoint["state_dict"]
        links_idx = _voxel_indices(state["model.links_idx"])
        resolution = resolution_of(config, int(checkpoint["reso_idx"]), path.parent)
        reader = ColumnReader(checkpoint, len(links_idx), find_value(config, "quant_bit"))
        density = reader.read("density_data", path).reshape(-1)
        sh = reader.read("sh_data", path)
        quantization = reader.quantization("sh_data")
        background = _read_background(checkpoint, path)
    if find_value(config, "logarithmic_quant", False) is True:
        raise UserError(f"{path.parent} has logarithmic_quant = True, for which the public code has no consistent "
                        "reading; save the scene again without it")
    _check_grid(path, resolution, links_idx, density, sh)
    transform = SceneTransform.load(path.parent / TRANSFORM_FILE)
    return PerfceptionScene(resolution, links_idx, density, sh, transform, config, background, path.parent,
                            quantization=quantization)


def _load_nested(folder: Path, device: torch.device | str) -> PerfceptionScene:
    path = folder / NESTED_FILE
    grids = NestedGrids(path, device)
    _check_grid(path, grids.resolution, grids.voxels, grids.density, grids.sh, grids.levels)
    background = None
    if grids.background is not None:
        data, links = grids.background
        rows = _check_directions(path, links)
        _check_colors(path, data, rows)
        background = PerfceptionBackground(data, links)
    transform = SceneTransform.load(folder / TRANSFORM_FILE)
    return PerfceptionScene(grids.resolution, grids.voxels, grids.density, grids.sh, transform, {}, background, folder,
                            grids.levels, grids.quantization)


def save_nested_scene(path: str | Path, scene: PerfceptionScene, bits: int = 8) -> None:
    """Write a scene folder of nested grids: what PeRFception's readers do not know; other files in it stay.

    Args:
        bits: of each SH coefficient: 8, 16 or 32.
    """
    folder, background = Path(path), scene.background
    folder.mkdir(parents=True, exist_ok=True)
    save_nested_grids(
        folder / NESTED_FILE, (scene.levels, *scene.resolution), scene.links_idx, scene.density, scene.sh, bits,
        None if background is None else (background.data, background.links),
    )  # fmt: skip
    scene.transform.save(folder / TRANSFORM_FILE)


def _voxel_indices(stored: Tensor) -> Tensor:
    if stored.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"model.links_idx is {stored.dtype}, expected whole numbers")
    return stored.detach().long().reshape(-1)


def save_perfception_scene(
    path: str | Path,
    resolution: tuple[int, int, int],
    links_idx: Tensor,  # [V] int64
    density: Tensor,  # [V] or [V, 1]
    sh: Tensor,  # [V, 27]
    transform: SceneTransform,
    bits: int = 8,
    quantize_density: bool = False,
    background: PerfceptionBackground | None = None,
    initial_links_idx: Tensor | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """Write a scene folder that PeRFception's own reader loads: its keys, dtypes and shapes.

    Args:
        path: the folder; made if absent, other files in it stay.
        resolution, links_idx, density, sh, transform, background: as in :class:`PerfceptionScene`.
        bits: of each SH coefficient (and background number): 32 (float), 16 (half), 8, 4 or 2.
        quantize_density: store density with ``bits`` too instead of as float.
        initial_links_idx: cells before thickening, for ``init.npy``; default: the occupied ones.
        config: further bindings for config.gin; those of the format win.

    Raises:
        ValueError: shapes or values that the format does not allow.
    """
    if bits not in (32, 16, *PACKED_BITS):
        raise ValueError(f"bits = {bits}; expected 32, 16, 8, 4 or 2")
    density, sh, links_idx = density.reshape(-1, 1).detach(), sh.detach(), links_idx.long()
    if len(links_idx) == 0 or density.shape != (len(links_idx), 1) or sh.shape != (len(links_idx), SH_CHANNELS):
        raise ValueError(f"links_idx {list(links_idx.shape)}, density {list(density.shape)}, sh {list(sh.shape)}; "
                         "expected [V], [V, 1] and [V, 27] with V > 0")
    writer = CheckpointWriter(bits)
    writer.add("density_data", density, quantized=quantize_density)
    writer.state["model.links_idx"] = links_idx.cpu()
    writer.add("sh_data", sh, quantized=True)
    writer.state["model.basis_data"] = torch.empty(0, 0, 0, 0)
    if background is None:
        writer.state["model.background_data"] = torch.empty(0, 0, 0)
    else:
        writer.add("background_data", background.data.detach(), quantized=True)
        writer.state["model.background_links"] = background.links.int().cpu()
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / CHECKPOINT_FILES[0], writer)
    transform.save(folder / TRANSFORM_FILE)
    _write_cells(folder / "thick.npy", links_idx, resolution)
    _write_cells(folder / "init.npy", links_idx if initial_links_idx is None else initial_links_idx, resolution)
    write_config(folder, {
        **(config or {}),
        "LitPlenoxel.reso": [list(map(int, resolution))],
        "LitPlenoxel.sh_dim": BASIS_SIZE,
        "LitPlenoxel.background_nlayers": 0 if background is None else background.data.shape[1],
        "LitPlenoxel.background_reso": 512 if background is None else background.links.shape[1],
        "LitPlenoxel.quantize": bits < 32,
        "LitPlenoxel.quantize_density": quantize_density and bits < 32,
        "LitPlenoxel.quant_bit": min(bits, 16),
    })  # fmt: skip


def _read_background(checkpoint: dict[str, Any], path: Path) -> PerfceptionBackground | None:
    stored = checkpoint["state_dict"].get("model.background_data")
    if stored is None or stored.numel() == 0:
        return None
    links = checkpoint["state_dict"].get("model.background_links")
    if links is None:
        side = round((len(stored) / 2) ** 0.5)
        if 2 * side * side != len(stored):
            raise UserError(f"{path} has a background of {len(stored)} rows without model.background_links; expected "
                            "2 R^2 rows: quantized backgrounds of less than 8 bits are read only with their links")
        links = torch.arange(len(stored), dtype=torch.int32, device=stored.device).reshape(2 * side, side)
    whole = links.dtype in (torch.int32, torch.int64) and stored.dtype in (torch.uint8, torch.float16, torch.float32)
    if not whole or not links.numel() or links.dim() != 2 or len(links) != 2 * links.shape[1] or stored.dim() != 3 or (
        stored.shape[1] < 2
    ):
        raise UserError(f"{path}: model.background_links is {links.dtype} {list(links.shape)} and "
                        f"model.background_data {stored.dtype} {list(stored.shape)}; expected integers [2 R, R] and "
                        "[rows, layers, 4] with at least 2 layers: the file is damaged")
    rows = _check_directions(path, links)
    bits = 0
    if stored.dtype == torch.uint8:
        bits = next((bits for bits in PACKED_BITS if packed_rows(rows, bits) == len(stored)), 8)
    data = dequantize(checkpoint, "background_data", stored.detach(), bits, rows, path)
    _check_colors(path, data, rows)
    return PerfceptionBackground(data, links.int())


def _check_directions(path: Path, links: Tensor) -> int:
    """How many rows the links of a background name."""
    if links.dim() != 2 or not links.numel() or len(links) != 2 * links.shape[1]:
        raise UserError(f"{path}: the background's links are {list(links.shape)}, expected [2 R, R]: the file is "
                        "damaged")
    rows = int(links.max()) + 1
    if int(links.min()) < -1 or links.numel() > max(_SMALL_BACKGROUND, _DIRECTIONS_PER_ROW * rows):
        raise UserError(f"{path}: the background's links hold {links.numel()} directions for {rows} rows, or one "
                        "below -1; the file is damaged")
    return rows


def _check_colors(path: Path, data: Tensor, rows: int) -> None:
    if data.dim() != 3 or len(data) < rows or data.shape[1] < 2 or data.shape[2] != 4 or not torch.isfinite(data).all():
        raise UserError(f"{path}: the background's data are {list(data.shape)} for {rows} rows; expected finite "
                        "numbers [rows, layers, 4]: the file is damaged")


def _write_cells(path: Path, links_idx: Tensor, resolution: tuple[int, int, int]) -> None:
    cells = np.stack(np.unravel_index(links_idx.cpu().numpy(), resolution), axis=-1).astype(np.int32)
    with atomic_path(path) as temporary:
        np.save(temporary, cells, allow_pickle=False)


def _check_grid(
    path: Path, resolution: tuple[int, int, int], links_idx: Tensor, density: Tensor, sh: Tensor, levels: int = 1
) -> None:
    cells = levels * resolution[0] * resolution[1] * resolution[2]
    says = path if path.name == NESTED_FILE else path.parent / CONFIG_FILE
    advice = "fit the scene again" if path.name == NESTED_FILE else "copy the scene's own config.gin there"
    if len(links_idx) == 0:
        raise UserError(f"{path} holds no occupied voxel; fit or download the scene again")
    if int(links_idx.min()) < 0 or int(links_idx.max()) >= cells:
        raise UserError(f"{path}: voxel indices run from {int(links_idx.min())} to {int(links_idx.max())}, but a grid "
                        f"of {resolution} has {cells} cells; {says.name} names another resolution than theirs: "
                        f"{advice}")
    if cells > max(_SMALL_GRID, _CELLS_PER_VOXEL * len(links_idx)):
        raise UserError(f"{says} announces a grid of {short(resolution)}, and {path.name} holds "
                        f"{len(links_idx)} voxels, too few for so many cells: {advice}")
    if sh.shape[1:] != (SH_CHANNELS,) or len(density) != len(links_idx):
        raise UserError(f"{path}: SH data is {list(sh.shape)} and density {list(density.shape)}; expected 27 "
                        "coefficients and one density for each voxel (SH degree 2)")
    for name, values in (("density", density), ("SH data", sh)):
        if not torch.isfinite(values).all():
            raise UserError(f"{path}: {name} holds values that are not finite; fit or download the scene again")

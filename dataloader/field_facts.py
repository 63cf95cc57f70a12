"""What a field's folder holds, without rendering anything: size, voxels, bytes, scores and hold-out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataloader.hold_out import load_held_out
from dataloader.nested_field import NESTED_FILE
from dataloader.perfception import FIELD_PREFIX, PerfceptionScene
from utils.errors import reading
from utils.files import read_json
from utils.identity import FIELD_FILES
from utils.spherical_harmonics import SH_CHANNELS

RESULTS_FILE = "results.json"
_SCORES = ("psnr", "ssim")


@dataclass(frozen=True)
class FieldFacts:
    """What a field holds.

    Attributes:
        scene: its name.
        format: "PeRFception" or "nested".
        resolution: cells along x, y, z, of each of nested grids.
        voxels: occupied ones of each grid, the innermost first.
        voxel_size: their edges in units of the world, of each grid; the longest of the three.
        bytes_on_disk: of the files that make the field.
        bytes_in_memory: of densities, coefficients and the index of voxels, as floats and whole numbers of 32 bits.
        background_layers: of sphere images; 0 without.
        psnr, ssim: of the held-out frames, as ``results.json`` says; None where it does not.
        fitted_frames: how many frames the field was fitted to, as ``trans_info.npz`` lists them; None where it does
            not.
        held_out: names of frames that were held out; None where nothing says so, as of downloaded fields.
    """

    scene: str
    format: str
    resolution: tuple[int, int, int]
    voxels: tuple[int, ...]
    voxel_size: tuple[float, ...]
    bytes_on_disk: int
    bytes_in_memory: int
    background_layers: int
    psnr: float | None
    ssim: float | None
    fitted_frames: int | None
    held_out: tuple[str, ...] | None

    @classmethod
    def of(cls, path: Path, scene: PerfceptionScene) -> FieldFacts:
        """The facts of a folder whose grid was read.

        Raises:
            UserError: ``results.json`` or the record of held-out frames is damaged.
        """
        cells, levels = math.prod(scene.resolution), scene.levels
        voxels = (scene.links_idx // cells).bincount(minlength=levels).tolist()
        outermost = 2 / min(scene.resolution) / scene.transform.scene_scale
        held_out = load_held_out(path)
        size = sum((path / name).stat().st_size for name in FIELD_FILES if (path / name).is_file())
        background = scene.background
        in_memory = 4 * ((1 + SH_CHANNELS) * len(scene.links_idx) + levels * cells)
        in_memory += 0 if background is None else background.data.nbytes + background.links.nbytes
        return cls(
            scene=path.name.removeprefix(FIELD_PREFIX),
            format="nested" if (path / NESTED_FILE).is_file() else "PeRFception",
            resolution=tuple(scene.resolution),
            voxels=tuple(voxels),
            voxel_size=tuple(outermost * 0.5 ** (levels - 1 - level) for level in range(levels)),
            bytes_on_disk=size,
            bytes_in_memory=in_memory,
            background_layers=0 if background is None else background.data.shape[1],
            **read_scores(path),
            fitted_frames=len(scene.transform.frame_ids) or None,
            held_out=None if held_out is None else tuple(held_out),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> FieldFacts:
        """Inverse of :meth:`to_json`, also where lists came back for tuples."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})


def read_scores(path: Path) -> dict[str, float | None]:
    """``psnr`` and ``ssim`` of the held-out frames in a field's ``results.json``; None where it has none.

    PeRFception's own have ``{"PSNR": {"test": number}}``.

    Raises:
        UserError: the file is damaged.
    """
    file = path / RESULTS_FILE
    if not file.is_file():
        return dict.fromkeys(_SCORES)
    content = read_json(file, "delete it, or fit or download the scene again", kind=dict)
    with reading(file, "a field's results", "delete it, or fit or download the scene again"):
        by_name = {name.lower(): value for name, value in content.items()}
        return {name: _number(by_name.get(name)) for name in _SCORES}


def _number(value: Any) -> float | None:
    if isinstance(value, dict):
        value = value.get("test", value.get("mean"))
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def format_facts(facts: Sequence[FieldFacts]) -> str:
    """A table, one line a field."""
    rows = [("field", "format", "cells", "voxels", "voxel size", "disk", "memory", "PSNR", "held out")]
    for one in facts:
        rows.append((
            one.scene,
            one.format,
            f"{'' if len(one.voxels) == 1 else f'{len(one.voxels)} x '}{'x'.join(map(str, one.resolution))}",
            " + ".join(map(str, one.voxels)),
            "..".join(f"{size:.3g}" for size in sorted({one.voxel_size[0], one.voxel_size[-1]})),
            f"{one.bytes_on_disk / 1e6:.1f} MB",
            f"{one.bytes_in_memory / 1e6:.1f} MB",
            "unknown" if one.psnr is None else f"{one.psnr:.2f} dB",
            "unknown" if one.held_out is None else f"{len(one.held_out)} frames",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)  # fmt: skip

"""Rendering a field's views into a view store."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.capture import CAPTURE_FILE
from model.grid import PlenoxelGrid
from model.options import RenderOptions
from model.radiance_field import RadianceField
from utils.errors import UserError
from utils.progress import Progress
from utils.spherical_harmonics import SH_CHANNELS
from utils.threads import ordered_map

if TYPE_CHECKING:
    from dataloader import CameraList, Scene, ViewStoreWriter

logger = logging.getLogger(__name__)

SH_DTYPES = ("uint8", "float16")
_RANGE_QUANTILE = 0.001
_HASH_BLOCK = 1 << 20
_RENDERER_VERSION = 2
"""Increased whenever the same settings give other bytes, so that no store mixes views of two versions."""


@dataclass(frozen=True)
class StoreRequest:
    """One view store to be rendered.

    Attributes:
        field_path: the field's folder.
        scan_path: the scene's folder, for its trajectory and photographs; None with ``camera_list_path``.
        camera_list_path: cameras to render, of which the accepted ones count; None for the trajectory.
        output: the store.
        size: (height, width).
        every: render every n-th camera.
        sh_dtype: "uint8" or "float16".
    """

    field_path: Path
    scan_path: Path | None
    camera_list_path: Path | None
    output: Path
    size: tuple[int, int]
    every: int = 1
    sh_dtype: str = "uint8"


def render_store(
    request: StoreRequest, options: RenderOptions, device: torch.device, overwrite: bool = False
) -> dict[str, Any]:
    """Render the store unless it is finished; returns the number of views and views per second of this run.

    Raises:
        UserError: the field, the scene or the cameras cannot be read, or there is no camera to render.
    """
    from dataloader import ViewStoreWriter

    if request.sh_dtype not in SH_DTYPES:
        raise UserError(f"render.sh_dtype = {request.sh_dtype!r} is unknown; use one of {', '.join(SH_DTYPES)}")
    scene, cameras, source = _cameras(request, options.background_brightness)
    field = RadianceField.load(request.field_path, device)
    writer = ViewStoreWriter.create(
        request.output,
        cameras,
        _channels(request, with_photo=scene is not None),
        settings={
            "field": folder_identity(request.field_path), "options": asdict(options), "every": request.every,
            "device": device.type, "renderer": _RENDERER_VERSION,
        },  # fmt: skip
        sh_range=sh_range(field.grid) if request.sh_dtype == "uint8" else None,
        overwrite=overwrite,
        attributes={
            "T": field.transform.T.tolist(), "pcd_mean": field.transform.pcd_mean.tolist(),
            "scene_scale": field.transform.scene_scale,
        },  # fmt: skip
    )
    if writer is None:
        logger.info("%s is finished already", request.output)
        return {"views": len(cameras), "views_per_second": None}
    pending = writer.pending()
    started = time.monotonic()
    _render_pending(writer, field, cameras, options, scene, source)
    writer.finish()
    return {"views": len(cameras), "views_per_second": len(pending) / max(time.monotonic() - started, 1e-9)}


def _cameras(request: StoreRequest, background: float) -> tuple[Scene | None, CameraList, list[int]]:
    """The scene when its trajectory is rendered, the cameras, and which frame or list entry each one is."""
    from dataloader import CameraList, load_scene

    if request.camera_list_path is None:
        scene = load_scene(request.scan_path, background)
        indices = list(range(0, len(scene.frames), request.every))
        return scene, scene.cameras(request.size, indices), indices
    cameras = CameraList.load(request.camera_list_path)
    indices = cameras.accepted().nonzero()[:, 0][:: request.every].tolist()
    if not indices:
        raise UserError(f"{request.camera_list_path} holds no accepted camera; loosen the filter or skip the scene")
    return None, cameras.select(indices).resized(request.size), indices


def _channels(request: StoreRequest, with_photo: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    size = request.size
    channels = {
        "rgb": ("uint8", (3, *size)), "sh": (request.sh_dtype, (SH_CHANNELS, *size)),
        "depth": ("uint16", tuple(size)), "alpha": ("uint8", tuple(size)),
    }  # fmt: skip
    return {**channels, "photo": ("uint8", (3, *size))} if with_photo else channels


def _render_pending(
    writer: ViewStoreWriter, field: RadianceField, cameras: CameraList, options: RenderOptions, scene: Scene | None,
    source: list[int],
) -> None:  # fmt: skip
    pending = writer.pending()
    photos = _photos(scene, [source[index] for index in pending], cameras.image_size)
    with Progress(f"rendering {cameras.scene}", len(pending), "view") as meter:
        for indices, views in field.render_cameras(cameras, pending, options):
            values = {"rgb": views.rgb.clamp(0, 1), "sh": views.sh, "depth": views.depth, "alpha": views.alpha}
            if photos is not None:
                values["photo"] = torch.stack([next(photos) for _ in indices])
            writer.write(indices, values)
            meter.update(len(indices))


def _photos(scene: Scene | None, frames: list[int], size: tuple[int, int]) -> Iterator[Tensor] | None:
    if scene is None:
        return None
    return ordered_map(lambda index: scene.read_color(index, size), frames)


def sh_range(grid: PlenoxelGrid) -> Tensor:
    """The range float32 ``[27, 2]`` that each SH channel is stored in as bytes.

    A pixel is a mean of coefficients with weights that sum to at most 1. So the range runs from the 0.1% to the 99.9%
    quantile of the voxels' coefficients, each voxel counted by its opacity, and includes 0. It depends on the field
    only: all stores of a field share it.
    """
    opacity = 1 - torch.exp(-grid.density.clamp(min=0).double() * min(grid.voxel_size))
    order = grid.sh.argsort(dim=0)
    weights = opacity[order].cumsum(0)
    weights = weights / weights[-1:].clamp(min=1e-12)
    limits = []
    for quantile in (_RANGE_QUANTILE, 1 - _RANGE_QUANTILE):
        row = (weights < quantile).sum(0).clamp(max=grid.num_voxels - 1)
        limits.append(grid.sh.gather(0, order.gather(0, row[None]))[0])
    low, high = limits[0].clamp(max=0), limits[1].clamp(min=0)
    return torch.stack((low, torch.maximum(high, low + 1e-6)), dim=-1).cpu()


def folder_identity(path: Path) -> str:
    """A short digest of a field's files, exposures among them, so that views of an older field are detected."""
    digest = hashlib.sha256()
    for name in ("last.ckpt", "data.ckpt", "trans_info.npz", CAPTURE_FILE):
        if (path / name).is_file():
            with open(path / name, "rb") as file:
                while block := file.read(_HASH_BLOCK):
                    digest.update(block)
    return digest.hexdigest()[:16]

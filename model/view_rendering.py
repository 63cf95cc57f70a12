"""Rendering a field's views into a view store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lib.plenoxel.options import RenderOptions
from model.grid import PlenoxelGrid
from model.radiance_field import RadianceField
from utils.errors import UserError, check_choice
from utils.identity import FileSet, field_inputs
from utils.plans import Item, plan_output
from utils.progress import Progress
from utils.spherical_harmonics import SH_CHANNELS
from utils.threads import ordered_map

if TYPE_CHECKING:
    from dataloader import CameraList, Scene, ViewStoreWriter

logger = logging.getLogger(__name__)

SH_DTYPES = ("uint8", "float16")
_RENDERED = ("rgb", "sh", "depth", "alpha")
_RANGE_QUANTILE = 0.001
RENDERER_VERSIONS = {"cpu": 2, "cuda": 4}
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

    Raises:
        UserError: a value is out of range.
    """

    field_path: Path
    scan_path: Path | None
    camera_list_path: Path | None
    output: Path
    size: tuple[int, int]
    every: int = 1
    sh_dtype: str = "uint8"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"render.every = {self.every}: expected 1 or more")
        if min(self.size) < 1:
            raise UserError(f"render.size = {self.size}: expected a (height, width) of at least 1")
        check_choice("render.sh_dtype", self.sh_dtype, SH_DTYPES)


@dataclass(frozen=True)
class _Source:
    """What a store is rendered of: the scene when its trajectory is, the cameras, and which frame or entry each is."""

    scene: Scene | None
    cameras: CameraList
    indices: list[int]


def store_inputs(
    request: StoreRequest, options: RenderOptions, device: torch.device, source: _Source | None = None
) -> dict[str, Any]:
    """What determines a store: the field, the settings and, where ``source`` is given, cameras and photographs."""
    inputs: dict[str, Any] = {
        "size": list(request.size), "field": field_inputs(request.field_path), "options": asdict(options),
        "device": device.type, "renderer": RENDERER_VERSIONS[device.type],
    }  # fmt: skip
    if source is not None and source.scene is not None:
        scene = source.scene
        photographs = FileSet({scene.frames[index]: scene.color_paths[index] for index in source.indices})
        inputs["scan"] = {"cameras": scene.geometry_identity(), "photographs": photographs}
    return inputs


def plan_store(
    request: StoreRequest, options: RenderOptions, device: torch.device, overwrite: bool, opened: bool
) -> Item:
    """What :func:`render_store` would do.

    Args:
        opened: whether scene and cameras are opened; else only the settings and the field are compared.

    Raises:
        UserError: the field, the scene or the cameras cannot be read, or the store is there with other settings.
    """
    name = request.output.name
    if not field_inputs(request.field_path).files:
        raise UserError(f"{request.field_path} holds no field; expected last.ckpt or data.ckpt there: run 'fit', or "
                        "download the scene")
    source = _source(request, options.background_brightness) if opened else None
    inputs = store_inputs(request, options, device, source)
    detail = "" if source is None else f"{len(source.indices)} views of {request.size[1]}x{request.size[0]}"
    return plan_output(name, request.output, inputs, overwrite, detail, partly=True)


def render_store(
    request: StoreRequest, options: RenderOptions, device: torch.device, overwrite: bool = False
) -> dict[str, Any]:
    """Render the store unless it is finished; returns the number of views and views per second of this run.

    Raises:
        UserError: the field, the scene or the cameras cannot be read, or there is no camera to render.
    """
    from dataloader import ViewStoreWriter

    source = _source(request, options.background_brightness)
    field = RadianceField.load(request.field_path, device)
    inputs = store_inputs(request, options, device, source)
    rendered = [name for name in inputs if name != "scan"]
    writer = ViewStoreWriter.create(
        request.output,
        source.cameras,
        _channels(request, with_photo=source.scene is not None),
        settings=inputs,
        sh_range=sh_range(field.grid) if request.sh_dtype == "uint8" else None,
        overwrite=overwrite,
        attributes=_attributes(request, field, source),
        concerns={**dict.fromkeys(_RENDERED, rendered), "photo": ("size", "scan")},
    )
    if writer is None:
        logger.info("%s is finished already", request.output)
        return {"views": len(source.cameras), "views_per_second": None}
    pending = writer.pending()
    started = time.monotonic()
    _render_pending(writer, field, source, options)
    writer.finish()
    seconds = max(time.monotonic() - started, 1e-9)
    return {"views": len(source.cameras), "views_per_second": len(pending) / seconds}


def _attributes(request: StoreRequest, field: RadianceField, source: _Source) -> dict[str, Any]:
    """Facts for the store's readers."""
    from dataloader.hold_out import ATTRIBUTE, load_held_out

    facts = {
        "T": field.transform.T.tolist(), "pcd_mean": field.transform.pcd_mean.tolist(),
        "scene_scale": field.transform.scene_scale,
    }  # fmt: skip
    held_out = load_held_out(request.field_path) if source.scene is not None else None
    return facts if held_out is None else {**facts, ATTRIBUTE: held_out}


def _source(request: StoreRequest, background: float) -> _Source:
    from dataloader import CameraList, load_scene

    if request.camera_list_path is None:
        scene = load_scene(request.scan_path, background)
        indices = list(range(0, len(scene.frames), request.every))
        return _Source(scene, scene.cameras(request.size, indices), indices)
    cameras = CameraList.load(request.camera_list_path)
    indices = cameras.accepted().nonzero()[:, 0][:: request.every].tolist()
    if not indices:
        raise UserError(f"{request.camera_list_path} holds no accepted camera; loosen the filter or skip the scene")
    return _Source(None, cameras.select(indices).resized(request.size), indices)


def _channels(request: StoreRequest, with_photo: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    size = request.size
    channels = {
        "rgb": ("uint8", (3, *size)), "sh": (request.sh_dtype, (SH_CHANNELS, *size)),
        "depth": ("uint16", tuple(size)), "alpha": ("uint8", tuple(size)),
    }  # fmt: skip
    return {**channels, "photo": ("uint8", (3, *size))} if with_photo else channels


def _render_pending(writer: ViewStoreWriter, field: RadianceField, source: _Source, options: RenderOptions) -> None:
    pending, cameras = writer.pending(), source.cameras
    photos = _photos(source.scene, [source.indices[index] for index in pending], cameras.image_size)
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
    limits = torch.stack([_quantiles(channel, opacity) for channel in grid.sh.T])  # one by one: less memory
    low, high = limits[:, 0].clamp(max=0), limits[:, 1].clamp(min=0)
    return torch.stack((low, torch.maximum(high, low + 1e-6)), dim=-1).cpu()


def _quantiles(values: Tensor, weights: Tensor) -> Tensor:
    """The two quantiles ``[2]`` of weighted values ``[V]`` that bound the range."""
    order = values.argsort()
    share = weights[order].cumsum(0)
    share = share / share[-1].clamp(min=1e-12)
    rows = [(share < quantile).sum().clamp(max=len(values) - 1) for quantile in (_RANGE_QUANTILE, 1 - _RANGE_QUANTILE)]
    return values[order[torch.stack(rows)]]

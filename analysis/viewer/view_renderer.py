"""Draws what a browser's camera sees, in the chosen mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from analysis.viewer.camera_math import BrowserCamera
from analysis.viewer.fused_view import fused_view
from analysis.viewer.mesh_view import mesh_view
from analysis.viewer.pictures import (
    ANNOTATION,
    COLOR,
    CONFIDENCE,
    FUSED,
    NOTHING,
    PREDICTION,
    QUALITY,
    WHITE,
    class_picture,
    mode_picture,
    outputs_of,
    quality_picture,
)
from analysis.viewer.scene_state import SceneState
from model.radiance_field import RenderedView
from utils.cameras import opaque_depth
from utils.images import resize_nearest

_BAND_PIXELS = {"cpu": 1 << 14, "cuda": 1 << 22}  # drawn without checking whether the camera has moved
_SH_QUANTILE = 0.99
_SH_SAMPLES = 100_000
_QUALITY_ROWS = 180  # the cost of a pixel's quality is proportional to the number of original views


@dataclass
class DisplaySettings:
    """What all browsers show.

    Attributes:
        mode: one of :data:`analysis.viewer.pictures.MODES`.
        network: name of the one whose predictions are shown.
        sh_channel: 0..26, red's nine coefficients first.
        hidden: classes that are not shown, in meshes as in label images.
        occlude: surfaces of the field hide meshes and cameras behind them.
    """

    mode: str = COLOR
    network: str | None = None
    sh_channel: int = 0
    hidden: set[int] = field(default_factory=set)
    occlude: bool = False


class DrawnView(NamedTuple):
    """What is sent to the browser."""

    image: np.ndarray  # uint8 [H, W, 3]
    depth: np.ndarray | None = None  # float32 [H, W], metres, 0 = none
    exact: bool = False  # whether colours are class colours, which must arrive unchanged
    classes: frozenset[int] = frozenset()  # that it shows


class ViewRenderer:
    """Renders a scene's field and a network's predictions at any camera."""

    def __init__(self, state: SceneState, settings: DisplaySettings):
        self._state = state
        self._settings = settings
        self._sh_limits = sh_limits(state.field.grid.sh)
        self._prediction: tuple[BrowserCamera, str | None, Tensor] | None = None

    @property
    def sh_limit(self) -> float:
        """Magnitude of the chosen SH coefficient at the ends of its colours."""
        return float(self._sh_limits[self._settings.sh_channel])

    def draw(
        self, camera: BrowserCamera, height: int, abandoned: Callable[[], bool] = lambda: False
    ) -> DrawnView | None:
        """The picture at that height; None when ``abandoned`` came true in between."""
        mode = self._settings.mode
        if mode == NOTHING:
            return DrawnView(np.full((1, 1, 3), WHITE, dtype=np.uint8))
        if mode == PREDICTION:
            return self._class_picture(resize_nearest(self._predict(camera), camera.size(height)))
        if mode == ANNOTATION:
            return self._annotate(camera, camera.size(height))
        if mode in (FUSED, CONFIDENCE):
            return self._fuse(camera, camera.size(height), abandoned)
        size = camera.size(min(height, _QUALITY_ROWS) if mode == QUALITY else height)
        view = self._render(camera, size, outputs_of(mode), abandoned)
        if view is None:
            return None
        if mode == QUALITY:
            quality = self._state.quality.estimate(view, camera.camera_to_world, camera.intrinsics(size))
            picture = quality_picture(quality)
        else:
            channel = self._settings.sh_channel
            picture = mode_picture(view, mode, channel, self.sh_limit, self._state.depth_limit)
        return DrawnView(_channels_last(picture), self._occluder(opaque_depth(view.depth, view.alpha)))

    def _occluder(self, depth: Tensor) -> np.ndarray | None:
        return depth.cpu().numpy() if self._settings.occlude else None

    def _class_picture(self, labels: Tensor, depth: Tensor | None = None) -> DrawnView:
        picture, hidden = class_picture(labels, self._settings.hidden), self._settings.hidden
        shown = torch.bincount(labels.flatten().int()).nonzero().flatten().tolist()
        occluder = None if depth is None else self._occluder(depth)
        return DrawnView(_channels_last(picture), occluder, exact=True, classes=frozenset(shown) - hidden)

    def _fuse(
        self, camera: BrowserCamera, size: tuple[int, int], abandoned: Callable[[], bool]
    ) -> DrawnView | None:
        view = fused_view(self._state, camera, size, abandoned)
        if view is None:
            return None
        if self._settings.mode == FUSED:
            return self._class_picture(view.labels)
        return DrawnView(_channels_last(quality_picture(view.confidence)))

    def _annotate(self, camera: BrowserCamera, size: tuple[int, int]) -> DrawnView:
        device = self._state.field.grid.device
        return self._class_picture(
            *mesh_view(self._state.mesh, camera.camera_to_world, camera.intrinsics(size), size, device)
        )

    def _predict(self, camera: BrowserCamera) -> Tensor:
        """Labels at the scale of the training views; every pass over a camera shows the same."""
        network = self._settings.network
        if self._prediction is None or self._prediction[0] is not camera or self._prediction[1] != network:
            predictor = self._state.predictors[network]
            size = camera.size_at_focal(*predictor.focal)
            view = self._state.field.render_view(
                camera.camera_to_world, camera.intrinsics(size), size, self._state.options, predictor.outputs
            )
            rotation = self._state.field.transform.rotation
            labels = predictor.predict(view, camera.camera_to_world, camera.intrinsics(size), rotation)
            self._prediction = (camera, network, labels)
        return self._prediction[2]

    def _render(
        self, camera: BrowserCamera, size: tuple[int, int], outputs: tuple[str, ...], abandoned: Callable[[], bool]
    ) -> RenderedView | None:
        """Render in bands of rows, so that an abandoned view ends soon."""
        height, width = size
        rows = max(1, _BAND_PIXELS[self._state.field.grid.device.type] // width)
        intrinsics, bands = camera.intrinsics(size), []
        for top in range(0, height, rows):
            if abandoned():
                return None
            band = intrinsics.clone()
            band[1, 2] -= top  # the principal point, seen from the band's own first row
            band_size = (min(rows, height - top), width)
            bands.append(
                self._state.field.render_view(camera.camera_to_world, band, band_size, self._state.options, outputs)
            )
        joined = (None if parts[0] is None else torch.cat(parts, dim=-2) for parts in zip(*bands, strict=True))
        return RenderedView(*joined)


def sh_limits(
    sh: Tensor,  # float32 [V, 27]
) -> Tensor:  # float32 [27]
    """The 99% quantile of each coefficient's magnitude: the same scale for all views."""
    sample = sh[:: max(1, len(sh) // _SH_SAMPLES)].abs()
    return torch.quantile(sample, _SH_QUANTILE, dim=0).cpu().clamp(min=1e-6)


def _channels_last(picture: Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).contiguous().cpu().numpy()

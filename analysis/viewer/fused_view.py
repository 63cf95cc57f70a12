"""Fused labels of a view, read from the semantic field."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from analysis.viewer.camera_math import BrowserCamera
from model import render_features
from utils.lenses import Lens

if TYPE_CHECKING:
    from analysis.viewer.scene_state import SceneState

_RAYS_AT_ONCE = {"cpu": 1 << 13, "cuda": 1 << 20}


def fused_view(
    state: SceneState, camera: BrowserCamera, size: tuple[int, int], abandoned: Callable[[], bool] = lambda: False
) -> Tensor | None:
    """Classes uint8 ``[H, W]``; None when ``abandoned`` came true in between."""
    return fused_labels(state, camera.camera_to_world, camera.intrinsics(size), size, abandoned)


def fused_labels(
    state: SceneState, camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int],
    abandoned: Callable[[], bool] = lambda: False, lens: Lens | None = None,
) -> Tensor | None:  # fmt: skip
    """The same at any camera."""
    from enet.field_fusion import class_of

    field = state.field
    origins, directions = (rays.reshape(-1, 3) for rays in field.view_rays(camera_to_world, intrinsics, size, lens))
    labels = []
    for chosen in torch.arange(len(origins), device=origins.device).split(_RAYS_AT_ONCE[origins.device.type]):
        if abandoned():
            return None
        rays = origins[chosen], directions[chosen]
        labels.append(class_of(render_features(field.grid, state.semantic.probabilities, *rays, state.options)))
    return torch.cat(labels).reshape(size).cpu()

"""Fused labels of a view, read from the semantic field, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from analysis.viewer.camera_math import BrowserCamera
from utils.lenses import Lens

if TYPE_CHECKING:
    from analysis.viewer.scene_state import SceneState

_RAYS_AT_ONCE = {"cpu": 1 << 13, "cuda": 1 << 20}


class FusedView(NamedTuple):
    """What is fused in the field, seen from a camera; on the CPU.

    labels: classes uint8 ``[H, W]``. confidence: float32 ``[H, W]``, 0 to 1, how sure these are.
    """

    labels: Tensor
    confidence: Tensor


def fused_view(
    state: SceneState, camera: BrowserCamera, size: tuple[int, int], abandoned: Callable[[], bool] = lambda: False
) -> FusedView | None:
    """The view of a browser's camera; None when ``abandoned`` came true in between."""
    return _fused_at(state, camera.camera_to_world, camera.intrinsics(size), size, abandoned)


def fused_labels(
    state: SceneState, camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int], lens: Lens | None = None
) -> Tensor:
    """Classes uint8 ``[H, W]`` at any camera."""
    return _fused_at(state, camera_to_world, intrinsics, size, lambda: False, lens).labels


def _fused_at(
    state: SceneState, camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int],
    abandoned: Callable[[], bool], lens: Lens | None = None,
) -> FusedView | None:  # fmt: skip
    from enet.field_fusion import render_classes

    field = state.field
    origins, directions = (rays.reshape(-1, 3) for rays in field.view_rays(camera_to_world, intrinsics, size, lens))
    parts = []
    for chosen in torch.arange(len(origins), device=origins.device).split(_RAYS_AT_ONCE[origins.device.type]):
        if abandoned():
            return None
        rays = origins[chosen], directions[chosen]
        parts.append(render_classes(field, state.semantic, *rays, state.options))
    return FusedView(*(torch.cat(values).reshape(size).cpu() for values in zip(*parts, strict=True)))

"""Photo, render, annotation, prediction and quality of one camera, side by side."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from analysis.viewer.pictures import class_picture
from analysis.viewer.scene_state import CameraSource, SceneState


def compared_pictures(
    state: SceneState, source: CameraSource, index: int, hidden: Collection[int] = ()
) -> dict[str, Tensor]:
    """Pictures ``[3, H, W]`` of a camera by caption; images are float, label pictures uint8.

    They come from the view store; what was never stored, such as the views of rejected cameras, is made now.
    """
    pictures, stored = {}, source.store_index(index)
    channels = source.store.channels if stored is not None else ()
    if "photo" in channels:
        pictures["photo"] = source.store.read("photo", stored)
    color, sh = _stored_view(source, stored) if "rgb" in channels else _rendered_view(state, source, index)
    pictures["render"] = color.clamp(0, 1).cpu()
    labels = source.store.read("label", stored) if "label" in channels else _annotation(state, source, index)
    if labels is not None:
        pictures["annotation"] = class_picture(labels, hidden)
    if state.predictor is not None and (sh is not None or "sh" not in state.predictor.outputs):
        pose = source.cameras.camera_to_world[index]
        predicted = state.predictor.predict(color, sh, pose, state.field.transform.rotation)
        pictures["prediction"] = class_picture(predicted, hidden)
    if "quality" in channels:
        pictures["quality"] = source.store.read("quality", stored).expand(3, -1, -1)
    return pictures


def _stored_view(source: CameraSource, stored: int) -> tuple[Tensor, Tensor | None]:
    sh = source.store.read("sh", stored) if "sh" in source.store.channels else None
    return source.store.read("rgb", stored), sh


def _rendered_view(state: SceneState, source: CameraSource, index: int) -> tuple[Tensor, Tensor]:
    cameras = source.cameras
    view = state.field.render_view(
        cameras.camera_to_world[index], cameras.intrinsics[index], cameras.image_size, state.options, ("rgb", "sh")
    )
    return view.rgb, view.sh


def _annotation(state: SceneState, source: CameraSource, index: int) -> Tensor | None:
    if state.mesh is None:
        return None
    from model.annotation import annotate_views

    return annotate_views(state.mesh, source.cameras.select(torch.tensor([index]))).label[0]

"""Photo, render, annotation, prediction and quality of one camera, side by side."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from torch import Tensor

from analysis.viewer.mesh_view import mesh_view
from analysis.viewer.pictures import class_picture, quality_picture
from analysis.viewer.scene_state import CameraSource, SceneState
from model.radiance_field import RenderedView


class Comparison(NamedTuple):
    """The pictures of one camera."""

    pictures: dict[str, Tensor]  # [3, H, W] by caption; images are float, pictures of classes and quality uint8
    classes: list[int]  # indices of the classes that the pictures show


def compare(state: SceneState, source: CameraSource, index: int, hidden: Collection[int] = ()) -> Comparison:
    """Photo, render, annotation, prediction and quality of a camera.

    They come from the view store; what is not stored, such as the views of rejected cameras, is rendered.
    """
    pictures, stored = {}, source.store_index(index)
    channels = source.store.channels if stored is not None else ()
    if "photo" in channels:
        pictures["photo"] = source.store.read("photo", stored)
    color, sh = _stored_view(source, stored) if "rgb" in channels else _rendered_view(state, source, index)
    pictures["render"] = color.clamp(0, 1).cpu()
    labels = {
        "annotation": source.store.read("label", stored) if "label" in channels else _annotation(state, source, index),
        "prediction": _prediction(state, source, index, color, sh),
    }
    labels = {caption: image for caption, image in labels.items() if image is not None}
    pictures |= {caption: class_picture(image, hidden) for caption, image in labels.items()}
    quality = source.store.read("quality", stored) if "quality" in channels else _quality(state, source, index)
    if quality is not None:
        pictures["quality"] = quality_picture(quality)
    classes = {number for image in labels.values() for number in image.unique().tolist()} - set(hidden)
    return Comparison(pictures, sorted(classes))


def _stored_view(source: CameraSource, stored: int) -> tuple[Tensor, Tensor | None]:
    sh = source.store.read("sh", stored) if "sh" in source.store.channels else None
    return source.store.read("rgb", stored), sh


def _rendered_view(state: SceneState, source: CameraSource, index: int) -> tuple[Tensor, Tensor]:
    view = _render(state, source, index, ("rgb", "sh"))
    return view.rgb, view.sh


def _render(state: SceneState, source: CameraSource, index: int, outputs: tuple[str, ...]) -> RenderedView:
    cameras = source.cameras
    return state.field.render_view(
        cameras.camera_to_world[index], cameras.intrinsics[index], cameras.image_size, state.options, outputs
    )


def _annotation(state: SceneState, source: CameraSource, index: int) -> Tensor | None:
    if state.mesh is None:
        return None
    cameras = source.cameras
    return mesh_view(state.mesh, cameras.camera_to_world[index], cameras.intrinsics[index], cameras.image_size).label


def _prediction(
    state: SceneState, source: CameraSource, index: int, color: Tensor, sh: Tensor | None
) -> Tensor | None:
    if state.predictor is None or (sh is None and "sh" in state.predictor.outputs):
        return None
    return state.predictor.predict(color, sh, source.cameras.camera_to_world[index], state.field.transform.rotation)


def _quality(state: SceneState, source: CameraSource, index: int) -> Tensor | None:
    if state.quality is None:
        return None
    view, cameras = _render(state, source, index, ("depth", "alpha")), source.cameras
    return state.quality.estimate(view, cameras.camera_to_world[index], cameras.intrinsics[index])

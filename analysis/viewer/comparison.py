"""Photo, render, annotation, prediction and quality of one camera, side by side."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from torch import Tensor

from analysis.viewer.fused_view import fused_labels
from analysis.viewer.mesh_view import mesh_view
from analysis.viewer.pictures import PREDICTION, class_picture, quality_picture
from analysis.viewer.predictor import Predictor
from analysis.viewer.scene_state import CameraSource, SceneState
from dataloader import CameraList
from model.radiance_field import RenderedView
from utils.images import resize_image, resize_nearest


class Comparison(NamedTuple):
    """The pictures of one camera."""

    pictures: dict[str, Tensor]  # [3, H, W] by caption; images are float, pictures of classes and quality uint8
    classes: list[int]  # indices of the classes that the pictures show


def compare(state: SceneState, source: CameraSource, index: int, hidden: Collection[int] = ()) -> Comparison:
    """Photo, render, annotation, networks' predictions, fused labels and quality of a camera.

    They come from the view store; what is not stored, such as the views of rejected cameras or labels of this label
    set's classes, is rendered.
    """
    pictures, stored = {}, source.store_index(index)
    channels = source.store.channels if stored is not None else ()
    if "photo" in channels:
        pictures["photo"] = source.store.read("photo", stored)
    rendered, labelled = "rgb" in channels, stored is not None and source.store.has_labels
    color = source.store.read("rgb", stored) if rendered else _render(state, source.cameras, index, ("rgb",)).rgb
    pictures["render"] = color.clamp(0, 1).cpu()
    labels = {
        "annotation": source.store.read("label", stored) if labelled else _annotation(state, source, index),
        **{caption: _prediction(state, source, index, predictor) for caption, predictor in _named(state).items()},
        "fused": _fused(state, source, index),
    }
    labels = {caption: image for caption, image in labels.items() if image is not None}
    pictures |= {caption: class_picture(image, hidden) for caption, image in labels.items()}
    quality = source.store.read("quality", stored) if "quality" in channels else _quality(state, source, index)
    if quality is not None:
        pictures["quality"] = quality_picture(quality)
    classes = {number for image in labels.values() for number in image.unique().tolist()} - set(hidden)
    return Comparison(pictures, sorted(classes))


def _render(state: SceneState, cameras: CameraList, index: int, outputs: tuple[str, ...]) -> RenderedView:
    return state.field.render_view(
        cameras.camera_to_world[index], cameras.intrinsics[index], cameras.image_size, state.options, outputs,
        lens=cameras.lens,
    )


def _annotation(state: SceneState, source: CameraSource, index: int) -> Tensor | None:
    if state.mesh is None:
        return None
    cameras = source.cameras
    pose, intrinsics = cameras.camera_to_world[index], cameras.intrinsics[index]
    return mesh_view(state.mesh, pose, intrinsics, cameras.image_size, lens=cameras.lens).label


def _named(state: SceneState) -> dict[str, Predictor]:
    """Networks by the captions of their predictions."""
    single = len(state.predictors) == 1
    return {PREDICTION if single else f"{PREDICTION}: {name}": each for name, each in state.predictors.items()}


def _prediction(state: SceneState, source: CameraSource, index: int, predictor: Predictor) -> Tensor | None:
    """What the network says of the view at the size that it was trained on; None where its input is not there."""
    stored = source.store_index(index)
    needed = {output: predictor.color if output == "rgb" else output for output in predictor.outputs}
    channels = set(source.store.channels) if stored is not None else set()
    cameras = source.cameras.resized(predictor.size)
    if channels.issuperset(needed.values()) and source.store.size == predictor.size:
        read = {output: source.store.read(channel, stored) for output, channel in needed.items()}
        view = RenderedView(*(read.get(output) for output in RenderedView._fields))
    elif predictor.color == "photo" and "photo" not in channels:
        return None
    else:
        view = _render(state, cameras, index, predictor.outputs)
        if predictor.color == "photo":
            view = view._replace(rgb=resize_image(source.store.read("photo", stored), predictor.size))
    labels = predictor.predict(
        view, cameras.camera_to_world[index], cameras.intrinsics[index], state.field.transform.rotation, cameras.lens
    )
    return resize_nearest(labels, source.cameras.image_size)


def _fused(state: SceneState, source: CameraSource, index: int) -> Tensor | None:
    cameras = source.cameras
    if state.semantic is None:
        return None
    pose, intrinsics = cameras.camera_to_world[index], cameras.intrinsics[index]
    return fused_labels(state, pose, intrinsics, cameras.image_size, lens=cameras.lens)


def _quality(state: SceneState, source: CameraSource, index: int) -> Tensor | None:
    if state.quality is None:
        return None
    view, cameras = _render(state, source.cameras, index, ("rgb", "depth", "alpha")), source.cameras
    return state.quality.estimate(view, cameras.camera_to_world[index], cameras.intrinsics[index], cameras.lens)

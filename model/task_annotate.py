"""Task ``annotate``: label images for rendered views."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import gin
import torch

from dataloader import CameraList, Mesh, ViewStore, add_channel, load_mesh, load_scene
from dataloader.view_channels import encode
from model.annotation import LABEL_RULES, LABEL_SETS, annotate_views, count_labels
from utils.device import choose_device
from utils.errors import UserError
from utils.images import write_image
from utils.labels import UNANNOTATED
from utils.outputs import commit_output, prepare_output
from utils.progress import Progress
from utils.scene_workers import SceneWorkers
from utils.scenes import for_each_scene, resolve_scenes
from utils.tasks import task

logger = logging.getLogger(__name__)
_PIXELS_PER_CHUNK = 2_000_000


@task(summary="rasterize the labelled meshes into the rendered views", inputs=("scans_dir", "views_dir"),
      records="{views_dir}/run/annotate", configures=(SceneWorkers,))  # fmt: skip
def annotate(
    scans_dir: str = gin.REQUIRED,
    views_dir: str = gin.REQUIRED,
    scenes: str | list[str] = "all",
    label_rule: str = "majority",
    near: float = 0.01,
    with_depth: bool = False,
    png_dir: str = "",
    png_labels: str = "classes",
    device: str = "auto",
    on_error: str = "refuse",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Add the channel ``label`` to each scene's view store; finished scenes are left alone.

    Args:
        scans_dir: folder of scenes with labelled meshes, in any layout that 'fit' reads.
        views_dir: folder of view stores that 'render' wrote, of recorded or of novel views.
        scenes: "all", a list of names, or a text file with one name a line.
        label_rule: "majority": a face has the class of at least two of its vertices; "nearest_vertex": a pixel has
            the class of the nearest vertex of its face.
        near: metres; surfaces closer to the camera are invisible.
        with_depth: also add the channel "depth_mesh", the mesh's depth.
        png_dir: also write 8-bit label images to png_dir/SCENE/VIEW.png; "" writes none.
        png_labels: what these images hold: "classes" (0..20) or "nyu40" (0..40).
        device: "auto", "cpu" or "cuda".
        on_error: "refuse" stops at a bad scene, "skip" goes on without it.
        overwrite: replace labels that were made with other settings.
    """
    if label_rule not in LABEL_RULES:
        raise UserError(f"annotate.label_rule = {label_rule!r} is unknown; use one of {', '.join(LABEL_RULES)}")
    if png_labels not in LABEL_SETS:
        raise UserError(f"annotate.png_labels = {png_labels!r} is unknown; use one of {', '.join(LABEL_SETS)}")
    if not near > 0:
        raise UserError(f"annotate.near = {near} must be a positive number of metres")
    if scenes == "all" and not any(Path(views_dir).glob("*/cameras.json")):
        logger.warning("%s holds no views: nothing to annotate", views_dir)
        return {}
    chosen_device = choose_device(device)

    def annotate_scene(name: str) -> dict[str, Any]:
        annotator = _SceneAnnotator(
            Path(scans_dir) / name, Path(views_dir) / name, label_rule, near, chosen_device, overwrite
        )
        annotator.add_labels()
        if with_depth:
            annotator.add_depth()
        if png_dir:
            annotator.write_pngs(Path(png_dir) / name, png_labels)
        return annotator.summary()

    return for_each_scene(resolve_scenes(scenes, views_dir), annotate_scene, "annotate", on_error)


class _SceneAnnotator:
    """One scene's view store and labelled mesh."""

    def __init__(
        self, scan: Path, store_path: Path, label_rule: str, near: float, device: torch.device, overwrite: bool
    ):
        self._store = ViewStore(store_path)
        self._mesh_path = load_scene(scan).label_mesh_path
        self._mesh: Mesh = load_mesh(self._mesh_path, require_labels=True)
        self._label_rule, self._near, self._device, self._overwrite = label_rule, near, device, overwrite
        self._counts = count_labels(self._mesh, self._store.scene)
        with open(self._mesh_path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        self._depth_settings = {"near": near, "mesh": digest}
        self._label_settings = {**self._depth_settings, "label_rule": label_rule}

    def add_labels(self) -> None:
        def fill(array) -> None:
            for start, part in self._chunks("labels"):
                array[start : start + len(part)] = self._annotate(part).label.cpu().numpy()

        add_channel(self._store.path, "label", fill, self._label_settings, self._overwrite)

    def add_depth(self) -> None:
        def fill(array) -> None:
            for start, part in self._chunks("depth"):
                stored, _ = encode("depth_mesh", self._annotate(part).depth, str(array.dtype))
                array[start : start + len(part)] = stored.cpu().numpy()

        add_channel(self._store.path, "depth_mesh", fill, self._depth_settings, self._overwrite)

    def write_pngs(self, folder: Path, label_set: str) -> None:
        """One image a view, named after its camera; an interrupted run goes on where it stopped with --resume."""
        cameras = self._store.cameras
        if len(set(cameras.names)) < len(cameras):
            raise UserError(f"{self._store.path} has several cameras of the same name, so their images cannot be told "
                            "apart; leave annotate.png_dir empty and read the label channel")
        settings = {**self._label_settings, "labels": label_set, "size": list(self._store.size),
                    "cameras": hashlib.sha256(str(cameras.to_json()).encode()).hexdigest()[:16]}  # fmt: skip
        partial = prepare_output(folder, settings, self._overwrite)
        if partial is None:
            return
        for _, part in self._chunks("label images"):
            files = [partial / f"{name}.png" for name in part.names]
            if all(file.exists() for file in files):
                continue
            for file, label in zip(files, self._annotate(part, label_set).label.cpu(), strict=True):
                write_image(file, label)
        commit_output(folder)

    def summary(self) -> dict[str, Any]:
        """Views, share of unannotated pixels, and vertices without a valid label."""
        label = ViewStore(self._store.path).tensor("label")
        unannotated = sum(int((view == UNANNOTATED).sum()) for view in label)
        return {
            "views": len(label),
            "unannotated_share": unannotated / label.numel(),
            "vertices": self._counts.vertices,
            "unlabelled_vertices": self._counts.unlabelled,
            "vertices_outside_nyu40": {str(id): number for id, number in self._counts.outside.items()},
        }

    def _annotate(self, cameras: CameraList, label_set: str = "classes"):
        return annotate_views(self._mesh, cameras, self._label_rule, label_set, self._near, self._device)

    def _chunks(self, what: str):
        """Yield (index of the first view, cameras) a few views at a time, with progress."""
        cameras, (height, width) = self._store.cameras, self._store.size
        step = max(1, _PIXELS_PER_CHUNK // (height * width))
        with Progress(f"{self._store.scene} {what}", len(cameras), "view") as meter:
            for start in range(0, len(cameras), step):
                part = cameras.select(range(start, min(start + step, len(cameras))))
                yield start, part
                meter.update(len(part))

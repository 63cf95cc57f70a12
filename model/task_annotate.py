"""Task ``annotate``: label images for rendered views."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import gin
import torch
from torch import Tensor

from dataloader import CameraList, Mesh, ViewStore, add_channel, load_scene
from dataloader.added_channels import channels_missing
from dataloader.label_images import LabelImages
from dataloader.label_mesh import label_files, load_label_mesh
from dataloader.object_groups import group_files
from dataloader.sensors import SensorOptions
from dataloader.view_array import StoreOptions, ViewArrayWriter
from dataloader.view_channels import encode
from model.annotation import LABEL_RULES, VALUES, annotate_vertices, annotate_views, count_labels
from model.instances import Instances, scene_instances
from model.label_agreement import compare_labels
from utils.device import choose_device
from utils.errors import UserError, check_choice
from utils.files import write_json
from utils.identity import FileSet, value_identity
from utils.images import write_image
from utils.labels import UNANNOTATED, label_set, label_settings
from utils.outputs import DONE, commit_output, output_state, prepare_output
from utils.plans import ADD, Item, Plan, plan_scenes
from utils.progress import Progress
from utils.scene_workers import SceneWorkers
from utils.scenes import check_on_error, for_each_scene, require_scenes, resolve_scenes
from utils.tasks import task

logger = logging.getLogger(__name__)
_PIXELS_PER_CHUNK = 2_000_000
_LABEL_IMAGES, _INSTANCE_IMAGES = "label images", "instance images"


@task(
    summary="rasterize the labelled meshes into the rendered views",
    inputs=("scans_dir", "views_dir"),
    records="{views_dir}/run/annotate",
    configures=(SensorOptions, SceneWorkers, StoreOptions, label_set),
)
def annotate(
    scans_dir: str = gin.REQUIRED,
    views_dir: str = gin.REQUIRED,
    scenes: str | list[str] = "all",
    label_rule: str = "majority",
    near: float = 0.01,
    with_depth: bool = False,
    png_dir: str = "",
    png_labels: str = "classes",
    instances_dir: str = "",
    compare_label_images: bool = False,
    device: str = "auto",
    on_error: str = "refuse",
    unlabelled: str | Sequence[str] = (),
    overwrite: bool = False,
) -> Plan:
    """Add the channel ``label`` to each scene's view store; finished scenes are left alone.

    Args:
        scans_dir: folder of scenes with labelled meshes, in any layout that 'fit' reads.
        views_dir: folder of view stores that 'render' wrote, of recorded or of novel views.
        scenes: "all", a list of names, or a text file with one name a line.
        label_rule: "majority": a face has the class of at least two of its vertices; "nearest_vertex": a pixel has
            the class of the nearest vertex of its face.
        near: metres; surfaces closer to the camera are invisible.
        with_depth: also add the channel "depth_mesh", the mesh's depth.
        png_dir: also write label images to png_dir/SCENE/VIEW.png, of 8 bits or, where an id needs it, of 16; "" writes
            none.
        png_labels: what these images hold: "classes" (class indices) or "ids" (those of the label set's table).
        instances_dir: also write which object each pixel shows, to instances_dir/SCENE/VIEW.png of 16 bits, 0 for none,
            and what the objects are, to instances.json beside them: ScanNet's objects (SCENE.aggregation.json and
            *.segs.json), or connected surfaces of one id where the scan has neither; "" writes none.
        compare_label_images: also rasterize at the poses and the size of ScanNet's own label images
            (scans_dir/SCENE/label-filt/N.png) of the recorded views, and say in metrics.json how far they agree.
        device: "auto", "cpu" or "cuda".
        on_error: "refuse" stops at a bad scene, "skip" continues without it.
        unlabelled: scenes that have no labels, such as ScanNet's test scenes: a list of names, or a text file.
        overwrite: replace labels that were made with other settings.
    """
    check_choice("annotate.label_rule", label_rule, LABEL_RULES)
    check_choice("annotate.png_labels", png_labels, VALUES)
    if png_dir and Path(png_dir).absolute() == Path(instances_dir).absolute():
        raise UserError(f"annotate.png_dir and annotate.instances_dir are both {png_dir}; their images have the same "
                        "names: choose two folders")
    if not near > 0:
        raise UserError(f"annotate.near = {near} must be a positive number of metres")
    check_on_error(on_error)
    if scenes == "all" and not any(Path(views_dir).glob("*/cameras.json")):
        return Plan(dict, notes=[f"{views_dir} holds no views: nothing to annotate"])
    chosen_device = choose_device(device)
    without = set(resolve_scenes(unlabelled)) if unlabelled else set()
    found = resolve_scenes(scenes, views_dir)
    require_scenes(found, views_dir)
    names = [name for name in found if name not in without]
    left_out = len(found) - len(names)
    notes = [f"{left_out} scenes have no labels (annotate.unlabelled)"] if left_out else []

    def annotator(name: str) -> _SceneAnnotator:
        return _SceneAnnotator(Path(scans_dir) / name, Path(views_dir) / name, label_rule, near, with_depth,
                               Path(png_dir) / name if png_dir else None, png_labels,
                               Path(instances_dir) / name if instances_dir else None, compare_label_images,
                               chosen_device, overwrite)

    def annotate_scene(name: str) -> dict[str, Any]:
        return annotator(name).run()

    items = plan_scenes(names, lambda name, opened: annotator(name).plan(opened), on_error)
    return Plan(lambda: for_each_scene(
        names, annotate_scene, "annotate", on_error, on_gpu=chosen_device.type == "cuda"
    ), items, notes)


def id_dtype() -> torch.dtype:
    """Of images that hold ids of the label set: uint8 if all fit, else uint16."""
    return torch.uint8 if max(label_set().known_ids.values()) <= torch.iinfo(torch.uint8).max else torch.uint16


class _SceneAnnotator:
    """One scene's view store and labelled mesh; reads only their headers until it runs."""

    def __init__(
        self, scan: Path, store: Path, label_rule: str, near: float, with_depth: bool, png_folder: Path | None,
        png_labels: str, instance_folder: Path | None, compares: bool, device: torch.device, overwrite: bool,
    ):  # fmt: skip
        self._store = ViewStore(store)
        self._scan = load_scene(scan)
        self._label_rule, self._near, self._device, self._overwrite = label_rule, near, device, overwrite
        self._png_labels = png_labels
        self._compared = self._frames_with_label_images() if compares else []
        self._image_folders = {what: folder for what, folder in
                               ((_LABEL_IMAGES, png_folder), (_INSTANCE_IMAGES, instance_folder)) if folder is not None}
        mesh_settings = {"near": near, "mesh": FileSet(label_files(self._scan))}
        self._channels = {"label": {**mesh_settings, "label_rule": label_rule, **label_settings()}}
        if with_depth:
            self._channels["depth_mesh"] = mesh_settings

    def plan(self, opened: bool) -> Item:
        """What would be added.

        Args:
            opened: whether the mesh is read, if it is needed.

        Raises:
            UserError: the mesh cannot be used, or what would be added is there with other settings.
        """
        missing = [name for name, settings in self._channels.items()
                   if channels_missing(self._store.path, [name], settings, self._overwrite)]
        missing += [what for what, folder in self._image_folders.items()
                    if output_state(folder, self._image_settings(what), self._overwrite) != DONE]
        if missing and opened:
            self._mesh  # noqa: B018  (refused here, or never)
        detail = f"{' and '.join(missing)} of {len(self._store)} views" if missing else ""
        return Item(self._store.path.name, self._store.path, ADD if missing else DONE, detail)

    def run(self) -> dict[str, Any]:
        """Add what is missing; returns the scene's figures."""
        for name in self._channels:
            add_channel(self._store.path, name, partial(self._fill, name), self._channels[name], self._overwrite)
        for what, folder in self._image_folders.items():
            self._write_images(what, folder)
        return self.summary()

    def _frames_with_label_images(self) -> list[str]:
        """Those of the store's views that are recorded frames and have a label image."""
        recorded, views = LabelImages(self._scan).frames, set(self._store.cameras.names)
        frames = [frame for frame in recorded if frame in views]
        if not frames:
            raise UserError(f"{self._store.path} has no view of the {len(recorded)} frames that have label images in "
                            f"{self._scan.path}; compare views of recorded frames, or set "
                            "annotate.compare_label_images = False")
        return frames

    @cached_property
    def _mesh(self) -> Mesh:
        return load_label_mesh(self._scan)

    def _fill(self, name: str, array: ViewArrayWriter) -> None:
        something = False
        for start, part in self._chunks("labels" if name == "label" else "depth"):
            views = self._annotate(part)
            stored = views.label if name == "label" else encode(name, views.depth, str(array.dtype))[0]
            array[start : start + len(part)] = stored.cpu().numpy()
            something = something or bool(stored.any())
        if not something:
            raise UserError(f"{self._store.path}: no pixel of its {len(self._store)} views shows a labelled surface of "
                            f"{label_files(self._scan)['mesh']}; mesh and cameras are in different frames, the mesh "
                            f"has no labels, or none that {label_set().path.name} lists: check the scan with 'verify'")

    def _image_settings(self, what: str) -> dict[str, Any]:
        cameras = self._store.cameras
        if len(set(cameras.names)) < len(cameras):
            raise UserError(f"{self._store.path} has several cameras of the same name, so their images would share a "
                            "file; leave annotate.png_dir and annotate.instances_dir empty and read the label channel")
        settings = {**self._channels["label"], "size": list(self._store.size),
                    "cameras": value_identity(cameras.to_json())}  # fmt: skip
        if what == _LABEL_IMAGES:
            return {**settings, "labels": self._png_labels}
        objects = {name: path for name, path in group_files(self._scan).items() if path.is_file()}
        return {**settings, "objects": FileSet(objects)}

    def _write_images(self, what: str, folder: Path) -> None:
        """One image a view, named after its camera; an interrupted run continues where it stopped with --resume."""
        unfinished = prepare_output(folder, self._image_settings(what), self._overwrite)
        if unfinished is None:
            return
        for _, part in self._chunks(what):
            files = [unfinished / f"{name}.png" for name in part.names]
            if all(file.exists() for file in files):
                continue
            for file, image in zip(files, self._images(what, part), strict=True):
                write_image(file, image)
        if what == _INSTANCE_IMAGES:
            write_json(unfinished / "instances.json", self._instances.described)
        commit_output(folder)

    def _images(self, what: str, cameras: CameraList) -> Tensor:
        if what == _LABEL_IMAGES:
            labels = self._annotate(cameras, self._png_labels).label.cpu()
            return labels if labels.dtype == torch.uint8 else labels.to(id_dtype())
        vertex = self._instances.vertex
        views = annotate_vertices(self._mesh, vertex, cameras, self._label_rule, self._near, self._device)
        return views.label.cpu().to(torch.uint16)

    @cached_property
    def _instances(self) -> Instances:
        return scene_instances(self._scan, self._mesh)

    def summary(self) -> dict[str, Any]:
        """Views, share of unannotated pixels, vertices without a valid label, and agreement with label images."""
        store = ViewStore(self._store.path)
        counts = count_labels(self._mesh, self._store.scene)
        unannotated = sum(int((labels == UNANNOTATED).sum()) for _, labels in store.blocks("label"))
        agreement = self._agreement() if self._compared else {}
        return {
            "views": len(store),
            "unannotated_share": unannotated / (len(store) * math.prod(store.size)),
            "vertices": counts.vertices,
            "unlabelled_vertices": counts.unlabelled,
            "vertices_of_unknown_ids": {str(id): number for id, number in counts.outside.items()},
            **agreement,
        }

    def _agreement(self) -> dict[str, Any]:
        found = compare_labels(
            self._scan, self._mesh, self._compared, self._label_rule, self._near, self._device
        ).figures()
        logger.info("%s: rasterized labels and %d label images agree in %s of the %d pixels that both label",
                    self._store.scene, found["images"],
                    "none" if found["agreement"] is None else f"{found['agreement']:.1%}", found["compared"])
        return {"label_images": found}

    def _annotate(self, cameras: CameraList, values: str = "classes"):
        return annotate_views(self._mesh, cameras, self._label_rule, values, self._near, self._device)

    def _chunks(self, what: str):
        """Yield (index of the first view, cameras) a few views at a time, with progress."""
        cameras, (height, width) = self._store.cameras, self._store.size
        step = max(1, _PIXELS_PER_CHUNK // (height * width))
        with Progress(f"{self._store.scene} {what}", len(cameras), "view") as meter:
            for start in range(0, len(cameras), step):
                part = cameras.select(range(start, min(start + step, len(cameras))))
                yield start, part
                meter.update(len(part))

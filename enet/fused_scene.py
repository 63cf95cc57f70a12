"""One scene's predictions fused in its field: semantic field, fused label images, labelled mesh, and scores."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dataloader import ViewStore, load_mesh, load_scene
from dataloader.label_mesh import has_labels, label_files, load_label_mesh
from dataloader.predicted_labels import CONFIDENCE_FILE, LABEL_FILE
from dataloader.synthesis.scene_folder import write_ply
from dataloader.view_channels import encode
from enet.checkpoints import check_size, load_checkpoint
from enet.field_fusion import fuse_predictions, fusion_inputs, render_labels
from enet.metrics import confusion_matrix
from enet.predictions import CheckpointPredictions, StoredPredictions
from enet.self_training import SOURCE_FILE
from model import RadianceField
from model.annotation import vertex_labels
from model.fusion import FusionOptions
from model.semantic_field import SEMANTIC_FILE, SemanticField, class_of, classes_at
from utils.errors import UserError
from utils.files import atomic_path, read_json, write_json
from utils.identity import FileSet, field_inputs, file_identity, store_identity
from utils.labels import label_set
from utils.outputs import commit_output, prepare_output
from utils.plans import Item, plan_output

logger = logging.getLogger(__name__)
MESH_FILE, CONFUSION_FILE = "mesh.ply", "confusion.json"
_FILES = 3  # version of what is written beside the semantic field: increased when files are added or differ


@dataclass(frozen=True)
class FusedScene:
    """What is fused, and where it goes; see the task ``fuse``.

    Attributes:
        name: of the scene.
        field: folder of its radiance field.
        views: its view store.
        output: folder that is written.
        checkpoint: of the network that predicts, or None.
        predictions: file of predicted probabilities, or None.
        scan: the scene's folder, whose mesh is labelled; or None.
        batch_size: views that the network sees at a time.
        device: to compute on.
        other_size: whether the views may have another size than those that the network was trained on.
        options: how much a prediction counts.
    """

    name: str
    field: Path
    views: Path
    output: Path
    checkpoint: Path | None
    predictions: Path | None
    scan: Path | None
    batch_size: int
    device: torch.device
    other_size: bool
    options: FusionOptions

    def plan(self, overwrite: bool, opened: bool = True) -> Item:
        """What :meth:`fuse` would do.

        Args:
            overwrite: whether a finished output is made again.
            opened: whether the predictions' header or the checkpoint is looked at.

        Raises:
            UserError: something is absent or does not fit, or the output is there with other settings.
        """
        store = ViewStore(self.views)
        if not field_inputs(self.field).files:
            raise UserError(f"{self.field} holds no field; expected last.ckpt or data.ckpt there: run 'fit'")
        if opened:
            self._source(store)
        height, width = store.size
        detail = f"{len(store)} views of {width}x{height}"
        return plan_output(self.name, self.output, self._inputs(store), overwrite, detail)

    def fuse(self, overwrite: bool) -> dict[str, Any]:
        """Confusion matrices ``single`` and ``fused`` of the views, and ``vertices``; None where labels are absent."""
        store = ViewStore(self.views)
        partial = prepare_output(self.output, self._inputs(store), overwrite)
        if partial is None:
            logger.info("%s is finished already", self.output)
            return read_json(self.output / CONFUSION_FILE, kind=dict)
        field = RadianceField.load(self.field, self.device)
        single = _SingleViews(store)
        source = self._source(store)
        fused = fuse_predictions(field, [(store.cameras, single.watch(source))], self.options)
        fused.save(partial / SEMANTIC_FILE, field.grid)
        semantic = SemanticField.load(partial / SEMANTIC_FILE, field.grid)  # as readers will see it
        confusion = self._write_labels(partial, field, semantic, store)
        vertices = None if self.scan is None else self._write_mesh(partial / MESH_FILE, field, semantic)
        counts = {"single": single.confusion, "fused": confusion, "vertices": vertices}
        counts = {name: None if value is None else value.tolist() for name, value in counts.items()}
        write_json(partial / CONFUSION_FILE, {**counts, "views": len(store)})
        write_json(partial / SOURCE_FILE, {"trained_on": source.trained_on})
        commit_output(self.output)
        return {**counts, "views": len(store)}

    def _source(self, store: ViewStore) -> CheckpointPredictions | StoredPredictions:
        if self.predictions is not None:
            return StoredPredictions(self.predictions, len(store))
        module = load_checkpoint(self.checkpoint, self.device)
        check_size(module, self.checkpoint, store.size, self.other_size, "fuse.other_size")
        return CheckpointPredictions(module, store, self.batch_size)

    def _inputs(self, store: ViewStore) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "field": field_inputs(self.field), "cameras": file_identity(self.views / "cameras.json"),
            "files": _FILES, **fusion_inputs(self.device, self.options),
        }  # fmt: skip
        if self.predictions is not None:
            inputs["predictions"] = FileSet({"predictions": self.predictions})
        else:
            inputs["checkpoint"] = FileSet({"checkpoint": self.checkpoint})
            inputs["views"] = store_identity(self.views, ("rgb", "photo", "sh", "depth", "alpha"))
        labels = {path.stem: path for path in store.files("label")} if "label" in store.channels else {}
        inputs["labels"] = FileSet(labels)
        if self.scan is not None:
            scan = load_scene(self.scan)
            files = {"mesh": scan.mesh_path} if scan.mesh_path.is_file() else {}
            if has_labels(scan):
                files |= {name.replace("mesh", "labels"): path for name, path in label_files(scan).items()}
            inputs["mesh"] = FileSet(files)
        return inputs

    def _write_labels(
        self, folder: Path, field: RadianceField, semantic: SemanticField, store: ViewStore
    ) -> Tensor | None:
        """Fused classes and their confidence, ``[N, H, W]``; returns the confusion matrix, where there are labels."""
        shape = len(store), *store.size
        confusion = _no_confusion(store)
        with (
            atomic_path(folder / LABEL_FILE, flushed=False) as label_path,
            atomic_path(folder / CONFIDENCE_FILE, flushed=False) as confidence_path,
        ):
            labels, confidences = (np.lib.format.open_memmap(path, "w+", np.uint8, shape)
                                   for path in (label_path, confidence_path))  # fmt: skip
            for views, label, confidence in render_labels(field, semantic, store.cameras):
                labels[views.start : views.stop] = label.cpu().numpy()
                confidences[views.start : views.stop] = encode("quality", confidence, "uint8")[0].cpu().numpy()
                if confusion is not None:
                    confusion += confusion_matrix(label.cpu(), _truth(store, views))
            labels.flush()
            confidences.flush()
            del labels, confidences
        return confusion

    def _write_mesh(self, path: Path, field: RadianceField, semantic: SemanticField) -> Tensor | None:
        """The scene's mesh in the colours of the fused classes; returns the vertices' confusion matrix."""
        scan = load_scene(self.scan)
        labelled = has_labels(scan)
        if not labelled and not scan.mesh_path.is_file():
            return None
        mesh = load_label_mesh(scan) if labelled else load_mesh(scan.mesh_path)
        classes = classes_at(field, semantic, mesh.vertices).cpu()
        ids = np.array(label_set().ids, np.uint16)[classes.numpy()]
        write_ply(path, mesh.vertices.numpy(), label_set().colors[classes.numpy()], mesh.faces.numpy(), ids)
        return None if mesh.labels is None else confusion_matrix(classes, vertex_labels(mesh.labels))


class _SingleViews:
    """Counts what single views were predicted to show, as the predictions pass by."""

    def __init__(self, store: ViewStore):
        self._store = store
        self.confusion = _no_confusion(store)

    def watch(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """The predictions ``[n, C, h, w]``, unchanged."""
        first = 0
        for batch in batches:
            if self.confusion is not None:
                views = range(first, first + len(batch))
                full = interpolate(batch.float(), size=self._store.size, mode="bilinear", align_corners=False)
                self.confusion += confusion_matrix(class_of(full.movedim(1, -1)).cpu(), _truth(self._store, views))
            first += len(batch)
            yield batch


def _no_confusion(store: ViewStore) -> Tensor | None:
    classes = label_set().num_classes
    return torch.zeros(classes, classes, dtype=torch.int64) if "label" in store.channels else None


def _truth(store: ViewStore, views: range) -> Tensor:
    return torch.stack([store.read("label", view) for view in views])

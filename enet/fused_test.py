"""Scores of predictions that are fused in the tested scenes' fields and rendered back, beside those of single views."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataloader import StoreViews, ViewDataset, ViewStore
from dataloader.perfception import FIELD_PREFIX
from enet.calibration import calibrated_options
from enet.callbacks import triplets
from enet.checkpoints import load_checkpoint
from enet.evaluation import CheckpointTest, log_scores, sampled_views, samples_of_scenes
from enet.field_fusion import fuse_predictions, fusion_inputs, render_labels
from enet.metrics import confusion_matrix, pixel_counts, summarize_confusion
from enet.module import SegmentationModule
from enet.options import ViewOptions
from enet.predictions import CheckpointPredictions
from enet.temperature import TemperatureFit
from enet.view_source import ViewBatch
from model import RadianceField
from model.fusion import FusionOptions
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.identity import field_inputs
from utils.images import write_image
from utils.labels import label_set
from utils.outputs import commit_output, prepare_output
from utils.plans import Item, plan_output
from utils.progress import progress

logger = logging.getLogger(__name__)
FOLDER = "fused"


@dataclass(frozen=True)
class FusedTest:
    """The views of a test, and the fields of their scenes; see the test task.

    Only the tested views are fused, so that a scene's other frames, which a network may have been trained on, say
    nothing.

    Attributes:
        single: the test of single views.
        fields: of each scene, its folder.
        options: how much a prediction counts.
    """

    single: CheckpointTest
    fields: dict[str, Path]
    options: FusionOptions

    @staticmethod
    def of(single: CheckpointTest, fields_dir: str | Path, calibration: str | Path = "") -> FusedTest:
        """In the fields of a folder, with a temperature of :func:`enet.calibration.calibrated_options`.

        Raises:
            UserError: one of them is absent, or the calibration cannot be used.
        """
        fields = {scene: Path(fields_dir) / f"{FIELD_PREFIX}{scene}" for scene in single.scenes}
        for scene, folder in fields.items():
            if not field_inputs(folder).files:
                raise UserError(f"{folder} holds no field of {scene}; expected last.ckpt, data.ckpt or nested.npz "
                                "there: run 'fit', or set test.fused = False")
        return FusedTest(single, fields, calibrated_options(calibration, single.checkpoint, single.scenes))

    @property
    def output(self) -> Path:
        """Folder of the scores, beside that of the single views'."""
        return self.single.output.parent / FOLDER

    def plan(self, overwrite: bool) -> Item:
        """What :meth:`run` would do.

        Raises:
            UserError: other settings' scores are there.
        """
        detail = f"fused in {len(self.fields)} fields"
        return plan_output(self.output.parent.name, self.output, self._inputs(), overwrite, detail)

    def run(self, overwrite: bool) -> dict[str, Any]:
        """The scores, kept in the folder with sample pictures."""
        folder = prepare_output(self.output, self._inputs(), overwrite)
        if folder is None:
            logger.info("%s is finished; nothing to do", self.output)
            return read_json(self.output / "results.json", kind=dict)
        module = load_checkpoint(self.single.checkpoint, self.single.device, self.single.color)
        tested = [_TestedScene(self.single.views_of(scene), module) for scene in self.fields]
        samples = samples_of_scenes(self.single.samples, [len(scene) for scene in tested])
        pictures, by_scene, temperature = _Pictures(folder / "samples"), {}, TemperatureFit()
        for (name, path), scene, count in zip(progress(self.fields.items(), "fusing"), tested, samples, strict=True):
            field = RadianceField.load(path, self.single.device)
            by_scene[name] = scene.fuse(
                field, module, self.single.batch_size, count, pictures, temperature, self.options
            )
        scores = summarize_confusion(sum(by_scene.values()))
        results = {**scores, "calibration": temperature.fit(),
                   "by_scene": {scene: pixel_counts(confusion) for scene, confusion in by_scene.items()}}
        write_json(folder / "results.json", results)
        log_scores(folder / "tensorboard", results, "test_fused")
        commit_output(self.output)
        logger.info("%s: mIoU %.4f of predictions fused in %d fields", self.output, scores["mean_iou"] or 0.0,
                    len(self.fields))  # fmt: skip
        return results

    def _inputs(self) -> dict[str, Any]:
        fields = {scene: field_inputs(folder) for scene, folder in self.fields.items()}
        return {**self.single.inputs(), **fusion_inputs(self.single.device, self.options), "fields": fields}


class _TestedScene:
    """A scene's tested views, of all its stores."""

    def __init__(self, views: Sequence[StoreViews], module: SegmentationModule):
        """Open the stores.

        Args:
            views: which views.
            module: whose colour sample pictures show.
        """
        self._color = ViewOptions(**module.hparams["views"]).color
        dataset = ViewDataset(views, color=self._color)
        self._stores, of_view = dataset.stores, dataset.store_of_view
        self._indices = [dataset.index_in_store[of_view == k].tolist() for k in range(len(self._stores))]

    def __len__(self) -> int:
        return sum(map(len, self._indices))

    def fuse(
        self, field: RadianceField, module: SegmentationModule, batch_size: int, samples: int, pictures: _Pictures,
        temperature: TemperatureFit, options: FusionOptions,
    ) -> Tensor:  # fmt: skip
        """Confusion matrix int64 [C, C] of the fused classes; so many samples are added to the pictures."""
        cameras = [store.cameras.select(indices) for store, indices in zip(self._stores, self._indices, strict=True)]
        predictions = [
            temperature.watch(CheckpointPredictions(module, store, batch_size, chosen), partial(_label, store, chosen))
            for store, chosen in zip(self._stores, self._indices, strict=True)
        ]
        semantic = fuse_predictions(field, list(zip(cameras, predictions, strict=True)), options).as_stored()
        shown = set(sampled_views(len(self), batch_size, samples))
        total, first = torch.zeros(label_set().num_classes, label_set().num_classes, dtype=torch.int64), 0
        for store, indices, of_store in zip(self._stores, self._indices, cameras, strict=True):
            for views, labels, _ in render_labels(field, semantic, of_store):
                truth = torch.stack([_label(store, indices, view) for view in views])
                total += confusion_matrix(labels.cpu(), truth)
                for view in (view for view in views if first + view in shown):
                    at = view - views.start
                    pictures.add(store.read(self._color, indices[view]), truth[at], labels[at])
            first += len(indices)
        return total


def _label(store: ViewStore, indices: Sequence[int], view: int) -> Tensor:
    """Of one of the chosen views, by its number among these."""
    return store.read("label", indices[view])


class _Pictures:
    """Sample pictures in a folder: 000.png, 001.png, ..."""

    def __init__(self, folder: Path):
        folder.mkdir(exist_ok=True)
        self._folder, self._written = folder, 0

    def add(self, color: Tensor, truth: Tensor, label: Tensor) -> None:
        """Image ``[3, H, W]``, ground truth and classes ``[H, W]`` side by side."""
        (picture,) = triplets(ViewBatch(color[None], None, truth[None]), label[None])
        write_image(self._folder / f"{self._written:03d}.png", picture)
        self._written += 1

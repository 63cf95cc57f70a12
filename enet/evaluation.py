"""Evaluation of a trained network over a set of views, with pictures of its predictions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataloader import StoreViews
from enet.callbacks import triplets
from enet.checkpoints import check_size, load_checkpoint
from enet.confusion_picture import confusion_picture
from enet.metrics import ScanNetIoU, pixel_counts, summarize_confusion
from enet.module import SegmentationModule
from enet.options import ViewOptions
from enet.splits import hold_out_views, room_of, stores_of
from enet.stored_views import StoredViews
from enet.view_source import ViewSource
from utils.errors import UserError, check_choice
from utils.files import read_json, write_json
from utils.identity import file_identity
from utils.images import write_image
from utils.labels import UNANNOTATED
from utils.outputs import commit_output, prepare_output
from utils.plans import Item, plan_output

logger = logging.getLogger(__name__)


def evaluate(
    module: SegmentationModule,
    source: ViewSource,
    batch_size: int,
    samples: int = 0,
    samples_dir: Path | None = None,
) -> dict[str, Any]:
    """Scores over a source's views as :func:`enet.metrics.summarize_confusion` gives them, on the module's device.

    Args:
        samples: sample triplets (image, ground truth, prediction) to write to ``samples_dir``, from all batches.
        samples_dir: receives 000.png, 001.png, ...

    Raises:
        UserError: no pixel of any view is annotated.
    """
    return summarize_confusion(_annotated(confusion_of(module, source, batch_size, samples, samples_dir), source))


@torch.inference_mode()
def confusion_of(
    module: SegmentationModule,
    source: ViewSource,
    batch_size: int,
    samples: int = 0,
    samples_dir: Path | None = None,
    first_sample: int = 0,
) -> Tensor:
    """Confusion matrix int64 [C, C] over a source's views; arguments as in :func:`evaluate`."""
    module.eval()
    iou = ScanNetIoU().to(module.device)
    steps = source.ordered_steps(batch_size)
    shown = set(sampled_views(len(source), batch_size, samples))
    written = 0
    for step, batch in zip(steps, source.batches(steps, module.device), strict=True):
        views = batch.resolve()
        prediction = module.classify(views)
        iou.update(prediction, views.label)
        count = len(shown.intersection(step.views.tolist()))
        if count > 0:
            for picture in triplets(views.first(count), prediction[:count]):
                write_image(samples_dir / f"{first_sample + written:03d}.png", picture)
                written += 1
    return iou.confusion.cpu()


def sampled_views(views: int, batch_size: int, samples: int) -> list[int]:
    """Numbers of the views that sample pictures show, ascending: as many of the first of each batch."""
    starts = range(0, views, batch_size)
    per_batch = -(-samples // max(len(starts), 1))
    return [view for start in starts for view in range(start, min(start + min(per_batch, batch_size), views))][:samples]


def samples_of_scenes(samples: int, views: Sequence[int]) -> list[int]:
    """How many sample pictures each scene gets, of which there are so many views."""
    counts: list[int] = []
    for number, available in enumerate(views):
        counts.append(min(-(-(samples - sum(counts)) // (len(views) - number)), available))
    return counts


def _annotated(confusion: Tensor, source: ViewSource) -> Tensor:
    """The same, unless no pixel counts."""
    if not confusion[UNANNOTATED + 1 :].any():
        raise UserError(f"no pixel of the {len(source)} views (such as {source.describe(0)}) is annotated, so that "
                        "nothing can be evaluated; run 'annotate' with the right meshes")
    return confusion


@dataclass(frozen=True)
class CheckpointTest:
    """A checkpoint, and the views to evaluate it on; see the test task.

    Attributes:
        checkpoint: of a training run.
        views: of each scene's stores.
        scenes: their names.
        output: folder of the scores.
        batch_size: views of a batch.
        samples: how many pictures to keep.
        device: to compute on.
        color: that another project's network was trained on; see :func:`enet.checkpoints.load_checkpoint`.
        other_size: whether the views may have another size than those that it was trained on.
    """

    checkpoint: Path
    views: Sequence[StoreViews]
    scenes: Sequence[str]
    output: Path
    batch_size: int
    samples: int
    device: torch.device
    color: str | None = None
    other_size: bool = False

    def plan(self, overwrite: bool) -> Item:
        """What :meth:`run` would do; reads the checkpoint and opens the stores.

        Raises:
            UserError: either cannot be used, or other settings' scores are there.
        """
        module = load_checkpoint(self.checkpoint, color=self.color)
        source = self._source(module)
        check_size(module, self.checkpoint, source.size, self.other_size, "test.other_size")
        height, width = source.size
        detail = f"{len(source)} views of {width}x{height} of {len(self.scenes)} scenes"
        return plan_output(self.output.parent.name, self.output, self._inputs(source), overwrite, detail)

    def inputs(self) -> dict[str, Any]:
        """What determines the scores, as settings of an output."""
        return self._inputs(self._source(load_checkpoint(self.checkpoint, color=self.color)))

    def run(self, overwrite: bool) -> dict[str, Any]:
        """The scores, kept in the folder with sample pictures."""
        module = load_checkpoint(self.checkpoint, self.device, self.color)
        source = self._source(module)
        partial = prepare_output(self.output, self._inputs(source), overwrite)
        if partial is None:
            logger.info("%s is finished; nothing to do", self.output)
            return read_json(self.output / "results.json", kind=dict)
        trained_on = {room_of(scene) for scene in module.hparams["scenes"]}
        seen = sorted(trained_on & {room_of(name) for name in self.scenes})
        if seen:
            logger.warning("%d of the rooms were trained or validated on: %s", len(seen), ", ".join(seen))
        (partial / "samples").mkdir(exist_ok=True)
        by_scene = self._confusions(module, partial / "samples")
        scores = summarize_confusion(_annotated(sum(by_scene.values()), source))
        results = {**scores, "views": len(source), "scenes": list(self.scenes), "rooms_seen_in_training": seen,
                   "by_scene": {scene: pixel_counts(confusion) for scene, confusion in by_scene.items()}}
        write_json(partial / "results.json", results)
        log_scores(partial / "tensorboard", results)
        commit_output(self.output)
        logger.info("%s: mIoU %.4f on %d views", self.output, scores["mean_iou"] or 0.0, len(source))
        return results

    def _inputs(self, source: ViewSource) -> dict[str, Any]:
        return {
            "checkpoint": file_identity(self.checkpoint), "stores": source.identity(), "samples": self.samples
        }  # fmt: skip

    def _confusions(self, module: SegmentationModule, samples_dir: Path) -> dict[str, Tensor]:
        """Of each scene; sample pictures are spread over the scenes."""
        found, written = {}, 0
        sources = {scene: self._source(module, self.views_of(scene)) for scene in self.scenes}
        counts = samples_of_scenes(self.samples, [len(source) for source in sources.values()])
        for (scene, source), samples in zip(sources.items(), counts, strict=True):
            found[scene] = confusion_of(module, source, self.batch_size, samples, samples_dir, written)
            written += samples
        return found

    def views_of(self, scene: str) -> list[StoreViews]:
        """One scene's views, of all stores."""
        return [views for views in self.views if views.path.name == scene]

    def _source(self, module: SegmentationModule, views: Sequence[StoreViews] | None = None) -> ViewSource:
        options = replace(ViewOptions(**module.hparams["views"]), cache=False, workers=0)  # each view is needed once
        beside = module.network.beside
        chosen = self.views if views is None else views
        return StoredViews(chosen, options, beside.uses_sh, geometry=beside.geometry)


def log_scores(folder: Path, results: dict[str, Any], kind: str = "test") -> None:
    """Scores and confusion matrix for TensorBoard, under names that begin with ``kind``."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:
        for name in ("mean_iou", "mean_accuracy", "pixel_accuracy"):
            if results[name] is not None:
                writer.add_scalar(f"{kind}/{name}", results[name])
        for name, iou in results["class_iou"].items():
            if iou is not None:
                writer.add_scalar(f"{kind}_iou/{name}", iou)
        writer.add_image(f"{kind}/confusion", confusion_picture(torch.tensor(results["confusion"])))


def views_to_test(
    folders: Sequence[str | Path], scenes: Sequence[str], frames: str
) -> list[StoreViews]:
    """The views of a test.

    Args:
        folders: of view stores; the first holds every scene.
        scenes: their names.
        frames: "all", or "held_out": those of the first folder that were held out of the scenes' fields.

    Raises:
        UserError: stores are missing, ``frames`` is neither, or nothing is held out.
    """
    check_choice("test.frames", frames, ("all", "held_out"))
    chosen = stores_of(scenes, folders)
    return chosen if frames == "all" else hold_out_views(chosen[: len(scenes)], len(scenes))[1]

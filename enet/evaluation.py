"""Scores of a trained network over a set of views, and pictures of what it predicts."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from enet.augmentation import ViewBatch
from enet.callbacks import first_views, triplets
from enet.metrics import ScanNetIoU, summarize
from enet.module import SegmentationModule
from enet.options import ViewOptions
from enet.splits import hold_out_views, room_of, stores_of
from enet.view_data import view_data
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.images import write_image
from utils.outputs import commit_output, prepare_output
from utils.scenes import resolve_scenes

logger = logging.getLogger(__name__)


def load_module(checkpoint: str | Path, device: torch.device) -> SegmentationModule:
    """A trained module from its checkpoint, in evaluation mode; nothing in the file is run.

    Raises:
        UserError: absent, damaged, or not a checkpoint of this project.
    """
    try:
        module = SegmentationModule.load_from_checkpoint(checkpoint, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{checkpoint} does not exist; run the train task first") from None
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, ModuleNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{checkpoint} is not a checkpoint of the train task ({reason}); train again") from None
    except pickle.UnpicklingError:
        raise UserError(f"{checkpoint} is damaged or holds code, which is never run; train again") from None
    return module.to(device).eval()


@torch.inference_mode()
def evaluate(
    module: SegmentationModule, batches: Iterable[ViewBatch], samples: int = 0, samples_dir: Path | None = None
) -> dict[str, Any]:
    """Scores over ``batches`` as :func:`enet.metrics.summarize` gives them.

    Args:
        samples: how many sample triplets (image, truth, prediction) to write to ``samples_dir``; batches share them.
        samples_dir: receives 000.png, 001.png, ...
    """
    module.eval()
    iou = ScanNetIoU().to(module.device)
    batches = list(batches) if not hasattr(batches, "__len__") else batches
    per_batch = -(-samples // max(len(batches), 1))
    written = 0
    for batch in batches:
        prediction = module.predict(batch)
        iou.update(prediction, batch.label)
        count = min(per_batch, samples - written)
        if count > 0:
            pictures = triplets(first_views(batch, count), prediction[:count])
            for picture in pictures:
                write_image(samples_dir / f"{written:03d}.png", picture)
                written += 1
    return summarize(iou.confusion)


def test_checkpoint(
    checkpoint: Path,
    folders: Sequence[str | Path],
    output: Path,
    scenes: str | Sequence[str],
    batch_size: int,
    every: int,
    samples: int,
    device: torch.device,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Scores of a checkpoint on some scenes, kept in ``output`` with sample pictures; see the test task."""
    names = resolve_scenes(scenes, folders[0])
    chosen = stores_of(names, folders)
    if every:
        chosen = hold_out_views(chosen[: len(names)], len(names), every)[1]
    settings = {
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "stores": [entry.identity() for entry in chosen],
        "samples": samples,
    }
    partial = prepare_output(output, settings, overwrite)
    if partial is None:
        logger.info("%s is finished; nothing to do", output)
        return read_json(output / "results.json")
    module = load_module(checkpoint, device)
    seen = {room_of(scene) for scene in module.hparams["scenes"]} & {room_of(name) for name in names}
    if seen:
        logger.warning("%d of the rooms were trained or validated on: %s", len(seen), ", ".join(sorted(seen)))
    data = view_data(
        ViewOptions(**module.hparams["views"]), module.network.uses_sh, test_stores=chosen, batch_size=batch_size,
        cache=False,
    )  # fmt: skip
    (partial / "samples").mkdir(exist_ok=True)
    scores = evaluate(module, data.in_order("test", device), samples, partial / "samples")
    results = {**scores, "views": len(data.dataset("test")), "scenes": names, "rooms_seen_in_training": sorted(seen)}
    write_json(partial / "results.json", results)
    commit_output(output)
    logger.info("%s: mIoU %.4f on %d views", output, scores["mean_iou"] or 0.0, results["views"])
    return results

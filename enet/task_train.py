"""Task ``train``: a segmentation network from stored views, or from views rendered live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gin

from dataloader.lens_options import LensOptions
from dataloader.sensors import SensorOptions
from enet.jitter import JitteredPoses
from enet.live_options import data
from enet.mixing import MixOptions
from enet.options import (
    AugmentationOptions,
    LossOptions,
    NetworkOptions,
    OptimizerOptions,
    SelfTrainingOptions,
    SplitOptions,
    ViewOptions,
)
from lib.plenoxel.options import RenderOptions
from utils.device import choose_device
from utils.labels import label_set
from utils.plans import Plan
from utils.tasks import task


@task(
    summary="train the segmentation network on stored views, or on views rendered live",
    inputs=("views",),
    records="{runs_dir}/{name}",
    configures=(
        data, SplitOptions, SelfTrainingOptions, NetworkOptions, ViewOptions, AugmentationOptions, LossOptions,
        OptimizerOptions, MixOptions, SensorOptions, LensOptions, label_set, RenderOptions, JitteredPoses,
    ),  # fmt: skip
)
def train(
    runs_dir: str = gin.REQUIRED,
    name: str = gin.REQUIRED,
    views: Sequence[str] = (),
    colors: Sequence[str] | None = None,
    epochs: int = 1000,
    batch_size: int = 160,
    epoch_views: int | None = None,
    val_interval: int = 1,
    patience: int = 0,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    precision: str = "32",
    start: str = "",
    overwrite: bool = False,
) -> Plan:
    """Train into ``runs_dir/name/training`` and evaluate the best checkpoint on the validation views.

    On one GPU a step is recorded once and replayed as a single CUDA graph (not with precision "16").

    Args:
        views: folders of view stores that are trained on together. The first holds every scene, also those of the
            validation; the others, such as novel views, add what they have. None are needed with data.source =
            "live".
        runs_dir: folder of all runs.
        name: of this run, and of its folder.
        colors: the colour of each folder's views, "rgb" or "photo"; None: ViewOptions.color, which tests and other
            tasks use, in all. A folder may come twice, once with photographs and once with renders of the same poses,
            so that not only novel views are renders.
        epochs: most epochs.
        batch_size: views of a batch, over all devices.
        epoch_views: views drawn in an epoch; by default as many as the first folder has for training, so that runs
            with and without novel views take the same number of steps; live, as many as there are recorded poses.
        val_interval: epochs between validations.
        patience: stop after so many epochs without a better validation mIoU; 0 never stops.
        seed: of weights, order, augmentation and dropout.
        device: "auto", "cpu" or "cuda".
        devices: GPUs, or processes on a CPU, that share each batch.
        precision: "32", "bf16" or "16" (mixed), or "64" for checking arithmetic.
        start: a checkpoint that any training wrote, whose weights this one begins with; of the stem, those that fit. ""
            begins with random ones.
        overwrite: train again although a finished run with other settings is there.
    """
    from enet.first_weights import FirstWeights
    from enet.sources import choose_sources
    from enet.training import Budget, TrainingOptions, plan_training, train_once

    options = TrainingOptions(
        NetworkOptions(), ViewOptions(), AugmentationOptions(), LossOptions(), OptimizerOptions(), MixOptions(),
        FirstWeights(Path(start)) if start else None,
    )  # fmt: skip
    chosen = choose_device(device)
    sources = choose_sources(views, colors, data(), options, seed, chosen)
    budget = Budget(
        epochs=epochs, batch_size=batch_size, epoch_views=epoch_views or sources.epoch_views,
        val_interval=val_interval, patience=patience, seed=seed, precision=precision, devices=devices,
    )  # fmt: skip
    both = sources.training, sources.validation
    folder = Path(runs_dir) / name / "training"

    def work() -> dict[str, Any]:
        results = train_once(folder, *both, options, budget, chosen, overwrite, sources.remarks)
        used = {"stem": options.network.stem, "inputs": options.network.beside.names, "color": options.views.color}
        return {"name": name, **results, **used, "budget": asdict(budget)}

    return Plan(work, [plan_training(folder, *both, options, budget, overwrite)], sources.notes)

"""One training run: its folder, its data, Lightning's trainer, and its results."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gin
import torch
import torch.multiprocessing

from enet.backbones import build_network, start_network
from enet.callbacks import EpochProgress, LeaveGroup, QuietLightning, TrainingClock, ValidationPictures
from enet.checkpoint_io import CheckpointIO, Restored, restoring
from enet.checkpoints import load_checkpoint
from enet.data_module import SegmentationDataModule
from enet.evaluation import evaluate
from enet.first_weights import FirstWeights
from enet.lightning import EarlyStopping, ModelCheckpoint, TensorBoardLogger, pl
from enet.losses import ExpectedPixelWeights
from enet.mixing import MixOptions
from enet.module import SegmentationModule
from enet.options import AugmentationOptions, LossOptions, NetworkOptions, OptimizerOptions, ViewOptions
from enet.resources import Resources
from enet.statistics import TrainingStatistics, compute_statistics
from enet.synchronized_norm import synchronize_norms
from enet.view_source import ViewSource
from utils.checkpoints import open_checkpoint
from utils.cores import environment_of_each
from utils.errors import UserError, check_choice
from utils.files import read_json, write_json
from utils.labels import UNANNOTATED, label_set
from utils.outputs import commit_output, prepare_output
from utils.plans import Item, plan_output

logger = logging.getLogger(__name__)

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "64": "64-true"}
BEST, LAST, RESULTS, SECONDS = "best.ckpt", "last.ckpt", "results.json", "seconds.json"
_SAMPLES = 12


@dataclass(frozen=True)
class Budget:
    """The budget of a run; fields as in the train task.

    Raises:
        UserError: a value is out of range.
    """

    epochs: int
    batch_size: int
    epoch_views: int
    val_interval: int = 1
    patience: int = 0
    seed: int = 0
    precision: str = "32"
    devices: int = 1

    def __post_init__(self) -> None:
        for option in ("batch_size", "epochs", "val_interval", "devices"):
            if getattr(self, option) < 1:
                raise UserError(f"train.{option} = {getattr(self, option)}: expected at least 1")
        if self.batch_size % self.devices:
            raise UserError(
                f"train.batch_size = {self.batch_size} cannot be split over train.devices = {self.devices}"
            )
        check_choice("train.precision", self.precision, tuple(PRECISIONS))

    @property
    def batch_of_each(self) -> int:
        """Views of a batch of each process."""
        return self.batch_size // self.devices


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained, and how; the option groups of the train task."""

    network: NetworkOptions
    views: ViewOptions
    augmentation: AugmentationOptions
    loss: LossOptions
    optimizer: OptimizerOptions
    mix: MixOptions = field(default_factory=MixOptions)
    start: FirstWeights | None = None


def training_inputs(
    training: ViewSource, validation: ViewSource, options: TrainingOptions, budget: Budget
) -> dict[str, Any]:
    """What determines a run: options, budget, and the views.

    Raises:
        ValueError: the network or the loss needs what a source does not have.
    """
    if options.network.uses_sh and not (training.has_sh and validation.has_sh):
        raise ValueError(f"stem {options.network.stem!r} takes SH images, which a source of views does not have")
    taken = options.network.beside.geometry
    for source in (training, validation):
        if source.geometry != taken:
            raise ValueError(f"the network takes {taken} of the field's geometry, a source of views has "
                             f"{source.geometry}")
    if options.loss.uses_quality and not training.has_weight:
        raise ValueError("LossOptions asks for render quality, but the training views have no weights")
    return {
        **{name: asdict(values) for name, values in vars(options).items() if name != "start"},
        **({} if options.start is None else {"start": options.start.identity()}),
        "budget": asdict(budget),
        "training": training.identity(),
        "validation": validation.identity(),
    }


def plan_training(
    folder: Path,
    training: ViewSource,
    validation: ViewSource,
    options: TrainingOptions,
    budget: Budget,
    overwrite: bool = False,
) -> Item:
    """What :func:`train_once` would do; makes the network once.

    Raises:
        UserError: the network cannot be made or its first weights are absent, or the run is there with other settings.
    """
    with torch.random.fork_rng(devices=[]):
        start_network(build_network(options.network), options.network)
    if options.start is not None:
        options.start.check(options.network)
    height, width = training.size
    detail = f"{budget.epochs} epochs on {len(training)} views of {width}x{height}, {len(validation)} to validate on"
    inputs = training_inputs(training, validation, options, budget)
    return plan_output(folder.parent.name, folder, inputs, overwrite, detail)


def train_once(
    folder: Path,
    training: ViewSource,
    validation: ViewSource,
    options: TrainingOptions,
    budget: Budget,
    device: torch.device,
    overwrite: bool = False,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train into ``folder`` unless it holds the finished run of equal settings; returns the run's results.

    The folder holds best.ckpt (by validation mIoU), last.ckpt, results.json with ``facts``, seconds.json (until the end
    of each epoch), tensorboard/ and samples/.
    """
    partial = prepare_output(folder, training_inputs(training, validation, options, budget), overwrite)
    if partial is None:
        logger.info("%s is finished; nothing to do", folder)
        return read_json(folder / RESULTS, kind=dict)
    module = _build_module(options, budget, training, validation, device)
    data = SegmentationDataModule(training, validation, budget.batch_of_each, budget.epoch_views, budget.seed)
    seconds, epochs = _fit(partial, module, data, options, budget, device)
    results = {
        **_measure(partial, validation, device, budget),
        **(facts or {}),
        "training_views": len(training),
        "validation_views": len(validation),
        "epochs": epochs,
        "seconds": seconds,
        "images_per_second": round(epochs * budget.epoch_views / seconds, 1),
    }
    write_json(partial / RESULTS, results)
    commit_output(folder)
    logger.info(
        "%s: validation mIoU %.4f after epoch %d of %d, %.0f images/s",
        folder,
        results["validation"]["mean_iou"] or 0.0,
        results["best_epoch"] + 1,
        results["epochs"],
        results["images_per_second"],
    )
    return results


def _build_module(
    options: TrainingOptions, budget: Budget, training: ViewSource, validation: ViewSource, device: torch.device
) -> SegmentationModule:
    module = SegmentationModule(
        network=asdict(options.network),
        loss=asdict(options.loss),
        optimizer=asdict(options.optimizer),
        views=asdict(options.views),
        scenes=sorted({*training.scenes, *validation.scenes, *(options.start.scenes if options.start else ())}),
        size=list(training.size),
        labels=list(label_set().names),
        seed=budget.seed,
    )
    start_network(module.network, options.network)
    statistics = compute_statistics(
        training, budget.batch_of_each, device, training.expected_draws(budget.epochs),
        ExpectedPixelWeights.of(options.loss, budget.epochs) if options.loss.uses_quality else None,
    )  # fmt: skip
    _check_statistics(statistics, training)
    module.set_statistics(statistics)
    if options.start is not None:
        options.start.load_into(module)
    training.prepare()
    if budget.devices > 1:
        training.release()  # each process has its own views on its device
        synchronize_norms(module.network)
    module.records_steps = device.type == "cuda" and budget.devices == 1 and budget.precision != "16"  # no scaled loss
    return module.to(memory_format=torch.channels_last)


def _check_statistics(statistics: TrainingStatistics, training: ViewSource) -> None:
    """Raise :class:`UserError` when nothing is annotated, or something is no number."""
    if not statistics.class_pixels[UNANNOTATED + 1 :].any():
        raise UserError(f"no pixel of the {len(training)} training views (such as {training.describe(0)}) is "
                        "annotated; run 'annotate' with the right meshes")
    for name, values in vars(statistics).items():
        if values is not None and not torch.isfinite(values).all():
            raise UserError(f"{name} of the training views holds NaN or infinite values; find the store by 'verify'")


def _fit(
    partial: Path,
    module: SegmentationModule,
    data: SegmentationDataModule,
    options: TrainingOptions,
    budget: Budget,
    device: torch.device,
) -> tuple[float, int]:
    """Train, from the last checkpoint where there is one; returns seconds and epochs over all calls."""
    board = TensorBoardLogger(partial, name="", version="tensorboard", default_hp_metric=False)
    board.experiment.add_text("config", f"```\n{gin.config_str()}\n```")
    clock = TrainingClock(partial / SECONDS)
    trainer = build_trainer(partial, budget, device, board, clock)
    last = partial / LAST
    if budget.devices > 1:  # each in a process that is started with this environment
        os.environ.update(environment_of_each(budget.devices))
    with warnings.catch_warnings(), restoring(trainer, last), _mistakes_of_processes():
        trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    board.log_hyperparams(
        {f"{group}.{name}": value for group, values in {**vars(options), "budget": budget}.items() if values is not None
         for name, value in asdict(values).items()},
        {"hparam/best_val_mean_iou": float(trainer.checkpoint_callback.best_model_score or 0.0)},
    )  # fmt: skip
    board.finalize("success")
    return clock.total(), trainer.current_epoch


@contextlib.contextmanager
def _mistakes_of_processes() -> Iterator[None]:
    """A :class:`UserError` of a process that shares the training is one here too, not a traceback as text."""
    try:
        yield
    except torch.multiprocessing.ProcessRaisedException as error:
        marker = f"{UserError.__module__}.{UserError.__qualname__}: "
        last = str(error).strip().rpartition("\n")[2]  # a UserError's text is one line
        if last.startswith(marker):
            raise UserError(last.removeprefix(marker)) from None
        raise


def build_trainer(
    folder: Path, budget: Budget, device: torch.device, board: TensorBoardLogger, clock: TrainingClock
) -> pl.Trainer:
    """A trainer that keeps best.ckpt and last.ckpt in ``folder``, without progress bars."""
    callbacks: list[pl.Callback] = [
        QuietLightning(),
        LeaveGroup(),
        Restored(),
        ModelCheckpoint(
            folder, BEST.removesuffix(".ckpt"), monitor="val/mean_iou", mode="max", enable_version_counter=False
        ),
        ModelCheckpoint(
            folder, LAST.removesuffix(".ckpt"), save_on_train_epoch_end=True, enable_version_counter=False
        ),
        clock,
        EpochProgress(),
        Resources(budget.epoch_views),
        ValidationPictures(),
    ]
    if budget.patience:
        checks = -(-budget.patience // budget.val_interval)
        callbacks.append(EarlyStopping("val/mean_iou", patience=checks, mode="max", check_on_train_epoch_end=False))
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" and budget.devices == 1 else budget.devices,
        strategy="ddp_spawn" if budget.devices > 1 else "auto",
        precision=PRECISIONS[budget.precision],
        max_epochs=budget.epochs,
        check_val_every_n_epoch=min(budget.val_interval, budget.epochs),
        num_sanity_val_steps=0,
        logger=board,
        log_every_n_steps=1,
        callbacks=callbacks,
        plugins=[CheckpointIO()],
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        benchmark=device.type == "cuda",
    )


def _measure(partial: Path, validation: ViewSource, device: torch.device, budget: Budget) -> dict[str, Any]:
    """Scores of the best checkpoint on the validation views, with sample pictures, and what it is."""
    module = load_checkpoint(partial / BEST, device)
    samples = partial / "samples"
    samples.mkdir(exist_ok=True)
    scores = evaluate(module, validation, budget.batch_of_each, _SAMPLES, samples)
    checkpoint = open_checkpoint(partial / BEST, "the best network of this training", "train again")
    return {
        "validation": scores,
        "parameters": sum(parameter.numel() for parameter in module.network.parameters()),
        "best_epoch": checkpoint["epoch"],
    }

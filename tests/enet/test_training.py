"""Whole training runs on tiny stores: budget, exactness, resuming, skipping, and what is refused."""

import itertools
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import gin
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from enet import callbacks, load_checkpoint
from enet.callbacks import TrainingClock
from enet.module import SegmentationModule
from enet.options import OptimizerOptions, ViewOptions
from enet.step_graph import gradient_norm
from enet.stored_views import StoredViews
from enet.task_test import test as run_test
from enet.task_train import train
from tests.enet.bindings import bind_split
from tests.enet.conftest import SIZE
from tests.events import read_events
from utils.errors import UserError
from utils.files import read_json
from utils.interrupts import Stopped, stopping_signals
from utils.labels import label_set
from utils.outputs import partial_path


def start(views: Path, runs: Path, name: str = "run", **changes) -> dict:
    bind_split()
    arguments = {"epochs": 2, "batch_size": 4, "device": "cpu", **changes}
    return train(views=[str(views)], runs_dir=str(runs), name=name, **arguments)


def weights(runs: Path, name: str = "run") -> dict[str, torch.Tensor]:
    checkpoint = torch.load(runs / name / "training" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"]


def test_train_then_test(views, tmp_path):
    results = start(views, tmp_path / "runs", epochs=3)
    assert results["training_views"] == 16 and results["validation_views"] == 8
    folder = tmp_path / "runs/run/training"
    assert (folder / "best.ckpt").exists()
    assert len(list((folder / "samples").glob("*.png"))) == 8
    scores = run_test(
        checkpoint=str(folder / "best.ckpt"), views=[str(views)], output_dir=str(tmp_path / "test"),
        scenes=["scene0002_00"], device="cpu", batch_size=3,
    )  # fmt: skip
    assert scores["mean_iou"] == results["validation"]["mean_iou"]
    assert scores["confusion"] == results["validation"]["confusion"]
    assert sum(map(sum, scores["confusion"])) == 8 * 24 * 27
    logged = read_events(tmp_path / "test/scores/tensorboard")
    assert logged.scalars["test/mean_iou"] == [pytest.approx(scores["mean_iou"])]
    assert logged.scalars["test/mean_accuracy"] == [pytest.approx(scores["mean_accuracy"])]
    assert "test/confusion" in logged.images


def test_a_network_says_its_size_and_refuses_views_of_another(views, make_store, tmp_path):
    start(views, tmp_path / "runs")
    checkpoint = tmp_path / "runs/run/training/best.ckpt"
    module = load_checkpoint(checkpoint)
    assert tuple(module.hparams["size"]) == SIZE and tuple(module.hparams["labels"]) == label_set().names
    other = make_store("scene0009_00", folder="others", size=(30, 40)).parent
    options = {"checkpoint": str(checkpoint), "views": [str(other)], "device": "cpu"}
    with pytest.raises(UserError, match="best.ckpt was trained on images of 27x24 pixels, these have 40x30; choose"):
        run_test(output_dir=str(tmp_path / "refused"), **options)
    assert not (tmp_path / "refused").exists()
    assert run_test(output_dir=str(tmp_path / "out"), other_size=True, **options)["views"] == 4


def test_tensorboard_has_scalars_pictures_config_and_hyper_parameters(views, tmp_path):
    results = start(views, tmp_path, epochs=3)
    logged = read_events(tmp_path / "run/training/tensorboard")
    assert {"train/loss", "train/mean_iou", "train/gradient_norm", "learning_rate", "val/loss", "val/mean_iou",
            "val/mean_accuracy", "val/pixel_accuracy", "speed/images_per_second"} <= set(logged.scalars)
    assert all(len(logged.scalars[name]) == 3 for name in ("val/loss", "speed/images_per_second"))
    assert all(value > 0 for name in ("val/loss", "train/gradient_norm") for value in logged.scalars[name])
    scores = logged.scalars["val/mean_iou"]
    assert len(scores) == 3 and scores[results["best_epoch"]] == max(scores)
    assert max(scores) == pytest.approx(results["validation"]["mean_iou"], abs=1e-6)
    assert set(logged.images) == {"val/samples", "val/confusion"}
    assert logged.images["val/samples"] == (4 * 24, 3 * 27), "four views below each other: image, truth, prediction"
    assert "config" in logged.texts
    assert logged.hparams["network.stem"] == results["stem"] and logged.hparams["budget.epochs"] == 3
    assert "optimizer.learning_rate" in logged.hparams and "hparam/best_val_mean_iou" in logged.metrics


def test_the_validations_loss_is_the_weighted_cross_entropy_of_its_views(views, tmp_path):
    start(views, tmp_path, epochs=1, batch_size=3)
    logged = read_events(tmp_path / "run/training/tensorboard").scalars
    module = load_checkpoint(tmp_path / "run/training/last.ckpt")
    source = StoredViews([views / "scene0002_00"], ViewOptions(cache=False, workers=0), False)
    (batch,) = (each.resolve() for each in source.batches(source.ordered_steps(8), torch.device("cpu")))
    with torch.no_grad():
        expected = F.cross_entropy(module(batch.color), batch.label.long(), module.class_weights)
    assert logged["val/loss"] == [pytest.approx(float(expected), rel=1e-4)]


def test_the_gradients_norm_is_that_of_all_parameters():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    (network(torch.ones(4, 3)) ** 2).mean().backward()
    flat = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    torch.testing.assert_close(gradient_norm(network), flat.norm())


@pytest.mark.filterwarnings("always")
def test_lightning_has_nothing_to_say(views, tmp_path, recwarn):
    start(views, tmp_path, epochs=1)
    assert not [str(warning.message) for warning in recwarn if "lightning" in warning.filename]


def test_one_seed_gives_the_same_bits(views, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for runs in (first, second):
        start(views, runs, epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(weights(first).values(), weights(second).values(), strict=True))
    other = tmp_path / "other"
    start(views, other, epochs=2, seed=1)
    assert not torch.equal(weights(first)["network.classifier.weight"], weights(other)["network.classifier.weight"])


class Killed(Exception):
    pass


def test_killed_and_resumed_equals_uninterrupted(views, tmp_path, monkeypatch, resume):
    gin.bind_parameter("OptimizerOptions.decay_epochs", 2)  # so that the learning rate must be right too
    gin.bind_parameter("AugmentationOptions.mirror", 0.5)
    gin.bind_parameter("AugmentationOptions.smallest_crop", 0.7)
    gin.bind_parameter("AugmentationOptions.brightness", 0.2)
    clock = itertools.count()
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(clock)))  # each look takes a second
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(views, whole, epochs=5)
    steps = 0
    training_step = SegmentationModule.training_step

    def killed_step(self, batch, batch_idx):
        nonlocal steps
        steps += 1
        if steps == 4 * 3 + 3:  # in the middle of the fourth epoch
            raise Killed
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationModule, "training_step", killed_step)
    with pytest.raises(Killed):
        start(views, cut, epochs=5)
    steps = 10_000
    assert (partial_path(cut / "run/training") / "last.ckpt").exists()
    results = start(views, cut, epochs=5)
    assert steps == 10_000 + 4 * 2  # two epochs were left
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(cut).values(), strict=True))
    assert results["validation"] == read_json(whole / "run/training/results.json")["validation"]
    # One second an epoch, of both calls: what was done of the fourth epoch before its checkpoint is lost.
    assert (results["seconds"], results["images_per_second"]) == (5, 16)
    assert read_json(cut / "run/training/seconds.json") == [1, 2, 3, 4, 5]
    best = [torch.load(runs / "run/training/best.ckpt", weights_only=True) for runs in (whole, cut)]
    assert best[0]["epoch"] == best[1]["epoch"]


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_a_training_as_it_ends_every_run(views, tmp_path, monkeypatch, heard_signals, name, code):
    """Lightning has answers of its own to both, which ended with exit codes 0 and 1."""
    with stopping_signals(), pytest.raises(Stopped, match=name) as stopped:
        monkeypatch.setattr(
            SegmentationModule, "training_step", lambda *arguments: os.kill(os.getpid(), getattr(signal, name))
        )
        start(views, tmp_path)
    assert stopped.value.exit_code == code


def test_seconds_after_the_last_checkpoint_do_not_count(tmp_path, monkeypatch):
    """A call that was killed between an epoch's entry and its checkpoint does the epoch again."""
    clock = itertools.count()
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    (tmp_path / "seconds.json").write_text("[10, 20, 30]")
    watch, trainer = TrainingClock(tmp_path / "seconds.json"), SimpleNamespace(current_epoch=2, is_global_zero=True)
    watch.on_train_start(trainer, None)
    watch.on_train_epoch_end(trainer, None)
    assert read_json(tmp_path / "seconds.json") == [10, 20, 21] and watch.total() == 21


@pytest.mark.parametrize("content", ["[10]", '{"seconds": 3}', '["a", "b"]', "[1e999, 2]"])
def test_damaged_seconds_are_one_sentence(tmp_path, content):
    path = tmp_path / "seconds.json"
    path.write_text(content)
    with pytest.raises(UserError, match="seconds.json"):
        TrainingClock(path).on_train_start(SimpleNamespace(current_epoch=2, is_global_zero=True), None)


def test_views_are_not_both_trained_and_measured_on(views, tmp_path):
    gin.bind_parameter("SplitOptions.val_scenes", ["scene0000_00"])
    novel = tmp_path / "novel"
    novel.mkdir()
    (novel / "scene0001_00").symlink_to(views / "scene0000_00")
    with pytest.raises(UserError, match="scene0000_00 is a training store and a validation store"):
        train(views=[str(views), str(novel)], runs_dir=str(tmp_path), name="run", device="cpu")


def test_colors_and_shares_are_one_a_folder(views, tmp_path):
    arguments = {"runs_dir": str(tmp_path), "name": "run", "device": "cpu"}
    with pytest.raises(UserError, match="train.colors has 1 entries, train.views has 2 folders"):
        train(views=[str(views), str(views)], colors=["rgb"], **arguments)
    gin.bind_parameter("MixOptions.shares", (0.5, 0.5))
    with pytest.raises(UserError, match="MixOptions.shares has 2 entries, train.views has 1 folders"):
        train(views=[str(views)], **arguments)


@pytest.mark.parametrize(
    "rate, message",
    [(1e30, r"the loss is NaN or infinite in step 1 of epoch 0 \(view .* of .*/views/scene000\d_00, .*\); lower Opt"),
     (1e38, r"NaN or infinite")],
)  # fmt: skip
def test_a_training_that_diverges_stops_and_says_where(views, tmp_path, rate, message):
    """It trained to the end, and best.ckpt was full of NaN."""
    gin.bind_parameter("OptimizerOptions.learning_rate", rate)
    with pytest.raises(UserError, match=message):
        start(views, tmp_path, epochs=3)
    assert not (tmp_path / "run/training").exists()
    for left in partial_path(tmp_path / "run/training").glob("*.ckpt"):
        weights = torch.load(left, weights_only=True)["state_dict"].values()
        assert all(torch.isfinite(values).all() for values in weights)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0])
def test_a_learning_rate_that_is_none_is_refused(rate):
    with pytest.raises(UserError, match="OptimizerOptions.learning_rate = "):
        OptimizerOptions(learning_rate=rate)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_stored_coefficients_that_are_no_numbers_are_named(make_store, views, tmp_path, bad):
    store = make_store("scene0001_00", count=8, seed=1, sh_dtype="float16", folder="half")
    for scene in ("scene0000_00", "scene0002_00"):
        make_store(scene, count=8, sh_dtype="float16", folder="half")
    sh = np.load(store / "sh.npy", mmap_mode="r+")
    sh[5, 3, 2, 1] = bad
    sh.flush()
    gin.bind_parameter("NetworkOptions.stem", "conv_sum")
    with pytest.raises(UserError, match="half/scene0001_00/sh.npy: view 5 holds NaN or infinity"):
        start(store.parent, tmp_path)


def test_views_without_any_annotation_are_no_data(make_store, views, tmp_path):
    nothing = torch.zeros(8, *SIZE, dtype=torch.uint8)
    for scene in ("scene0000_00", "scene0001_00", "scene0002_00"):
        make_store(scene, count=8, folder="blank", **({"label": nothing} if scene != "scene0002_00" else {}))
        make_store(scene, count=8, folder="measured", **({"label": nothing} if scene == "scene0002_00" else {}))
    with pytest.raises(UserError, match=r"no pixel of the 16 training views \(such as view .*/blank/scene000\d_00\)"):
        start(tmp_path / "blank", tmp_path / "a")
    with pytest.raises(UserError, match=r"no pixel of the 8 views \(such as view .*measured/scene0002_00\)"):
        start(tmp_path / "measured", tmp_path / "b")


def test_finished_run_is_not_repeated_and_other_settings_are_refused(views, tmp_path, monkeypatch):
    results = start(views, tmp_path)
    monkeypatch.setattr(SegmentationModule, "training_step", None)
    assert start(views, tmp_path) == results
    with pytest.raises(UserError, match="epochs"):
        start(views, tmp_path, epochs=3)


def test_unknown_precisions_are_refused(views, tmp_path):
    with pytest.raises(UserError, match="train.precision = 'fast' is unknown; use '"):
        start(views, tmp_path, precision="fast")


@pytest.mark.parametrize("option", ["batch_size", "epochs", "val_interval", "devices"])
def test_counts_below_one_are_refused(views, tmp_path, option):
    with pytest.raises(UserError, match=f"train.{option} = 0: expected at least 1"):
        start(views, tmp_path, **{option: 0})


def test_early_stopping_stops(views, tmp_path, monkeypatch):
    monkeypatch.setattr(SegmentationModule, "configure_optimizers", lambda self: torch.optim.SGD(
        self.network.parameters(), lr=0.0))  # fmt: skip
    monkeypatch.setattr(OptimizerOptions, "learning_rate_at", lambda self, epoch: 0.0)
    original = SegmentationModule._loss_and_prediction

    def constant(self, batch):
        entropy, weight, other, prediction, label = original(self, batch)
        return entropy, weight, other, torch.ones_like(prediction), label

    monkeypatch.setattr(SegmentationModule, "_loss_and_prediction", constant)
    assert start(views, tmp_path, epochs=50, patience=3)["epochs"] == 4

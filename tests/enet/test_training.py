"""Whole training runs on tiny stores: budget, exactness, resuming, skipping, and what is refused."""

from pathlib import Path

import pytest
import torch

from enet.task_test import test as run_test
from enet.task_train import train
from utils.errors import UserError
from utils.files import partial_path, read_json

SPLIT = {
    "train_scenes": ["scene0000_00", "scene0001_00"],
    "val_scenes": ["scene0002_00"],
    "test_scenes": ["scene0003_00"],
}


def start(views: Path, runs: Path, name: str = "run", **changes) -> dict:
    arguments = {"epochs": 2, "batch_size": 4, "device": "cpu", **SPLIT, **changes}
    return train(views=[str(views)], runs_dir=str(runs), name=name, **arguments)


def weights(runs: Path, name: str = "run") -> dict[str, torch.Tensor]:
    checkpoint = torch.load(runs / name / "training" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"]


def test_train_then_test(views, tmp_path):
    results = start(views, tmp_path / "runs", epochs=3)
    assert results["training_views"] == 16 and results["validation_views"] == 8
    folder = tmp_path / "runs/run/training"
    assert (folder / "best.ckpt").exists() and list((folder / "tensorboard").iterdir())
    assert len(list((folder / "samples").glob("*.png"))) == 8
    scores = run_test(
        checkpoint=str(folder / "best.ckpt"), views=[str(views)], output_dir=str(tmp_path / "test"),
        scenes=["scene0002_00"], device="cpu", batch_size=3,
    )  # fmt: skip
    assert scores["mean_iou"] == results["validation"]["mean_iou"]
    assert scores["confusion"] == results["validation"]["confusion"]
    assert sum(map(sum, scores["confusion"])) == 8 * 24 * 27

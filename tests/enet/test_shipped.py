"""The networks that come with the project: they load, are what their configs say, and their figures agree."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.task_compare import kept_results
from enet.checkpoints import load_checkpoint
from enet.geometry import GEOMETRY

ANALYSIS = Path(__file__).resolve().parents[2] / "analysis"
ROWS = {"sh_model": "rendered_rgb_sh", "geometry_model": "rendered_rgb_geometry",
        "geometry_randomised_model": "rendered_rgb_geometry_randomised"}  # fmt: skip
INPUTS = {"sh_model": {"sh"}, "geometry_model": set(GEOMETRY), "geometry_randomised_model": set(GEOMETRY)}


@pytest.mark.parametrize("folder", ROWS)
def test_a_shipped_network_is_that_of_its_row(folder):
    row = ROWS[folder]
    module = load_checkpoint(ANALYSIS / folder / "best.ckpt", torch.device("cpu"))
    assert set(module.hparams["network"]["inputs"]) == INPUTS[folder]
    assert f"include 'configs/exp/{row}.gin'" in (ANALYSIS / folder / "config.gin").read_text()
    metrics = json.loads((ANALYSIS / folder / "metrics.json").read_text())
    assert metrics["mean_iou"] == pytest.approx(np.mean(list(metrics["class_iou"].values())), abs=1e-5)
    kept = next(run for run in kept_results(ANALYSIS / "results") if (run.row, run.seed) == (row, 0))
    assert kept.facts["mean_iou"] == metrics["mean_iou"]
    assert (ANALYSIS / folder / "best.ckpt").stat().st_size < 2e6

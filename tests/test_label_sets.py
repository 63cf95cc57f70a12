"""A label set of one's own from generated rooms to the report, and what is refused when sets are mixed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

PROJECT = Path(__file__).parents[1]
# Five classes of NYU40's ids, of which two are made of several; blinds are listed and unannotated.
ROWS = [
    (1, "wall", "#101010", ""), (2, "floor", "#202020", ""), (20, "floor mat", "#202021", "floor"),
    (5, "seat", "#303030", ""), (6, "sofa", "#303031", "seat"), (4, "bed", "#303032", "seat"),
    (7, "table", "#404040", ""), (14, "desk", "#404041", "table"), (3, "storage", "#505050", ""),
    (13, "blinds", "#606060", "-"),
]  # fmt: skip
NAMES = ["wall", "floor", "seat", "table", "storage"]
SMALL = {
    "synthesize": ["synthesize.rooms = 3", "PictureOptions.size = (48, 64)", "PictureOptions.frames = 8",
                   "RoomOptions.edge = 0.12"],
    "fit": ["FitGrid.resolutions = (24,)", "FitOptimization.steps = (10,)", "FitOptimization.rays_per_step = (300,)",
            "FitPoses.rounds = 0"],
    "render": ["SIZE = (32, 40)"],
    "train": ["train.epochs = 1", "train.batch_size = 8", "train.val_interval = 1",
              "VAL_SCENES = ['scene9001_00']", "TEST_SCENES = ['scene9002_00']"],
    "test": ["TEST_SCENES = ['scene9002_00']"],
}  # fmt: skip


def run_task(folder: Path, table: Path | None, task: str, *bindings: str) -> subprocess.CompletedProcess:
    lines = [f"DATA = '{folder}/data'", f"WORK = '{folder}'", *SMALL.get(task, ()), *bindings]
    if task not in ("synthesize", "report"):
        lines.append("DEVICE = 'cpu'")
    if table is not None:
        lines.append(f"label_set.table = '{table}'")
    given = [word for line in lines for word in ("--ginb", line)]
    return subprocess.run([sys.executable, str(PROJECT / "run.py"), task, *given], capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    table = folder / "own.tsv"
    lines = ["# ids: nyu40", "id\tname\tcolor\tclass", *("\t".join(map(str, row)) for row in ROWS)]
    table.write_text("\n".join(lines) + "\n")
    for task in ("synthesize", "fit", "render", "annotate", "analyze", "train", "test", "report"):
        result = run_task(folder, table, task)
        assert result.returncode == 0, (task, result.stderr[-2000:])
    return folder, table


def test_annotations_are_of_the_own_classes(made):
    folder, _ = made
    store = folder / "views" / "original" / "scene9000_00"
    label = np.load(store / "label.npy")
    assert set(np.unique(label)) <= set(range(6)) and {1, 2} <= set(np.unique(label))
    settings = json.loads((store / "meta.json").read_text())["channels"]["label"]["settings"]
    assert settings["classes"] == ["unannotated", *NAMES]


def test_scores_and_report_are_of_the_own_classes(made):
    folder, _ = made
    metrics = json.loads((folder / "runs" / "run" / "test" / "metrics.json").read_text())
    assert f'"class_iou": {{"{NAMES[0]}"' in json.dumps(metrics)
    header = (folder / "report" / "results.csv").read_text().splitlines()[0]
    assert header.split(",")[-5:] == [f"iou_{name}" for name in NAMES]
    page = (folder / "report" / "index.html").read_text()
    assert "#303030" in page and "shower curtain" not in page


def test_the_network_has_the_own_classes(made):
    folder, _ = made
    content = torch.load(folder / "runs" / "run" / "training" / "best.ckpt", weights_only=True)
    assert list(content["hyper_parameters"]["labels"]) == ["unannotated", *NAMES]
    assert content["state_dict"]["class_weights"].shape == (6,)


@pytest.mark.parametrize("task, what", [
    ("test", "best.ckpt.*trained for other classes"), ("train", "label.npy holds other classes"),
    ("report", "scored on classes that .*scannet20.tsv does not have"), ("analyze", "label.npy holds other classes"),
    ("annotate", "made with other settings"),
])  # fmt: skip
def test_another_label_set_is_refused(made, tmp_path, task, what):
    folder, _ = made
    overwrite = {"analyze": "analyze.overwrite = True", "train": "train.name = 'other'"}.get(task)
    result = run_task(folder, None, task, *([overwrite] if overwrite else []))
    assert re.search(what, result.stderr + result.stdout), result.stderr[-1500:]


def test_scannets_raw_categories_are_asked_for(made):
    folder, _ = made
    result = run_task(folder, Path("configs/labels/scannet200.tsv"), "annotate", "annotate.overwrite = True")
    assert result.returncode != 0 and "scannetv2-labels.combined.tsv is not in" in result.stderr

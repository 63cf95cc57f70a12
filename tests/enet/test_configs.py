"""The paper's five rows: equal but for what the row says."""

from pathlib import Path

import gin
import pytest

from enet.options import SelfTrainingOptions
from enet.task_test import test as run_test
from enet.task_train import train
from tests.all_tasks import import_tasks
from utils.config import parse, resolved_parameters
from utils.tasks import get_task

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("camera_rgb", "rendered_rgb", "rendered_rgb_sh", "novel_rgb", "novel_rgb_sh")
STEM, INPUTS, BLUR = "NetworkOptions.stem", "NetworkOptions.inputs", "ViewOptions.blur"
COLOR, VIEWS = "ViewOptions.color", "train.views"
NAMES = ("train.name", "test.checkpoint", "test.output_dir")


@pytest.fixture(autouse=True)
def tasks_of_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)
    import_tasks()  # their names stand in the configs


def resolved(row: str, *extra: str) -> dict:
    gin.clear_config()
    parse([f"configs/exp/{row}.gin", *extra], ["DATA = 'd'", "WORK = 'w'"])
    groups = (train, run_test, *get_task("train").configures)
    return {
        f"{group.__name__}.{name}": value for group in groups for name, value in resolved_parameters(group).items()
    }


def differences(first: str, second: str) -> set[str]:
    a, b = resolved(first), resolved(second)
    assert a.keys() == b.keys()
    return {name for name in a if a[name] != b[name] and name not in NAMES}


def test_rows_differ_only_in_what_they_say():
    assert differences("camera_rgb", "rendered_rgb") == {COLOR}
    assert differences("rendered_rgb", "rendered_rgb_sh") == {STEM}
    assert differences("novel_rgb", "novel_rgb_sh") == {STEM}
    assert differences("rendered_rgb", "novel_rgb") == {VIEWS}
    assert differences("rendered_rgb_sh", "novel_rgb_sh") == {VIEWS}
    assert differences("rendered_rgb_sh", "rendered_rgb_geometry") == {INPUTS}
    assert differences("rendered_rgb_sh", "rendered_rgb_sh_geometry") == {INPUTS}
    assert differences("camera_rgb", "camera_rgb_blurred") == {BLUR}
    varied = ("brightness", "contrast", "saturation", "white_balance", "hue", "gamma", "blur", "noise")
    expected = {f"AugmentationOptions.{name}" for name in varied}
    assert differences("camera_rgb", "camera_rgb_randomised") == expected
    backbone, learned = "NetworkOptions.backbone", "NetworkOptions.pretrained"
    assert differences("rendered_rgb", "segformer_rgb") == {backbone}
    assert differences("rendered_rgb", "efficientnet_rgb") == {backbone, learned}
    for family in ("segformer", "efficientnet"):
        assert differences(f"{family}_rgb", f"{family}_rgb_sh") == {STEM}


def test_live_rows_differ_from_stored_ones_only_in_where_views_come_from():
    source = {"data.source", "data.fields_dir", "data.scans_dir"}
    assert differences("rendered_rgb_sh", "live_rgb_sh") == {VIEWS, *source}
    assert differences("live_rgb_sh", "live_jittered_rgb_sh") == {"data.poses"}
    assert differences("live_rgb_sh", "live_fresh_rgb_sh") == {"data.poses", "LossOptions.quality"}
    values = resolved("live_rgb_sh")
    assert (values["data.fields_dir"], values["data.scans_dir"]) == ("w/fields", "d/scans")
    assert values[VIEWS] == [] and values["test.views"] == ["w/views/original"]


def test_rows_with_geometry_say_which():
    geometry = ("depth", "normal", "height", "alpha")
    assert resolved("rendered_rgb_geometry")[INPUTS] == geometry
    assert resolved("rendered_rgb_sh_geometry")[INPUTS] == ("sh", *geometry)
    assert resolved("camera_rgb_blurred")[BLUR] == 6.0


@pytest.mark.parametrize("row", ROWS)
def test_each_row_is_what_its_name_says(row):
    values = resolved(row)
    assert values["train.name"] == row and values["test.checkpoint"] == f"w/runs/{row}/training/best.ckpt"
    assert values[COLOR] == ("photo" if row == "camera_rgb" else "rgb")
    assert values[STEM] == ("conv_sum" if row.endswith("sh") else "rgb")
    assert values[VIEWS] == ["w/views/original"] + ["w/views/novel"] * row.startswith("novel")
    assert values["test.views"] == ["w/views/original"]  # all rows are tested on the original views
    assert (values["train.batch_size"], values["train.epochs"]) == (160, 1000)
    assert values["OptimizerOptions.learning_rate"] == 1.135e-3


@pytest.mark.parametrize(("extra", "epochs"), [("demo", 10), ("capture", 8)])
def test_smoke_configs_shorten_a_row_and_leave_it_what_it_is(extra, epochs):
    values, row = resolved("novel_rgb_sh", f"configs/smoke/{extra}.gin"), resolved("novel_rgb_sh")
    assert values["train.epochs"] == epochs
    for name in (STEM, COLOR, VIEWS, *NAMES):
        assert values[name] == row[name], name


def test_self_training_differs_from_its_teacher_in_labels_and_weights_alone():
    scenes, folder = "SelfTrainingOptions.scenes", "SelfTrainingOptions.fused_dir"
    added = {scenes, folder, "LossOptions.quality", "LossOptions.min_quality"}
    assert differences("half_of_the_rooms", "self_training_rgb") == added
    assert differences("half_of_the_rooms_geometry", "self_training_geometry") == added
    assert differences("rendered_rgb_geometry", "half_of_the_rooms_geometry") == {"SplitOptions.train_scenes"}
    row = resolved("self_training_rgb")
    assert row[folder] == "w/self_labels/half_of_the_rooms"
    half, other, every = (set((ROOT / f"configs/benchmark/{name}.txt").read_text().split())
                          for name in ("half", "other_half", "train"))  # fmt: skip
    assert row[scenes] == "configs/benchmark/other_half.txt" and not half & other and half | other == every


def test_one_file_says_which_rooms_are_labelled_and_where_the_labels_are_read():
    parse(["configs/stage/fuse.gin", "configs/exp/self_training_rgb.gin"],
          ["DATA = 'd'", "WORK = 'w'", "TEACHER = 'half_of_the_rooms_2'"])  # fmt: skip
    labels = resolved_parameters(get_task("fuse").plan)
    options = resolved_parameters(SelfTrainingOptions)
    assert labels["fused_dir"] == options["fused_dir"] == "w/self_labels/half_of_the_rooms_2"
    assert labels["scenes"] == options["scenes"] and labels["fields_dir"] == "w/fields"
    assert labels["checkpoint"] == "w/runs/half_of_the_rooms_2/training/best.ckpt"

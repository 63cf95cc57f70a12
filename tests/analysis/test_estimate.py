"""``estimate``: what is left, its bytes as stores have them, and time at the rate of what is done."""

import json

import pytest
import torch

from analysis.task_estimate import estimate
from dataloader import add_channel, save_perfception_scene
from dataloader.scene_transform import SceneTransform
from tests.dataloader.scannet_fixture import write_scannet_scene
from tests.dataloader.test_view_store import SIZE, write_store
from utils.errors import UserError


@pytest.fixture
def work(tmp_path):
    """Four scans of 12 frames, of which one has a lost pose; two are fitted, one rendered and annotated."""
    for name in "abcd":
        write_scannet_scene(tmp_path / "scans" / name, (24, 32))
    for name in "ab":
        save_perfception_scene(tmp_path / "fields" / f"plenoxel_scannet_{name}", (4, 4, 4), torch.arange(8),
                               torch.ones(8), torch.rand(8, 27), SceneTransform.identity())  # fmt: skip
    write_store(tmp_path / "views" / "a")
    add_channel(tmp_path / "views" / "a", "label", lambda labels: labels.fill(1))
    for folder, runs in (("fields", [30.0, 10.0]), ("views", [5.0])):
        record = tmp_path / folder / "run" / "run.json"
        record.parent.mkdir()
        record.write_text(json.dumps([{"seconds": seconds} for seconds in runs]))
    return tmp_path


def planned(work, **options):
    folders = [str(work / name) for name in ("scans", "fields", "views", "analysis")]
    return estimate.plan(*folders, **{"size": SIZE, **options})


def test_what_is_left_and_what_it_takes(work):
    plan = planned(work)
    found = plan.work()
    field = sum(path.stat().st_size for path in (work / "fields" / "plenoxel_scannet_a").rglob("*") if path.is_file())
    pixels = SIZE[0] * SIZE[1]
    assert found["fit"]["done"] == 2 and found["fit"]["seconds"] == 40 and abs(found["fit"]["bytes"] / 2 - field) < 50
    assert found["render"] == {"done": 1, "left": 3, "bytes": 3 * 11 * pixels * (3 + 27 + 2 + 1 + 3), "seconds": 15}
    assert found["annotate"] == {"done": 1, "left": 3, "bytes": 3 * 11 * pixels, "seconds": None}
    assert found["analyze"] == {"done": 0, "left": 4, "bytes": None, "seconds": None}
    assert plan.notes[0] == "4 scenes of about 11 views"
    assert plan.notes[1].startswith("fit: 2 scenes done, 2 left: 40 s, ")
    assert plan.notes[4] == ("analyze: 0 scenes done, 4 left: time not known before one is done, "
                             "disk not known before one is done")


def test_options_of_the_stages_count(work):
    halves = planned(work, sh_dtype="float16", every=2, unlabelled=["c", "d"]).work()
    assert halves["render"]["bytes"] == 3 * 5.5 * SIZE[0] * SIZE[1] * (3 + 2 * 27 + 2 + 1 + 3)
    assert halves["annotate"]["left"] == 1 and halves["analyze"]["left"] == 2


def test_a_disk_that_is_too_small_is_told(work, monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    assert planned(work).notes[-1].endswith("1e-07 GB are free: not enough")


def test_scans_that_cannot_be_read_are_told(work):
    for name in "abcd":
        for path in (work / "scans" / name / "pose").iterdir():
            path.unlink()
    with pytest.raises(UserError, match="none of .* can be read; run 'verify'"):
        planned(work)

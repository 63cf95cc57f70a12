"""``verify`` over many scenes: on workers, from memory, and as a file for programs."""

import json
import os
import shutil
import time

import pytest
import torch

from dataloader import add_channel, save_perfception_scene
from dataloader.scene_transform import SceneTransform
from dataloader.task_verify import verify
from tests.dataloader.scannet_fixture import write_scannet_scene
from tests.dataloader.test_view_store import write_store
from utils.errors import UserError

LONG_AGO = time.time_ns() - 3600 * 10**9


def age(folder):
    """Let everything have changed an hour ago."""
    for path in folder.rglob("*"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))


@pytest.fixture
def data(tmp_path):
    """Two scans, the field of the first and its views, annotated; all an hour old."""
    write_scannet_scene(tmp_path / "scans" / "a", (24, 32), num_frames=24, lost_frames=())
    shutil.copytree(tmp_path / "scans" / "a", tmp_path / "scans" / "b")
    for path in (tmp_path / "scans" / "b").glob("a_*"):
        path.rename(path.with_name(path.name.replace("a_", "b_", 1)))
    save_perfception_scene(tmp_path / "fields" / "plenoxel_scannet_a", (4, 4, 4), torch.arange(8),
                           torch.ones(8), torch.rand(8, 27), SceneTransform.identity())  # fmt: skip
    write_store(tmp_path / "views" / "a")
    add_channel(tmp_path / "views" / "a", "label", lambda array: array.fill(1))
    age(tmp_path)
    return tmp_path


def run_verify(data, **options):
    folders = (str(data / name) for name in ("scans", "fields", "views"))
    return verify(*folders, **{"results_dir": str(data / "found"), **options})


def report(data):
    return json.loads((data / "found" / "report.json").read_text())


@pytest.fixture
def decoded(monkeypatch):
    """Names of the scans that are opened, in this process."""
    import dataloader.verification as module

    names, load = [], module.load_scene
    monkeypatch.setattr(module, "load_scene", lambda path: names.append(path.name) or load(path))
    return names


def test_what_has_not_changed_is_not_read_again(data, decoded):
    assert run_verify(data) == run_verify(data) == {"scans": 2, "fields": 1, "views": 1, "broken": 0, "notes": 0}
    assert decoded == ["a", "b"]
    pose = data / "scans" / "b" / "pose" / "5.txt"
    pose.write_text("-inf " * 16)
    os.utime(pose, ns=(LONG_AGO + 1, LONG_AGO + 1))
    assert run_verify(data)["notes"] == run_verify(data)["notes"] == 1
    assert decoded == ["a", "b", "b"]
    run_verify(data, min_frames=100)
    assert decoded[3:] == ["a", "b"]
    run_verify(data, fresh=True, min_frames=100)
    assert decoded[5:] == ["a", "b"]


def test_damage_is_remembered_and_its_repair_seen(data, decoded):
    image = data / "scans" / "a" / "color" / "3.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:-50])
    os.utime(image, ns=(LONG_AGO, LONG_AGO))  # another size, though no other time
    for _ in range(2):
        with pytest.raises(UserError, match="1 problems in 2 scans, 1 fields, 1 views"):
            run_verify(data)
    assert decoded == ["a", "b"]
    assert report(data)["status"] == "broken" and report(data)["scenes"]["b"]["scan"]["status"] == "sound"
    image.write_bytes(whole)
    assert run_verify(data)["broken"] == 0 and decoded == ["a", "b", "a"]


def test_what_changed_just_now_is_not_remembered(data, decoded):
    (data / "scans" / "a" / "color" / "3.png").touch()
    run_verify(data), run_verify(data)
    assert decoded == ["a", "b", "a"]


def test_files_elsewhere_are_read_again(data, decoded):
    from tests.dataloader.scene_exports import random_capture, write_transforms

    shutil.rmtree(data / "scans")
    write_transforms(data / "scans" / "c", random_capture(count=24))
    listing = data / "scans" / "c" / "transforms.json"
    content = json.loads(listing.read_text())
    (data / "scans" / "c" / content["frames"][0]["file_path"]).rename(data / "elsewhere.png")
    content["frames"][0]["file_path"] = "../../elsewhere.png"
    listing.write_text(json.dumps(content))
    age(data / "scans")
    run_verify(data), run_verify(data)
    assert decoded == ["c", "c"]


def test_a_scheduler_is_told_each_scenes_state(data):
    (data / "views" / "a.partial").mkdir()
    (data / "fields" / "plenoxel_scannet_a" / "trans_info.npz").unlink()
    with pytest.raises(UserError, match="1 problems"):
        run_verify(data)
    found = report(data)
    assert found["version"] == 1 and found["status"] == "broken"
    assert found["counts"] == {
        "scan": {"sound": 2, "incomplete": 0, "absent": 0, "broken": 0},
        "field": {"sound": 0, "incomplete": 0, "absent": 1, "broken": 1},
        "views": {"sound": 0, "incomplete": 1, "absent": 1, "broken": 0},
    }
    a, b = found["scenes"]["a"], found["scenes"]["b"]
    assert a["status"] == "broken" and "trans_info.npz" in a["field"]["reasons"][0]
    assert a["views"]["reasons"] == ["a.partial is unfinished; run its stage with --resume"]
    assert b["status"] == "incomplete" and b["scan"]["status"] == "sound" and b["views"]["status"] == "absent"
    (data / "views" / "a.partial").rmdir()  # beside the folder, so no part of what is remembered of it
    with pytest.raises(UserError):
        run_verify(data)
    assert report(data)["scenes"]["a"]["views"]["status"] == "sound"


def test_workers_find_the_same(data):
    (data / "scans" / "a" / "color" / "3.png").write_bytes(b"")
    with pytest.raises(UserError) as alone:
        run_verify(data)
    there = report(data)
    with pytest.raises(UserError) as many:
        run_verify(data, workers=3, fresh=True, results_dir=str(data / "others"))
    assert str(many.value) == str(alone.value)
    assert json.loads((data / "others" / "report.json").read_text()) == there
    with pytest.raises(UserError, match="verify.workers = -1"):
        run_verify(data, workers=-1)

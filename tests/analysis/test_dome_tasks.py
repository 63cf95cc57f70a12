"""Tasks sample and filter, from an annotated store to judged cameras."""

import json

import gin
import pytest
import torch

from analysis.task_filter import filter as filter_domes
from analysis.task_sample import sample, wanted_classes
from dataloader import CameraList
from tests.analysis.box_room import pixel_of, ray_cast, trajectory, write_scan, write_store
from utils.errors import UserError
from utils.labels import class_index, label_set


@pytest.fixture
def work(tmp_path):
    write_store(tmp_path / "views" / "room")
    write_scan(tmp_path / "scans" / "room")
    return tmp_path


def run_sample(work, **options):
    return sample(str(work / "views"), str(work / "scans"), str(work / "domes"), classes=["sink"], **options)


def run_filter(work, **options):
    return filter_domes(str(work / "domes"), str(work / "scans"), str(work / "filtered"), device="cpu", **options)


def test_cameras_see_the_sink_and_are_written_the_same_way_twice(work):
    metrics = run_sample(work, seed=3)
    path = work / "domes" / "room.json"
    domes, first = CameraList.load(path), path.read_bytes()
    assert metrics["num_cameras"] == len(domes) > 0 and metrics["cameras_by_class"] == {"sink": len(domes)}
    assert (metrics["scenes_with_targets"], metrics["scenes_without_views"]) == (1, [])
    for pose, info in zip(domes.camera_to_world, domes.info, strict=True):
        expected = torch.tensor(info["target_pixel"]).double()
        assert torch.allclose(pixel_of(info["target_point"], pose), expected, atol=1e-6)
    record = json.loads((work / "domes" / "room" / "candidates.json").read_text())
    assert record["targets"][0]["class"] == "sink" and record["refused"] == metrics["refused_candidates"]
    assert (work / "domes" / "room" / "plan.png").stat().st_size > 1000
    assert run_sample(work, seed=3) == metrics and path.read_bytes() == first
    path.unlink()
    run_sample(work, seed=3)
    assert path.read_bytes() == first
    with pytest.raises(UserError, match="seed"):
        run_sample(work, seed=4)
    run_sample(work, seed=4, overwrite=True)
    assert path.read_bytes() != first


def test_statistics_share_the_budget_and_another_scene_only_shortens_the_list(work):
    def cameras(scenes_with_sink):
        content = {"total": {"tail_classes": ["sink"], "scenes_with_class": {"sink": scenes_with_sink}}}
        (work / "statistics.json").write_text(json.dumps(content))
        run_sample(work, statistics=str(work / "statistics.json"), overwrite=True)
        return CameraList.load(work / "domes" / "room.json")

    few, many = cameras(40), cameras(20)
    assert (len(few), len(many)) == (6, 12)  # of 240 views a class
    assert torch.equal(few.camera_to_world, many.camera_to_world[:6]) and few.names == many.names[:6]


def test_filter_keeps_all_cameras_and_agrees_with_an_exact_ray_cast(work):
    run_sample(work)
    metrics = run_filter(work)
    judged = CameraList.load(work / "filtered" / "room.json")
    assert len(judged) == len(CameraList.load(work / "domes" / "room.json"))
    assert sum(metrics["reasons"].values()) == len(judged)
    assert metrics["reasons"]["accepted"] >= 0.9 * len(judged)  # sample takes what filter will keep
    labels, _ = ray_cast(judged.camera_to_world)
    for label, info in zip(labels, judged.info, strict=True):
        assert info["coverage"] == pytest.approx(float((label == class_index("sink")).float().mean()), abs=5e-3)
        assert info["accepted"] == (info["reason"] == "") and info["target_point"]
    assert {path.name for path in (work / "filtered" / "room").iterdir()} >= {"plan.png", "contact_sheet.png"}
    assert run_filter(work) == metrics


def test_quality_needs_to_know_where_views_and_fields_are(work):
    run_sample(work)
    gin.bind_parameter("FilterOptions.min_quality", 0.1)
    with pytest.raises(UserError, match="min_quality = 0.1 needs filter.views_dir"):
        run_filter(work)


def test_a_scene_without_targets_gives_an_empty_list_all_the_way(work):
    assert sample(str(work / "views"), str(work / "scans"), str(work / "domes"), classes=["bed"])["num_cameras"] == 0
    for _ in range(2):  # made, and found made
        assert run_filter(work) == {"reasons": {}, "scenes": {"room": {"accepted": 0}}}
    assert len(CameraList.load(work / "filtered" / "room.json")) == 0


def test_wanted_classes(tmp_path):
    statistics = tmp_path / "statistics.json"
    statistics.write_text(json.dumps({"total": {"tail_classes": ["sink", "toilet"]}}))
    assert wanted_classes("tail", statistics) == ["sink", "toilet"]
    assert wanted_classes("paper", None) == [label_set().names[k] for k in label_set().tail]
    assert wanted_classes(["bed"], None) == ["bed"]
    for classes, message in (("tail", "analyze"), ("rare", "rare"), (["spoon"], "spoon")):
        with pytest.raises(UserError, match=message):
            wanted_classes(classes, None)


def test_the_trajectory_helper_sees_the_sink():
    assert (ray_cast(trajectory())[0] == class_index("sink")).flatten(1).any(1).sum() >= 9

"""Each reason to refuse a view, one at a time, in a box room with exact labels and depth."""

import pytest
import torch

from analysis.filtering import FilterOptions, count_reasons, judge_views, limit_per_class, refuse_by_quality
from tests.analysis.box_room import SIZE, camera_list, ray_cast
from utils.cameras import look_at
from utils.labels import class_index

SINK = class_index("sink")
TARGET = [2.5, 2.0, 0.85]  # on the sink's upper end


def judge(eye, options=None, target=TARGET, target_class="sink", labels=None, depth=None):
    pose = look_at(torch.tensor([eye]).double(), torch.tensor([target]).double())
    seen_labels, seen_depth = ray_cast(pose)
    info = {"target_class": target_class, "target_class_index": class_index(target_class), "target_point": target}
    labels = seen_labels if labels is None else labels
    depth = seen_depth if depth is None else depth
    return judge_views(labels, depth, camera_list(pose, info=[info]), options or FilterOptions())[0]


def test_a_good_view_is_accepted_and_its_coverage_is_exact():
    verdict = judge((3.3, 1.2, 1.4))
    labels, _ = ray_cast(look_at(torch.tensor([[3.3, 1.2, 1.4]]).double(), torch.tensor([TARGET]).double()))
    assert (verdict["accepted"], verdict["reason"]) == (True, "")
    assert verdict["coverage"] == pytest.approx(float((labels == SINK).float().mean()), abs=5e-5)
    assert verdict["coverage"] >= 0.2


def test_coverage_below_the_threshold():
    assert judge((4.6, 0.6, 1.4))["reason"] == "low_coverage"
    assert judge((4.6, 0.6, 1.4), FilterOptions(min_coverage=0.01))["accepted"]


def test_coverage_counts_the_whole_image_as_the_paper_does():
    labels = torch.ones(1, *SIZE, dtype=torch.uint8)
    labels.view(1, -1)[0, : round(0.2 * SIZE[0] * SIZE[1])] = SINK
    depth = torch.full((1, *SIZE), 1.2)
    assert judge((3.3, 1.2, 1.4), labels=labels, depth=depth)["reason"] == "low_coverage"
    labels.view(1, -1)[0, : round(0.2 * SIZE[0] * SIZE[1]) + 1] = SINK
    assert judge((3.3, 1.2, 1.4), labels=labels, depth=depth)["accepted"]


def test_too_close_to_a_surface():
    assert judge((2.95, 2.0, 0.85))["reason"] == "too_close"
    assert judge((2.95, 2.0, 0.85), FilterOptions(min_distance=0.05))["reason"] != "too_close"


def test_few_hits():
    depth = torch.full((1, *SIZE), 1.5)
    depth[:, :20] = 0
    assert judge((3.3, 1.2, 1.4), depth=depth)["reason"] == "few_hits"


def test_a_target_behind_another_object_is_occluded():
    anywhere = FilterOptions(min_distance=0.01)
    assert judge((4.9, 3.9, 0.3), anywhere, target=[2.8, 2.3, 0.2])["reason"] == "occluded"
    assert judge((4.9, 3.9, 1.8), anywhere, target=[2.8, 2.3, 0.8])["reason"] != "occluded"


def test_a_target_on_the_far_side_of_its_own_object_is_not():
    verdict = judge((3.5, 2.0, 0.9), target=[2.2, 2.0, 0.5])
    assert verdict["accepted"]


def test_unannotated():
    labels = torch.zeros(1, *SIZE, dtype=torch.uint8)
    labels[:, 12:36] = SINK
    assert judge((3.3, 1.2, 1.4), FilterOptions(max_unannotated=0.49), labels=labels)["reason"] == "unannotated"
    assert judge((3.3, 1.2, 1.4), FilterOptions(max_unannotated=0.51), labels=labels)["accepted"]


def test_what_the_camera_was_made_for_is_kept():
    assert judge((3.3, 1.2, 1.4))["target_point"] == TARGET


def test_the_limit_keeps_the_best_covered_of_each_class():
    judged = [
        {"target_class_index": k, "accepted": a, "reason": "" if a else "occluded", "coverage": c}
        for k, a, c in ((18, True, 0.3), (18, True, 0.5), (18, False, 0.9), (18, True, 0.4), (16, True, 0.2))
    ]
    limited = limit_per_class(judged, 2)
    assert [info["reason"] for info in limited] == ["over_limit", "", "occluded", "", ""]
    assert count_reasons(limited) == {"accepted": 3, "occluded": 1, "over_limit": 1}
    assert limit_per_class(judged, 0) == judged
    assert judged[0]["accepted"]


def test_bad_quality_refuses_only_what_was_accepted_and_is_noted():
    judged = [{"accepted": True, "reason": ""}, {"accepted": False, "reason": "occluded"},
              {"accepted": True, "reason": ""}, {"accepted": True, "reason": ""}]
    rated = refuse_by_quality(judged, {0: 0.29, 1: 0.9, 2: 0.3}, FilterOptions(min_quality=0.3, at_least=0))
    assert [info["reason"] for info in rated] == ["low_quality", "occluded", "", ""]
    assert [info.get("quality") for info in rated] == [0.29, 0.9, 0.3, None]
    assert [info["accepted"] for info in rated] == [False, False, True, True]
    assert judged[0]["accepted"]


def test_a_scene_of_bad_views_keeps_its_best_ones():
    judged = [{"accepted": k != 1, "reason": "" if k != 1 else "occluded"} for k in range(4)]
    quality = {0: 0.1, 1: 0.25, 2: 0.2, 3: 0.05}
    rated = refuse_by_quality(judged, quality, FilterOptions(min_quality=0.3, at_least=2))
    assert [info["reason"] for info in rated] == ["", "occluded", "", "low_quality"]

"""Targets must be points on the object, in world coordinates, and not repeated."""

from dataclasses import replace

import pytest
import torch

from analysis.targets import TargetOptions, find_targets, interior_pixel
from dataloader import ViewStoreWriter
from tests.analysis.box_room import OBJECTS, SIZE, camera_list, ray_cast, trajectory, write_store
from utils.cameras import look_at
from utils.errors import UserError
from utils.labels import class_index

SINK, TOILET = class_index("sink"), class_index("toilet")


def distance_to_box(point, name):
    low, high = next((torch.tensor(a), torch.tensor(b)) for n, a, b in OBJECTS if n == name)
    inside = torch.minimum(torch.maximum(point.float(), low), high)
    gap = (point.float() - inside).norm()
    faces = torch.minimum((point.float() - low).abs(), (point.float() - high).abs()).min()
    return float(torch.maximum(gap, faces if gap < 1e-3 else gap))


def test_interior_pixel_of_a_ring_is_on_the_ring():
    mask = torch.zeros(21, 21, dtype=torch.bool)
    mask[2:19, 2:19] = True
    mask[6:15, 6:15] = False
    row, column = interior_pixel(mask)
    assert mask[row, column] and not mask[10, 10]


def test_interior_pixel_of_two_parts_is_inside_the_thicker_one():
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[5:14, 3:12] = True
    mask[5:14, 25:28] = True
    assert interior_pixel(mask) == (9, 7)


def test_interior_pixel_of_a_full_or_thin_or_empty_mask():
    assert interior_pixel(torch.ones(5, 7, dtype=torch.bool)) == (2, 3)
    thin = torch.zeros(6, 6, dtype=torch.bool)
    thin[3, 1:6] = True
    assert interior_pixel(thin) == (3, 3)
    assert interior_pixel(torch.zeros(4, 4, dtype=torch.bool)) is None


def test_targets_lie_on_the_object(tmp_path):
    store = write_store(tmp_path / "room")
    options = TargetOptions(min_coverage=0.1, separation=0.05, max_per_class=0, max_per_scene=0)
    targets = find_targets(store, [SINK, TOILET], options)
    assert {t.class_index for t in targets} == {SINK, TOILET}
    for target in targets:
        assert distance_to_box(target.point, "sink" if target.class_index == SINK else "toilet") < 2e-3
        assert target.coverage >= 0.1
        assert torch.equal(target.eye, trajectory()[target.view, :3, 3])
        assert target.frame == str(target.view)


def test_the_most_covered_views_come_first_and_near_duplicates_go(tmp_path):
    store = write_store(tmp_path / "room")
    everything = TargetOptions(min_coverage=0.05, separation=0.0, max_per_class=0, max_per_scene=0)
    all_targets = find_targets(store, [SINK], everything)
    assert len(all_targets) == 9
    assert [t.coverage for t in all_targets] == sorted((t.coverage for t in all_targets), reverse=True)
    apart = find_targets(store, [SINK], TargetOptions(min_coverage=0.05, separation=0.4, max_per_class=0))
    distances = torch.pdist(torch.stack([t.point for t in apart]))
    assert 1 < len(apart) < 9 and distances.min() >= 0.4
    assert apart[0].view == all_targets[0].view
    assert len(find_targets(store, [SINK], TargetOptions(min_coverage=0.05, separation=5.0))) == 1


def test_held_out_views_give_no_targets(tmp_path):
    store = write_store(tmp_path / "room", attributes={"held_out": ["0", "4", "8", "not rendered"]})
    everything = TargetOptions(min_coverage=0.0, separation=0.0, max_per_class=0, max_per_scene=0)
    views = {target.view for target in find_targets(store, [SINK], everything)}
    assert {0, 4} <= views
    without = find_targets(store, [SINK], replace(everything, held_out=False))
    assert {target.view for target in without} == {view for view in views if view % 4}
    silent = write_store(tmp_path / "silent")
    with pytest.raises(UserError, match="does not say which frames were held out"):
        find_targets(silent, [SINK], replace(everything, held_out=False))


def test_limits_take_classes_in_turn(tmp_path):
    store = write_store(tmp_path / "room")
    options = TargetOptions(min_coverage=0.05, separation=0.0, max_per_class=2, max_per_scene=3)
    assert [t.class_index for t in find_targets(store, [TOILET, SINK], options)] == [TOILET, SINK, TOILET]


def test_coverage_is_of_the_window_and_the_threshold_counts(tmp_path):
    pose = trajectory()[:1]
    labels, _ = ray_cast(pose)
    share = float((labels[0, 12:36, 16:48] == SINK).float().mean())
    store = write_store(tmp_path / "room", pose)
    assert len(find_targets(store, [SINK], TargetOptions(min_coverage=share - 1e-4))) == 1
    assert find_targets(store, [SINK], TargetOptions(min_coverage=share + 1e-4)) == []


def test_a_class_outside_the_window_is_no_target(tmp_path):
    eye, sink = torch.tensor([4.0, 2.0, 0.6]).double(), torch.tensor([2.5, 3.2, 0.6]).double()
    poses = look_at(eye, sink)[None]
    labels, _ = ray_cast(poses)
    assert (labels == SINK).any()
    store = write_store(tmp_path / "room", poses)
    found = find_targets(store, [SINK], TargetOptions(min_coverage=1e-6, window=0.1))
    assert found == []


def test_pixels_without_depth_are_not_taken(tmp_path):
    labels = torch.full((1, *SIZE), SINK, dtype=torch.uint8)
    depth = torch.zeros(1, *SIZE)
    depth[0, 20:23, 30:33] = 2.0
    store = write_store(tmp_path / "room", trajectory()[:1], labels=labels, depth=depth)
    assert find_targets(store, [SINK], TargetOptions())[0].pixel == (31.5, 21.5)
    store = write_store(tmp_path / "blind", trajectory()[:1], labels=labels, depth=torch.zeros(1, *SIZE))
    assert find_targets(store, [SINK], TargetOptions()) == []


def test_missing_channels_are_named(tmp_path):
    writer = ViewStoreWriter.create(tmp_path / "bare", camera_list(trajectory(1)), {"rgb": ("uint8", (3, *SIZE))}, {})
    writer.write(0, {"rgb": torch.ones(3, *SIZE, dtype=torch.uint8)})
    writer.finish()
    with pytest.raises(UserError, match="bare.*annotate"):
        find_targets(tmp_path / "bare", [SINK], TargetOptions())

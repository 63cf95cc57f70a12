"""Render quality: what was seen, from where, and whether that predicts error."""

import math
from dataclasses import replace

import pytest
import torch

from analysis.quality import (
    Observers,
    QualityOptions,
    add_quality,
    estimate_quality,
    frames_not_fitted,
    observation_support,
    roughness,
    view_quality,
)
from dataloader import SceneTransform, ViewStore
from tests.analysis.box_room import INTRINSICS, ray_cast, trajectory, write_store
from utils.cameras import look_at
from utils.errors import UserError

OPTIONS = QualityOptions()
SMOOTH = QualityOptions(roughness_scale=1e9)  # edges of the room do not count
SINK = torch.tensor([2.5, 2.0, 0.9]).double()


def observers(poses):
    return Observers(poses.float(), INTRINSICS.float().expand(len(poses), 3, 3), ray_cast(poses)[1])


def quality_of(pose, poses, field=None, alpha=None):
    depth = ray_cast(pose[None])[1][0]
    field, alpha = depth if field is None else field, torch.ones_like(depth) if alpha is None else alpha
    return estimate_quality(depth, field, alpha, INTRINSICS.float(), pose.float(), observers(poses), SMOOTH)


def test_an_original_view_is_supported_by_itself_in_every_pixel():
    pose = trajectory()[0]
    quality = quality_of(pose, pose[None])
    assert torch.allclose(quality, torch.full_like(quality, 1 - math.exp(-1)), atol=2e-3)


def test_what_no_view_saw_has_no_quality():
    eye = torch.tensor([4.0, 2.0, 1.2]).double()
    opposite = look_at(eye[None], torch.tensor([[5.0, 2.0, 1.2]]).double())
    assert quality_of(look_at(eye, SINK), opposite).max() == 0


def test_an_occluded_surface_is_not_observed():
    """The wall behind the sink is in the original's frustum, but the sink stands in front of it."""
    original = look_at(torch.tensor([[4.0, 2.0, 0.5]]).double(), torch.tensor([[0.0, 2.0, 0.5]]).double())
    points = torch.tensor([[0.0, 2.0, 0.5], [0.0, 3.4, 0.5]])
    support = observation_support(points, torch.tensor([1.5, 2.0, 0.5]), observers(original), OPTIONS)
    assert support[0] == 0 and support[1] > 0


def test_support_falls_with_the_angle():
    point = torch.tensor([[0.0, 2.0, 1.2]])
    original = look_at(torch.tensor([[2.0, 2.0, 1.2]]).double(), point.double())
    seen = observers(original)
    eyes = [torch.tensor([3 * math.cos(a), 2.0 + 3 * math.sin(a), 1.2]) for a in (0.0, 0.35, 0.8)]
    same, beside, far_beside = (float(observation_support(point, eye, seen, OPTIONS)[0]) for eye in eyes)
    assert abs(same - 1) < 1e-4 and abs(beside - math.exp(-1)) < 1e-3 and far_beside < 0.01


def test_more_views_never_lower_the_quality():
    pose = look_at(torch.tensor([3.6, 3.0, 1.3]).double(), SINK)
    few, many = quality_of(pose, trajectory()[:3]), quality_of(pose, trajectory())
    assert (many >= few).all() and many.mean() > few.mean() and many.max() <= 1


def test_opacity_and_a_wrong_depth_lower_it():
    pose = trajectory()[0]
    depth = ray_cast(pose[None])[1][0]
    whole = quality_of(pose, pose[None])
    assert torch.allclose(quality_of(pose, pose[None], alpha=torch.full_like(depth, 0.5)), whole * 0.5)
    assert torch.allclose(quality_of(pose, pose[None], field=depth * 1.1), whole * math.exp(-1), atol=1e-4)


def test_roughness_is_the_relative_step_between_neighbours():
    assert roughness(torch.full((9, 9), 2.0)).abs().max() == 0
    stripes = torch.tensor([1.0, 1.5]).repeat(6).expand(12, 12)
    assert torch.allclose(roughness(stripes)[6, 4:6], torch.tensor([(3 * 0.5 + 2 / 3) / 5, (2 * 0.5 + 1) / 5]))


def test_quality_is_added_to_a_store_once(tmp_path):
    original, novel = write_store(tmp_path / "original"), write_store(tmp_path / "novel", trajectory(5))
    assert add_quality(novel, original, OPTIONS) and not add_quality(novel, original, OPTIONS)
    quality = ViewStore.open(novel).read("quality", 2)
    observed = Observers.from_store(original, 200)
    expected = view_quality(ViewStore.open(novel), 2, observed, OPTIONS)
    assert (quality - expected).abs().max() <= 0.5 / 255 + 1e-6 and 0 < quality.mean() < 1
    with pytest.raises(UserError, match="quality"):
        add_quality(novel, original, QualityOptions(angle_scale=0.1))


def test_held_out_frames_do_not_count_as_observed(tmp_path):
    original = write_store(tmp_path / "original")
    names = ViewStore.open(original).cameras.names
    observed = Observers.from_store(original, 200, frozenset(names[1:]))
    assert torch.equal(observed.camera_to_world, trajectory()[:1].float())
    with pytest.raises(UserError, match="no views"):
        Observers.from_store(original, 200, frozenset(names))
    assert len(Observers.from_store(original, 3).depth) == 3


def test_only_frames_that_were_fitted_count_as_observed(tmp_path):
    """Held-out frames, and those that another split or the limit of frames left out, all count as not observed."""
    original, field = write_store(tmp_path / "original"), tmp_path / "field"
    names = ViewStore.open(original).cameras.names
    assert frames_not_fitted(field, original) == frozenset()  # nothing is known of the field
    field.mkdir()
    transform = SceneTransform.identity()
    replace(transform, frame_ids=names[1:3]).save(field / "trans_info.npz")
    assert frames_not_fitted(field, original) == frozenset(names) - set(names[1:3])
    replace(transform, frame_ids=["other"]).save(field / "trans_info.npz")  # names of another numbering say nothing
    assert frames_not_fitted(field, original) == frozenset()

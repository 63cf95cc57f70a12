"""Render quality: what was seen, from where, and whether that predicts error."""

import math

import torch

from analysis.quality import Observers, QualityOptions, estimate_quality, observation_support
from tests.analysis.box_room import INTRINSICS, ray_cast, trajectory
from utils.cameras import look_at

OPTIONS = QualityOptions()
SINK = torch.tensor([2.5, 2.0, 0.9]).double()


def observers(poses):
    return Observers(poses.float(), INTRINSICS.float().expand(len(poses), 3, 3), ray_cast(poses)[1])


def quality_of(pose, poses, **extra):
    depth = ray_cast(pose[None])[1][0]
    return estimate_quality(depth, INTRINSICS.float(), pose.float(), observers(poses), OPTIONS, **extra)


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


def test_support_falls_with_angle_and_with_the_observers_distance():
    point = torch.tensor([[0.0, 2.0, 1.2]])
    original = look_at(torch.tensor([[2.0, 2.0, 1.2]]).double(), point.double())
    seen = observers(original)
    eyes = [torch.tensor([2 * math.cos(a), 2.0 + 2 * math.sin(a), 1.2]) for a in (0.0, 0.35, 0.8)]
    same, beside, far_beside = (float(observation_support(point, eye, seen, OPTIONS)[0]) for eye in eyes)
    assert abs(same - 1) < 1e-4 and abs(beside - math.exp(-1)) < 1e-3 and far_beside < 0.01
    nearer, farther = (float(observation_support(point, torch.tensor([x, 2.0, 1.2]), seen, OPTIONS)[0]) for x in (1, 4))
    assert abs(nearer - 0.25) < 1e-3 and abs(farther - 1) < 1e-3


def test_more_views_never_lower_the_quality():
    pose = look_at(torch.tensor([3.6, 3.0, 1.3]).double(), SINK)
    few, many = quality_of(pose, trajectory()[:3]), quality_of(pose, trajectory())
    assert (many >= few).all() and many.mean() > few.mean() and many.max() <= 1


def test_opacity_and_a_wrong_depth_lower_it():
    pose = trajectory()[0]
    depth = ray_cast(pose[None])[1][0]
    whole = quality_of(pose, pose[None])
    assert torch.allclose(quality_of(pose, pose[None], alpha=torch.full_like(depth, 0.5)), whole * 0.5)
    assert torch.allclose(quality_of(pose, pose[None], field_depth=depth * 1.1), whole * math.exp(-1), atol=1e-4)
    assert torch.allclose(quality_of(pose, pose[None], field_depth=depth), whole)

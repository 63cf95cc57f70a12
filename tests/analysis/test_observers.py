"""What views observed, and which of them count."""

import math
from dataclasses import replace

import pytest
import torch

from analysis.observers import Observers, frames_not_fitted
from dataloader import SceneTransform, ViewStore
from tests.analysis.box_room import INTRINSICS, ray_cast, trajectory, write_store
from utils.cameras import look_at
from utils.errors import UserError


def observers(poses):
    return Observers(poses.float(), INTRINSICS.float().expand(len(poses), 3, 3), ray_cast(poses)[1])


def test_an_occluded_surface_is_not_observed():
    """The wall behind the sink is in the original's frustum, but the sink stands in front of it."""
    original = look_at(torch.tensor([[4.0, 2.0, 0.5]]).double(), torch.tensor([[0.0, 2.0, 0.5]]).double())
    points = torch.tensor([[0.0, 2.0, 0.5], [0.0, 3.4, 0.5]])
    support, angle = observers(original).observe(points, torch.tensor([1.5, 2.0, 0.5]), 0.35, 0.05)
    assert support[0] == 0 and support[1] > 0
    assert angle[0] == pytest.approx(math.pi) and angle[1] < 1


def test_support_falls_with_the_angle():
    point = torch.tensor([[0.0, 2.0, 1.2]])
    seen = observers(look_at(torch.tensor([[2.0, 2.0, 1.2]]).double(), point.double()))
    angles = (0.0, 0.35, 0.8)
    eyes = [torch.tensor([3 * math.cos(a), 2.0 + 3 * math.sin(a), 1.2]) for a in angles]
    found = [seen.observe(point, eye, 0.35, 0.05) for eye in eyes]
    assert [float(f.support) for f in found] == pytest.approx([math.exp(-((a / 0.35) ** 2)) for a in angles], abs=1e-3)
    assert [float(f.angle) for f in found] == pytest.approx(angles, abs=2e-3)


def test_supports_add_up_and_the_nearest_angle_counts():
    poses = trajectory()
    points, eye = torch.tensor([[2.5, 2.0, 0.9], [0.0, 2.0, 1.0]]), torch.tensor([4.0, 3.0, 1.5])
    each = [observers(pose[None]).observe(points, eye, 0.35, 0.05) for pose in poses]
    support, angle = observers(poses).observe(points, eye, 0.35, 0.05)
    assert torch.allclose(support, torch.stack([one.support for one in each]).sum(0))
    assert torch.equal(angle, torch.stack([one.angle for one in each]).amin(0))


def test_a_recorded_view_is_observed_by_itself():
    pose = trajectory()[0]
    depth = ray_cast(pose[None])[1][0]
    share = observers(pose[None]).observed_share(depth, INTRINSICS.float(), pose.float(), 0.35, 0.05)
    assert share == pytest.approx(1 - math.exp(-1), abs=2e-3)


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

"""World to grid: poses, points and directions agree with each other and with the format's definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloader import SceneTransform
from utils.cameras import camera_rays, project, unproject
from utils.errors import UserError


def _rotation(generator: torch.Generator) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))
    return q * torch.det(q)


def _pose(generator: torch.Generator) -> torch.Tensor:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = _rotation(generator), torch.randn(3, dtype=torch.float64, generator=generator)
    return pose


def _transform(seed: int) -> SceneTransform:
    generator = torch.Generator().manual_seed(seed)
    return SceneTransform(_pose(generator), torch.randn(3, generator=generator), 0.17, ["0", "10"])


seeds = st.integers(0, 10_000)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_pose_follows_the_definition(seed):
    transform, pose = _transform(seed), _pose(torch.Generator().manual_seed(seed + 1))
    expected = transform.T @ pose
    expected[:3, 3] = (expected[:3, 3] - transform.pcd_mean) * transform.scene_scale
    torch.testing.assert_close(transform.to_grid(pose), expected, rtol=0, atol=1e-14)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_a_camera_sees_a_point_at_the_same_pixel_in_both_frames(seed):
    transform, generator = _transform(seed), torch.Generator().manual_seed(seed + 1)
    pose = _pose(generator)
    intrinsics = torch.tensor([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]], dtype=torch.float64)
    uv, depth = torch.tensor([100.0, 333.0], dtype=torch.float64), torch.tensor(2.5, dtype=torch.float64)
    point = unproject(uv, depth, intrinsics, pose)
    uv_grid, depth_grid = project(transform.points_to_grid(point), intrinsics, transform.to_grid(pose))
    torch.testing.assert_close(uv_grid, uv, rtol=0, atol=1e-8)
    # Depth rendered in the grid, in metres, is the depth in the world.
    torch.testing.assert_close(transform.metres(depth_grid), depth, rtol=1e-12, atol=0)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_points_come_back(seed):
    transform, generator = _transform(seed), torch.Generator().manual_seed(seed + 1)
    points = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(transform.points_from_grid(transform.points_to_grid(points)), points, rtol=0, atol=1e-13)


def test_view_directions_turn_by_the_rotation_of_T():
    transform, pose = _transform(3), _pose(torch.Generator().manual_seed(4))
    intrinsics = torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]], dtype=torch.float64)
    _, world = camera_rays(pose, intrinsics, 12, 16)
    _, grid = camera_rays(transform.to_grid(pose), intrinsics, 12, 16)
    torch.testing.assert_close(world.double() @ transform.T[:3, :3].T, grid.double(), rtol=0, atol=1e-6)
    assert (world - grid).abs().max() > 0.5  # the rotation matters


def test_file_round_trip_and_same_bytes(tmp_path):
    transform = _transform(0)
    transform.save(tmp_path / "a.npz")
    transform.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = SceneTransform.load(tmp_path / "a.npz")
    assert torch.equal(loaded.T, transform.T) and torch.equal(loaded.pcd_mean, transform.pcd_mean)
    assert (loaded.scene_scale, loaded.frame_ids) == (0.17, ["0", "10"])
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["pcd_mean"].shape == (1, 3) and archive["scene_scale"].shape == ()


def test_pickled_frame_ids_are_not_opened(tmp_path, caplog):
    np.savez(tmp_path / "t.npz", T=np.eye(4), pcd_mean=np.zeros((1, 3)), scene_scale=np.array(0.5),
             frame_ids=np.array(["0", 1], dtype=object))  # fmt: skip
    assert SceneTransform.load(tmp_path / "t.npz").frame_ids == []
    assert "frame_ids are pickled objects" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"T": np.eye(4), "pcd_mean": np.zeros(3)}, "scene_scale"),
        ({"T": np.diag([2.0, 2, 2, 1]), "pcd_mean": np.zeros(3), "scene_scale": 1.0}, "not a rigid transform"),
        ({"T": np.eye(4), "pcd_mean": np.zeros(3), "scene_scale": 0.0}, "positive scale"),
        ({"T": np.array([None]), "pcd_mean": np.zeros(3), "scene_scale": 1.0}, "cannot be read as"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    np.savez(tmp_path / "t.npz", **content)
    with pytest.raises(UserError, match=message):
        SceneTransform.load(tmp_path / "t.npz")


def test_missing_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        SceneTransform.load(tmp_path / "t.npz")
    _transform(0).save(tmp_path / "t.npz")
    (tmp_path / "t.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:300])
    with pytest.raises(UserError, match="replace the file"):
        SceneTransform.load(tmp_path / "t.npz")

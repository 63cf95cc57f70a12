"""Camera geometry against the pinhole equations written out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.cameras import (
    camera_rays,
    look_at,
    project,
    ray_length_to_depth,
    rigid_inverse,
    scale_intrinsics,
    unproject,
)

INTRINSICS = torch.tensor([[500.0, 0.0, 310.0], [0.0, 480.0, 250.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def random_poses(count: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(count, 3, 3, generator=random, dtype=torch.float64))
    rotation = rotation * torch.linalg.det(rotation).sign()[:, None, None]
    pose = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    pose[:, :3, :3] = rotation
    pose[:, :3, 3] = torch.randn(count, 3, generator=random, dtype=torch.float64)
    return pose


def test_project_follows_the_pinhole_equations_with_y_down():
    pixel, depth = project(torch.tensor([0.2, 0.1, 2.0]).double(), INTRINSICS, torch.eye(4).double())
    assert pixel.tolist() == pytest.approx([500 * 0.1 + 310, 480 * 0.05 + 250])
    assert depth.item() == 2.0


@given(st.integers(0, 1000), st.floats(0.1, 20))
@settings(max_examples=30, deadline=None)
def test_unproject_inverts_project(seed, depth):
    pose = random_poses(1, seed)[0]
    uv = torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 600
    points = unproject(uv, torch.full((7,), depth, dtype=torch.float64), INTRINSICS, pose)
    pixel, back = project(points, INTRINSICS, pose)
    torch.testing.assert_close(pixel, uv, rtol=0, atol=1e-8)
    torch.testing.assert_close(back, torch.full_like(back, depth))


def test_unproject_honours_skew():
    skewed = INTRINSICS.clone()
    skewed[0, 1] = 3.0
    uv = torch.tensor([[12.5, 80.5]], dtype=torch.float64)
    points = unproject(uv, torch.tensor([2.0]).double(), skewed, torch.eye(4).double())
    assert torch.allclose(project(points, skewed, torch.eye(4).double())[0], uv)


def test_rays_pass_through_pixel_centres():
    poses = random_poses(3)
    origins, directions = camera_rays(poses, INTRINSICS, 5, 4)
    assert origins.shape == directions.shape == (3, 5, 4, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(3, 5, 4))
    points = origins.double() + 2.5 * directions.double()
    pixels, _ = project(points, INTRINSICS, poses[:, None, None])
    assert pixels[1, 3, 2].tolist() == pytest.approx([2.5, 3.5], abs=1e-3)


def test_one_intrinsics_matrix_per_camera():
    poses = random_poses(2)
    two = torch.stack((INTRINSICS, scale_intrinsics(INTRINSICS, (480, 640), (240, 320))))
    _, both = camera_rays(poses, two, 6, 8)
    _, second = camera_rays(poses[1], two[1], 6, 8)
    assert torch.equal(both[1], second)


def test_scaled_intrinsics_squeeze_each_axis_by_itself():
    scaled = scale_intrinsics(INTRINSICS, (968, 1296), (124, 124))
    assert scaled[0].tolist() == pytest.approx([500 * 124 / 1296, 0, 310 * 124 / 1296])
    assert scaled[1].tolist() == pytest.approx([0, 480 * 124 / 968, 250 * 124 / 968])
    assert scaled[2].tolist() == [0, 0, 1]


def test_rigid_inverse():
    poses = random_poses(4)
    torch.testing.assert_close(rigid_inverse(poses) @ poses, torch.eye(4, dtype=torch.float64).expand(4, 4, 4))


def test_look_at_faces_the_target_upright():
    eye, target = torch.tensor([1.0, 2.0, 1.5]).double(), torch.tensor([-1.0, 0.5, 0.3]).double()
    pose = look_at(eye, target)
    pixel, depth = project(target, INTRINSICS, pose)
    assert pixel.tolist() == pytest.approx([310, 250])
    assert depth.item() == pytest.approx(math.dist(eye.tolist(), target.tolist()))
    assert torch.linalg.det(pose[:3, :3]).item() == pytest.approx(1)
    above, _ = project(target + torch.tensor([0, 0, 0.1]).double(), INTRINSICS, pose)
    assert above[1] < 250 and above[0].item() == pytest.approx(310)


def test_look_at_straight_down_is_still_a_rotation():
    pose = look_at(torch.tensor([0.0, 0.0, 3.0]).double(), torch.zeros(3).double())
    torch.testing.assert_close(pose[:3, :3] @ pose[:3, :3].T, torch.eye(3).double())
    assert torch.linalg.det(pose[:3, :3]).item() == pytest.approx(1)


def test_ray_length_to_depth_is_the_distance_along_the_axis():
    origins, directions = camera_rays(torch.eye(4), INTRINSICS, 480, 640)
    depth = ray_length_to_depth(torch.full((480, 640), 3.0), INTRINSICS)
    torch.testing.assert_close(depth, 3.0 * directions[..., 2])

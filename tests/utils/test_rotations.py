"""Rotations against scipy and the matrix exponential."""

import torch
from scipy.spatial.transform import Rotation

from utils.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
)


def test_quaternions_have_w_first_and_agree_with_scipy():
    rotations = Rotation.random(20, random_state=0)
    for rotation in rotations:
        matrix = torch.from_numpy(rotation.as_matrix())
        wxyz = matrix_to_quaternion(matrix)
        assert wxyz[0] >= 0
        torch.testing.assert_close(quaternion_to_matrix(wxyz), matrix, atol=1e-12, rtol=0)
        torch.testing.assert_close(quaternion_to_matrix(-3 * wxyz), matrix, atol=1e-12, rtol=0)
    half_turn_about_z = quaternion_to_matrix([0, 0, 0, 1])
    torch.testing.assert_close(half_turn_about_z, torch.diag(torch.tensor([-1.0, -1, 1], dtype=torch.float64)))


def test_axis_angle_and_matrices_are_inverse():
    vectors = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).clamp(-1.7, 1.7)
    assert torch.allclose(matrix_to_axis_angle(axis_angle_to_matrix(vectors)), vectors, atol=1e-9)
    assert torch.equal(matrix_to_axis_angle(torch.eye(3)[None]), torch.zeros(1, 3))


def test_rotations_are_matrix_exponentials_of_any_angle():
    vectors = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    vectors = torch.cat((vectors * torch.logspace(-15, 0.5, 200, dtype=torch.float64)[:, None], torch.zeros(1, 3)))
    cross = torch.linalg.cross(vectors[:, None], torch.eye(3, dtype=torch.float64).expand(201, 3, 3)).mT
    assert torch.allclose(axis_angle_to_matrix(vectors), torch.linalg.matrix_exp(cross), atol=1e-14, rtol=0)

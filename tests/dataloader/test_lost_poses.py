"""A camera that tracking threw far away is left out and named; a long walk is not."""

import pytest
import torch

from dataloader.frame_checks import lost_poses


def _poses(centers):
    poses = torch.eye(4, dtype=torch.float64).repeat(len(centers), 1, 1)
    poses[:, :3, 3] = centers
    return {f"{k}": pose for k, pose in enumerate(poses)}


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_one_of_many_cameras_far_away_is_found_in_any_unit(unit):
    centers = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * unit
    centers[7] = 1e5 * unit
    assert list(lost_poses(_poses(centers))) == ["7"]
    assert "more than 100 times as far" in lost_poses(_poses(centers))["7"]


def test_walks_and_few_or_equal_cameras_are_left_alone():
    walk = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None] ** 4 * torch.tensor([80.0, 3.0, 0.0])
    assert not lost_poses(_poses(walk))
    assert not lost_poses(_poses(torch.zeros(20, 3, dtype=torch.float64)))
    assert not lost_poses(_poses(torch.tensor([[0.0, 0, 0], [0, 0, 1e-3], [1e6, 0, 0]], dtype=torch.float64)))

"""How much of a view no training camera saw."""

import math

import pytest
import torch

from model.fitting.unseen import TrainingViews
from model.visibility import was_in_view, was_looked_past, was_seen
from utils.cameras import pixel_grid, unproject

SIZE = (24, 32)
INTRINSICS = torch.tensor([[16.0, 0, 16], [0, 16, 12], [0, 0, 1]])  # 90 degrees across


def camera(x=0.0, z=0.0, turned=0.0):
    """A camera at (x, 0, z) that looks along z, turned around y."""
    pose = torch.eye(4)
    cosine, sine = math.cos(turned), math.sin(turned)
    pose[:3, :3] = torch.tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    pose[0, 3], pose[2, 3] = x, z
    return pose


def wall(distance=4.0):
    return torch.full(SIZE, distance)


def test_the_same_view_has_been_seen():
    views = TrainingViews(camera()[None], INTRINSICS, wall()[None])
    assert views.unseen(wall(), camera()) == 0
    assert views.unseen(wall(2.0), camera(z=2)) == 0, "from nearer the middle of the same wall"


def test_half_of_a_wall_was_outside_the_training_camera():
    views = TrainingViews(camera()[None], INTRINSICS, wall()[None])  # it saw x from -4 to 4
    assert views.unseen(wall(), camera(x=4)) == 0.5
    assert views.unseen(wall(), camera(x=6)) == 0.75
    other = TrainingViews(torch.stack((camera(), camera(x=6))), INTRINSICS, torch.stack((wall(), wall())))
    assert other.unseen(wall(), camera(x=6)) == 0, "one of them is enough"


def test_what_is_behind_others_surfaces_was_not_seen():
    views = TrainingViews(camera()[None], INTRINSICS, wall(4.0)[None])
    assert views.unseen(wall(3.0), camera()) == 0, "it was looked through"
    assert views.unseen(wall(5.0), camera()) == 1
    assert views.unseen(wall(4.1), camera()) == 0, "within the tolerance"


def test_emptiness_is_seen_where_another_camera_shows_it_in_that_direction():
    empty = torch.zeros(SIZE)
    views = TrainingViews(camera()[None], INTRINSICS, empty[None])
    assert views.unseen(empty, camera(x=100)) == 0, "it is infinitely far"
    assert TrainingViews(camera()[None], INTRINSICS, wall()[None]).unseen(empty, camera()) == 1, "a hole in a wall"
    assert views.unseen(empty, camera(turned=math.pi)) == 1
    turned = views.unseen(empty, camera(turned=math.pi / 4))
    assert 0.5 <= turned < 0.75, "its right half, and corners that are too high there"


def test_pixels_that_do_not_count():
    views = TrainingViews(camera()[None], INTRINSICS, wall()[None])
    valid = torch.zeros(SIZE, dtype=torch.bool)
    assert views.unseen(wall(), camera(x=4), valid) == 0, "nothing is missing"
    valid[:, :20] = True  # what this camera has in common is its left half: 16 columns
    assert views.unseen(wall(), camera(x=4), valid) == pytest.approx(4 / 20)


def test_points_and_directions_by_view():
    poses = torch.stack((camera(), camera(turned=math.pi)))
    depth = torch.stack((wall(), torch.zeros(SIZE)))
    points = unproject(pixel_grid(*SIZE).reshape(-1, 2), wall().flatten(), INTRINSICS, camera())
    seen = was_seen(points, poses, INTRINSICS.expand(2, 3, 3), depth, 0.01)
    assert seen[0].all() and not seen[1].any()
    nearer = was_in_view(0.5 * points, poses, INTRINSICS.expand(2, 3, 3), depth, 0.01)
    farther = was_in_view(-2 * points.abs() * torch.tensor([0.0, 0, 1]), poses, INTRINSICS.expand(2, 3, 3), depth, 0.01)
    assert nearer[0].all() and not nearer[1].any()
    assert not farther[0].any() and farther[1].all(), "nothing is before it there"
    past = was_looked_past(-points, poses, INTRINSICS.expand(2, 3, 3), depth)
    assert not past[0].any() and past[1].all()

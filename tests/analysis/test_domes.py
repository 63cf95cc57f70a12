"""Candidates, against the mistakes a dome can have: wrong pixel, wrong axis, an arc, its own heights, no roll."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.domes import DomeOptions, Trajectory, aim, draw_candidates, floor_height, roll_of, spherical
from analysis.instances import find_instances
from dataloader import Mesh
from tests.analysis.box_room import INTRINSICS, SIZE, camera_list, mesh, trajectory
from utils.cameras import look_at, project
from utils.labels import class_index

SINK = find_instances(mesh(), [class_index("sink")], 0.05, 0.05)[0]
OPTIONS = DomeOptions()
PLAIN = DomeOptions(spread=0.0, aim_noise=0.0, height_noise=0.0)


def rolled(poses, angles):
    """Poses turned about their optical axes."""
    turned = poses.clone()
    for pose, angle in zip(turned, angles, strict=True):
        c, s = math.cos(angle), math.sin(angle)
        pose[:3, :3] = pose[:3, :3] @ torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
    return turned


NEARBY = torch.zeros(2, 4, 4)  # depth maps without a surface


def draw(options=OPTIONS, count=400, originals=None, floor=0.0, seed=0, depth=NEARBY):
    path = Trajectory.of(originals or camera_list(trajectory()), depth, floor)
    return draw_candidates(SINK, path, options, count, np.random.default_rng(seed))


def test_the_point_appears_at_its_pixel_and_that_within_the_aim_noise():
    drawn = draw()
    uv, depth = project(drawn.points, drawn.intrinsics, drawn.camera_to_world)
    assert torch.allclose(uv, drawn.pixels, atol=1e-8) and (depth > 0).all()
    off = (drawn.pixels - INTRINSICS[:2, 2]) / torch.tensor([SIZE[1] / 2, SIZE[0] / 2])
    assert off.abs().max() <= 0.2 and (off.abs().amax(0) > 0.18).all() and off.mean(0).abs().max() < 0.02


def test_without_spread_the_centroid_is_aimed_at_and_with_it_points_on_the_way_to_the_surface():
    assert torch.allclose(draw(PLAIN).points, torch.from_numpy(SINK.centre).expand(400, 3))
    points = draw(replace(PLAIN, spread=1.0)).points.numpy()
    low, high = np.array([2.2, 1.7, 0.0]), np.array([2.8, 2.3, 0.9])
    inside = np.minimum(points - low, high - points)
    assert inside.min() > -1e-6 and np.abs(inside.min(axis=1)).max() < 1e-6
    half = draw(replace(PLAIN, spread=0.5)).points.numpy()
    assert np.allclose(half - SINK.centre, (points - SINK.centre) / 2)


def test_poses_are_rotations_and_rolls_are_those_of_the_trajectory():
    angles = [0.1, -0.2] * 6
    drawn = draw(PLAIN, originals=camera_list(rolled(trajectory(), angles)))
    rotation = drawn.camera_to_world[:, :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).double().expand(400, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(400).double())
    rolls = roll_of(drawn.camera_to_world)
    assert {round(float(roll), 6) for roll in rolls} == {0.1, -0.2}
    assert 120 < (rolls > 0).sum() < 280


def test_roll_is_the_turn_about_the_optical_axis_from_level():
    poses = rolled(look_at(torch.tensor([[1.0, 2.0, 1.5]] * 3).double(), torch.tensor([2.0, 2.5, 0.3]).double()),
                   [0.0, 0.3, -1.2])
    assert roll_of(poses).tolist() == pytest.approx([0.0, 0.3, -1.2], abs=1e-9)


def test_heights_are_those_of_the_trajectory_above_this_floor():
    poses = trajectory()
    poses[:, 2, 3] = torch.tensor([1.2, 1.6]).repeat(6)
    drawn = draw(replace(PLAIN, elevations=(-1.5, 1.5), share=(0.05, 0.06)), originals=camera_list(poses))
    assert {round(float(z), 6) for z in drawn.camera_to_world[:, 2, 3]} == {1.2, 1.6}
    noisy = draw(replace(PLAIN, elevations=(-1.5, 1.5), share=(0.05, 0.06), height_noise=0.1),
                 originals=camera_list(poses)).camera_to_world[:, 2, 3]
    nearest = torch.minimum((noisy - 1.2).abs(), (noisy - 1.6).abs())
    assert 0.08 < nearest.max() <= 0.1


def test_elevations_are_kept_where_the_height_cannot_be():
    drawn = draw(replace(PLAIN, elevations=(-0.1, 0.5)))
    elevation = spherical(drawn.camera_to_world[:, :3, 3] - drawn.points)[1]
    assert elevation.max() == pytest.approx(0.5) and elevation.min() >= -0.1 - 1e-9


def test_azimuths_go_all_around():
    azimuth = spherical(draw().camera_to_world[:, :3, 3] - draw().points)[0]
    quarters = torch.bincount(((azimuth + math.pi) / (math.pi / 2)).long().clamp(0, 3), minlength=4)
    assert quarters.min() > 70


def test_the_distance_makes_the_object_fill_its_share():
    drawn = draw(replace(PLAIN, share=(0.3, 0.3), elevations=(0.0, 0.0), radius_limits=(0.01, 99.0)))
    azimuth, _, radius = spherical(drawn.camera_to_world[:, :3, 3] - drawn.points)
    area = 0.6 * 0.9 * (azimuth.cos().abs() + azimuth.sin().abs())  # of a box of 0.6 x 0.6 x 0.9 m from the side
    assert torch.allclose(area * 50 * 50 / (radius**2 * 48 * 64), torch.full_like(area, 0.3), atol=1e-6)
    limited = draw(replace(PLAIN, radius_limits=(0.9, 1.0)))
    radius = (limited.camera_to_world[:, :3, 3] - limited.points).norm(dim=1)
    assert radius.min() >= 0.9 - 1e-9 and radius.max() <= 1.0 + 1e-9


def test_recorded_distances_are_taken_unless_the_object_would_fill_the_view():
    depth = torch.zeros(3, 4, 4)
    depth[0, :2], depth[0, 2:], depth[1] = 2.5, 9.0, 0.2  # a median of 2.5 or 9, one far too near, and no surface
    options = replace(PLAIN, distance="recorded", share=(0.01, 0.3), elevations=(0.0, 0.0), radius_limits=(0.01, 99.0))
    drawn = draw(options, depth=depth)
    azimuth, _, radius = spherical(drawn.camera_to_world[:, :3, 3] - drawn.points)
    far = radius > 2.4
    assert torch.allclose(radius[far], torch.full_like(radius[far], 2.5)) and 100 < far.sum() < 300
    area = 0.6 * 0.9 * (azimuth.cos().abs() + azimuth.sin().abs())
    share = area * 50 * 50 / (radius**2 * 48 * 64)
    assert torch.allclose(share[~far], torch.full_like(share[~far], 0.3), atol=1e-6) and share[far].max() < 0.3


def test_faces_inside_an_object_do_not_send_the_camera_away():
    triangle = torch.tensor([[2.2, 1.7, 0.1], [2.8, 1.7, 0.1], [2.8, 2.3, 0.1]])
    room = mesh()
    faces = torch.arange(180).reshape(-1, 3).int() + len(room.vertices)
    stuffed = Mesh(torch.cat((room.vertices, *[triangle] * 60)), torch.cat((room.faces, faces)), None,
                   torch.cat((room.labels, torch.full((180,), 34, dtype=torch.int32))))
    instance = find_instances(stuffed, [class_index("sink")], 0.05, 0.05)[0]
    level = replace(PLAIN, share=(0.3, 0.3), elevations=(1.2, 1.2), radius_limits=(0.01, 99.0))
    path = Trajectory.of(camera_list(trajectory()), NEARBY, 0.0)
    radius = [(drawn.camera_to_world[:, :3, 3] - drawn.points).norm(dim=1).max() for drawn in (
        draw(level), draw_candidates(instance, path, level, 400, np.random.default_rng(0)))]
    assert instance.area > 4 * SINK.area and radius[1] < 1.3 * radius[0]


def test_focal_lengths_are_those_of_the_trajectory():
    originals = camera_list(trajectory())
    originals.intrinsics[::2, 0, 0] = 60.0
    assert draw(originals=originals).intrinsics[:, 0, 0].unique().tolist() == [50.0, 60.0]


def test_the_stream_decides_and_a_longer_one_begins_the_same():
    assert torch.equal(draw(seed=3).camera_to_world, draw(seed=3).camera_to_world)
    assert not torch.equal(draw(seed=3).camera_to_world, draw(seed=4).camera_to_world)
    assert torch.equal(draw(count=50, seed=3).camera_to_world, draw(count=100, seed=3).camera_to_world[:50])


def test_aim_turns_a_level_camera_only_as_far_as_it_must():
    eye, point = torch.tensor([[0.0, 0.0, 1.0]]).double(), torch.tensor([[2.0, 0.0, 1.0]]).double()
    centre, zero = INTRINSICS[None, :2, 2], torch.zeros(1).double()
    assert torch.allclose(aim(eye, point, centre, INTRINSICS[None], zero), look_at(eye, point))
    right = aim(eye, point, centre + torch.tensor([[10.0, 0.0]]), INTRINSICS[None], zero)
    assert right[0, 2, 2] == pytest.approx(0) and right[0, 1, 2] == pytest.approx(math.sin(math.atan(0.2)))


def test_floor_height_comes_from_floor_vertices_else_from_the_lowest():
    vertices = torch.zeros(1000, 3)
    vertices[:, 2] = torch.linspace(0, 3, 1000)
    labels = torch.ones(1000, dtype=torch.int32)
    assert floor_height(vertices, labels) == pytest.approx(0.03, abs=0.004)
    labels[500:503] = 2
    assert floor_height(vertices, labels) == pytest.approx(float(vertices[501, 2]))
    assert floor_height(vertices, None) == pytest.approx(0.03, abs=0.004)

"""Domes, against the mistakes a dome can have: wrong point, wrong axis, aim before jitter, an arc, below the floor."""

import math

import gin
import numpy as np
import pytest
import torch

from analysis.domes import DomeOptions, dome_cameras, dome_poses, floor_height, halton, spherical
from analysis.targets import Target
from tests.analysis.box_room import SIZE, camera_list, pixel_of, trajectory
from utils.cameras import look_at
from utils.config import resolved_parameters
from utils.errors import UserError

TARGET = torch.tensor([2.5, 2.0, 0.9], dtype=torch.float64)
EYE = torch.tensor([4.0, 1.0, 1.5], dtype=torch.float64)


ONE_SHELL = {"radius_factors": (1.0,)}


def poses_of(options, floor=0.0, seed=0):
    return dome_poses(TARGET, EYE, options, floor, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", ["grid", "low_discrepancy"])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_every_camera_looks_at_the_target_after_jitter(layout, jitter):
    poses = poses_of(DomeOptions(layout=layout, jitter=jitter))
    for pose in poses:
        uv = pixel_of(TARGET, pose)
        assert torch.allclose(uv, torch.tensor([32.0, 24.0], dtype=torch.float64), atol=1e-9)
        assert (TARGET - pose[:3, 3]) @ pose[:3, 2] > 0


def test_jitter_moves_each_coordinate_by_at_most_its_size_and_all_of_them():
    exact, moved = poses_of(DomeOptions(jitter=0.0)), poses_of(DomeOptions(jitter=0.2))
    offset = (moved - exact)[:, :3, 3]
    assert offset.abs().max() <= 0.2
    assert (offset.std(0) > 0.05).all()


def test_images_are_upright_and_poses_are_rotations():
    for pose in poses_of(DomeOptions()):
        rotation = pose[:3, :3]
        assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
        assert torch.linalg.det(rotation) == pytest.approx(1)
        assert rotation[2, 1] < 0 and abs(rotation[2, 0]) < 1e-12  # y points down in the world, x is level


def test_the_grid_is_a_dome_not_an_arc():
    options = DomeOptions(azimuths=8, elevations=(0.2, 0.8), radius_factors=(0.8, 1.0), jitter=0.0, radius=1.5)
    azimuth, elevation, radius = spherical(poses_of(options)[:, :3, 3] - TARGET)
    assert len(azimuth) == 8 * 2 * 2
    triples = {tuple(round(x, 6) for x in t) for t in torch.stack((azimuth, elevation, radius), 1).tolist()}
    assert len(triples) == 32
    assert sorted({round(x, 6) for x in elevation.tolist()}) == [0.2, 0.8]
    assert sorted({round(x, 6) for x in radius.tolist()}) == [1.2, 1.5]
    gaps = np.diff(sorted({round(x, 6) for x in azimuth.tolist()}))
    assert np.allclose(gaps, 2 * math.pi / 8, atol=1e-5)


def test_azimuth_turns_about_the_vertical_axis_from_x_to_y():
    azimuth, elevation, radius = spherical(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 1.0]], dtype=torch.float64))
    assert azimuth.tolist() == pytest.approx([math.pi / 2, 0])
    assert elevation.tolist() == pytest.approx([0, math.pi / 4])
    assert radius.tolist() == pytest.approx([2, math.sqrt(2)])


def test_a_narrow_span_is_centred_on_the_original_view():
    options = DomeOptions(azimuths=5, azimuth_span=1.0, jitter=0.0, elevations=(0.3,), **ONE_SHELL)
    azimuth = spherical(poses_of(options)[:, :3, 3] - TARGET)[0]
    source = math.atan2(-1.0, 1.5)
    assert azimuth.mean() == pytest.approx(source)
    assert (azimuth - source).abs().max() == pytest.approx(0.4)


def test_the_radius_is_the_original_distance_within_limits():
    assert spherical(poses_of(DomeOptions(jitter=0.0, **ONE_SHELL))[:, :3, 3] - TARGET)[2].tolist() == pytest.approx(
        [math.sqrt(1.5**2 + 1 + 0.6**2)] * 30)
    near = poses_of(DomeOptions(jitter=0.0, radius_limits=(0.6, 1.0)))
    assert (near[:, :3, 3] - TARGET).norm(dim=1).max() == pytest.approx(1.0)


def test_low_discrepancy_fills_the_dome_evenly():
    options = DomeOptions(layout="low_discrepancy", num_views=64, jitter=0.0, elevations=(0.1, 1.0), radius=2.0,
                          **ONE_SHELL)
    azimuth, elevation, radius = spherical(poses_of(options)[:, :3, 3] - TARGET)
    quadrants = torch.bincount(((azimuth + math.pi) / (math.pi / 2)).floor().long().clamp(0, 3), minlength=4)
    assert quadrants.min() >= 14
    middle = (math.sin(0.1) + math.sin(1.0)) / 2  # half the dome's area lies above this height
    assert abs(int((elevation.sin() > middle).sum()) - 32) <= 2
    assert 0.1 <= elevation.min() and elevation.max() <= 1.0 and torch.allclose(radius, torch.tensor(2.0).double())


def test_halton_is_the_van_der_corput_sequence():
    assert halton(5, 2).tolist() == [0.5, 0.25, 0.75, 0.125, 0.625]
    assert halton(4, 3).tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 9, 4 / 9])


def test_cameras_stay_above_the_floor_and_are_aimed_from_there():
    options = DomeOptions(elevations=(-0.9, 0.2), floor_clearance=0.3, jitter=0.1)
    poses = poses_of(options, floor=0.5)
    assert poses[:, 2, 3].min() >= 0.8 - 1e-12
    assert torch.allclose(pixel_of(TARGET, poses[0]), torch.tensor([32.0, 24.0], dtype=torch.float64), atol=1e-9)


def test_an_unknown_layout_is_refused():
    with pytest.raises(UserError, match="DomeOptions.layout = 'arc' is unknown; use 'grid' or 'low_discrepancy'"):
        DomeOptions(layout="arc")
    gin.bind_parameter("DomeOptions.layout", "arc")  # before any work, also where no target qualifies
    with pytest.raises(UserError, match="DomeOptions.layout = 'arc'"):
        resolved_parameters(DomeOptions)
    gin.clear_config()


def test_floor_height_comes_from_floor_vertices_else_from_the_lowest():
    vertices = torch.zeros(1000, 3)
    vertices[:, 2] = torch.linspace(0, 3, 1000)
    labels = torch.ones(1000, dtype=torch.int32)
    assert floor_height(vertices, labels) == pytest.approx(0.03, abs=0.004)
    labels[500:503] = 2
    assert floor_height(vertices, labels) == pytest.approx(float(vertices[501, 2]))
    assert floor_height(vertices, None) == pytest.approx(0.03, abs=0.004)


def test_dome_cameras_carry_what_they_were_made_for_and_do_not_depend_on_each_other():
    originals = camera_list(look_at(EYE[None], TARGET[None]).expand(2, 4, 4).clone())
    sink = Target(18, TARGET, EYE, 0, "17", (30.5, 20.5), 0.4)
    targets = [sink, Target(16, TARGET + 1, EYE, 1, "3", (1.5, 2.5), 0.3)]
    both = dome_cameras(targets, originals, DomeOptions(**ONE_SHELL), 0.0, seed=5)
    again = dome_cameras(targets, originals, DomeOptions(**ONE_SHELL), 0.0, seed=5)
    first = dome_cameras(targets[:1], originals, DomeOptions(**ONE_SHELL), 0.0, seed=5)
    assert torch.equal(both.camera_to_world, again.camera_to_world)
    assert torch.equal(both.camera_to_world[:30], first.camera_to_world)
    assert not torch.equal(
        both.camera_to_world, dome_cameras(targets, originals, DomeOptions(**ONE_SHELL), 0.0, seed=6).camera_to_world)
    assert len(both) == 60 and len(set(both.names)) == 60 and both.image_size == SIZE
    info = both.info[31]
    assert (info["target_class"], info["target_class_index"], info["source_frame"]) == ("shower curtain", 16, "3")
    assert info["target_point"] == (TARGET + 1).tolist()
    azimuth, elevation, radius = spherical(both.camera_to_world[31, :3, 3] - TARGET - 1)
    assert (info["azimuth"], info["elevation"], info["radius"]) == pytest.approx(
        (float(azimuth), float(elevation), float(radius)))


def test_no_targets_give_an_empty_list():
    domes = dome_cameras([], camera_list(trajectory(2)), DomeOptions(), 0.0, seed=0)
    assert len(domes) == 0 and domes.camera_to_world.shape == (0, 4, 4)

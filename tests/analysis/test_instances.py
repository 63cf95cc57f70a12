"""Objects of a mesh: what belongs together, what is too small, and that the order of faces means nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.instances import find_instances
from analysis.surface_points import face_areas, spread_points
from dataloader import Mesh
from tests.analysis.box_room import OBJECTS, mesh
from utils.labels import class_index, label_set

SINK, TOILET, TABLE = (class_index(name) for name in ("sink", "toilet", "table"))


def squares(*offsets, name="sink", side=1.0):
    """A mesh of level squares at the given places, each with its own four vertices."""
    corners = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]) * side
    vertices = torch.cat([corners + torch.tensor(offset) for offset in offsets])
    faces = torch.cat([torch.tensor([[0, 1, 2], [0, 2, 3]]) + 4 * k for k in range(len(offsets))])
    labels = torch.full((len(vertices),), label_set().ids[class_index(name)], dtype=torch.int32)
    return Mesh(vertices.float(), faces.int(), None, labels)


def test_the_rooms_objects_are_found_with_their_areas_and_centres():
    found = find_instances(mesh(), [TOILET, SINK, TABLE], 0.05, 0.05)
    assert [instance.class_index for instance in found] == [TOILET, SINK, TABLE]
    for instance, name in zip(found, ("toilet", "sink", "table"), strict=True):
        low, high = next((np.array(a), np.array(b)) for n, a, b in OBJECTS if n == name)
        x, y, z = high - low
        assert instance.area == pytest.approx(2 * (x * y + y * z + z * x), rel=1e-5)
        assert instance.centre == pytest.approx((low + high) / 2, abs=1e-5)
        assert len(instance.faces) == 12


def test_squares_that_share_vertices_are_one_and_apart_are_two():
    strip = squares((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    joined = strip.faces.clone()
    joined[joined == 4], joined[joined == 7] = 1, 2  # the second square uses the first one's vertices
    assert len(find_instances(replace(strip, faces=joined), [SINK], 0.01, 0.0)) == 1
    assert len(find_instances(squares((0.0, 0.0, 0.0), (1.2, 0.0, 0.0)), [SINK], 0.1, 0.0)) == 2


@pytest.mark.parametrize(("gap", "count"), [(0.04, 1), (0.06, 2)])
def test_fragments_join_below_the_merge_distance(gap, count):
    assert len(find_instances(squares((0.0, 0.0, 0.0), (1.0 + gap, 0.0, 0.0)), [SINK], 0.05, 0.0)) == count


def test_joining_is_transitive_and_goes_by_surfaces_not_by_vertices():
    row = squares(*((1.04 * k, 0.0, 0.0) for k in range(4)))
    assert len(find_instances(row, [SINK], 0.05, 0.0)) == 1
    on_top = squares((0.0, 0.0, 0.0), (0.4, 0.4, 0.03), side=1.0)  # no corner is near another one
    assert len(find_instances(on_top, [SINK], 0.05, 0.0)) == 1


def test_small_ones_go_after_joining():
    pair = squares((0.0, 0.0, 0.0), (0.22, 0.0, 0.0), (3.0, 0.0, 0.0), side=0.2)
    found = find_instances(pair, [SINK], 0.05, 0.06)
    assert [instance.area for instance in found] == pytest.approx([0.08])
    assert len(find_instances(pair, [SINK], 0.05, 0.03)) == 2


def test_the_order_of_faces_changes_nothing_but_their_numbers():
    room = mesh()
    order = torch.randperm(len(room.faces), generator=torch.Generator().manual_seed(1))
    first = find_instances(room, [SINK, TABLE], 0.05, 0.05)
    second = find_instances(replace(room, faces=room.faces[order]), [SINK, TABLE], 0.05, 0.05)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.corners, b.corners) and np.array_equal(a.surface.points, b.surface.points)
        assert a.centre.tolist() == b.centre.tolist()
        assert np.array_equal(a.faces, order.numpy()[b.faces])


def test_spread_points_cover_the_surface_and_weigh_its_area():
    corners = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[2, 0, 0], [2.05, 0, 0], [2, 0.05, 0]]], float)
    spread = spread_points(corners, 0.1)
    assert spread.weight.sum() == pytest.approx(face_areas(corners).sum()) == pytest.approx(0.5 + 0.00125)
    random = np.random.default_rng(0).dirichlet((1, 1, 1), 500)
    anywhere = random @ corners[0]
    distance = np.linalg.norm(anywhere[:, None] - spread.points[None], axis=2).min(axis=1)
    assert distance.max() <= spread.reach
    assert (spread.face == 1).sum() == 3 and np.array_equal(spread.points[spread.face == 1], corners[1][[2, 1, 0]])


def test_no_object_gives_none():
    assert find_instances(mesh(), [class_index("bed")], 0.05, 0.05) == []

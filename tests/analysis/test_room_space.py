"""Where a camera can stand: in the room, not behind its window, not in its furniture."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.room_space import PLACE_REASONS, RoomSpace, SpaceOptions, sphere_directions
from dataloader import Mesh
from tests.analysis.box_room import OBJECTS, ROOM, mesh, trajectory
from utils.errors import UserError

CAMERAS = trajectory()[:, :3, 3].numpy()
OPTIONS = SpaceOptions()


def grid_wall(corner, right, up, steps, hole=None):
    """A rectangle of ``steps`` x ``steps`` squares; those whose (column, row) ``hole`` holds for are left out."""
    corner, right, up = (np.array(v, float) for v in (corner, right, up))
    vertices = [corner + right * i / steps + up * j / steps for i in range(steps + 1) for j in range(steps + 1)]
    faces = []
    for i in range(steps):
        for j in range(steps):
            if hole and hole(i, j):
                continue
            a, b, c, d = (p * (steps + 1) + q for p, q in ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)))
            faces += [[a, b, c], [a, c, d]]
    return vertices, faces


def windowed_room(ceiling=True):
    """A closed room of 4 x 4 x 2.5 m with a window of 1.6 x 1 m, and a shed far behind it that widens the bounds."""
    parts = [
        grid_wall((0, 0, 0), (4, 0, 0), (0, 4, 0), 10),
        grid_wall((0, 0, 0), (4, 0, 0), (0, 0, 2.5), 10),
        grid_wall((0, 4, 0), (4, 0, 0), (0, 0, 2.5), 10),
        grid_wall((0, 0, 0), (0, 4, 0), (0, 0, 2.5), 10),
        grid_wall((4, 0, 0), (0, 4, 0), (0, 0, 2.5), 10, lambda i, j: 3 <= i < 7 and 3 <= j < 7),
        grid_wall((9, 0, 0), (0, 4, 0), (0, 0, 2.5), 10),
        grid_wall((7.0, 0, 0), (2, 0, 0), (0, 4, 0), 10),
    ]
    if ceiling:
        parts.append(grid_wall((0, 0, 2.5), (4, 0, 0), (0, 4, 0), 10))
    vertices, faces = [], []
    for more, these in parts:
        faces += [[k + len(vertices) for k in face] for face in these]
        vertices += more
    return Mesh(torch.tensor(np.array(vertices)).float(), torch.tensor(faces).int(), None, None)


INSIDE = np.array([[1.0, 1.0, 1.5], [3.0, 3.0, 1.2], [2.0, 2.0, 1.0]])


def distance_to_surfaces(point):
    """Of a place in the box room, exactly."""
    walls = np.minimum(point - np.array(ROOM[0]), np.array(ROOM[1]) - point).min()
    boxes = [np.linalg.norm(point - point.clip(low, high)) for _, low, high in OBJECTS]
    return min(walls, *boxes)


def test_places_with_clearance_are_free_by_the_exact_distance():
    space = RoomSpace(mesh(), CAMERAS, OPTIONS)
    places = np.random.default_rng(0).uniform((-1, -1, -0.5), (6, 5, 3), (2000, 3))
    reasons = space.refuse(places)
    assert set(reasons) <= {"", *PLACE_REASONS}
    exact = np.array([distance_to_surfaces(place) for place in places])
    accepted = np.array([reason == "" for reason in reasons])
    assert accepted.sum() > 200
    assert exact[accepted].min() >= OPTIONS.clearance
    deep = exact > OPTIONS.clearance + OPTIONS.voxel  # within the sampling's reach of it, both are right
    assert accepted[deep].all()


def test_inside_of_furniture_is_unreachable():
    space = RoomSpace(mesh(), CAMERAS, replace(OPTIONS, clearance=0.0))
    assert space.refuse(np.array([[2.5, 2.0, 0.45], [0.45, 0.5, 0.35], [5.5, 2.0, 1.0]])) == ["unreachable"] * 3


@pytest.mark.parametrize("ceiling", [True, False])
def test_no_place_behind_a_window_is_accepted(ceiling):
    space = RoomSpace(windowed_room(ceiling), INSIDE, OPTIONS)
    behind = np.random.default_rng(1).uniform((4.3, 0.3, 0.3), (8.7, 3.7, 2.2), (1500, 3))
    assert space.reachable(behind).mean() > 0.9  # the window lets the flood out: the other tests must hold
    reasons = space.refuse(behind)
    assert "" not in reasons
    assert {"not_enclosed", "no_floor"} <= set(reasons)
    places = np.random.default_rng(2).uniform((0.4, 0.4, 0.5), (3.6, 3.6, 1.9), (300, 3))
    assert np.mean([reason == "" for reason in space.refuse(places)]) > 0.9


def test_a_scan_without_a_ceiling_asks_for_less_enclosure():
    closed, open_above = (RoomSpace(windowed_room(c), INSIDE, OPTIONS) for c in (True, False))
    assert closed.needed_enclosure[0] > 0.75 > open_above.needed_enclosure[0]
    assert closed.needed_enclosure[1] == 0.85 > open_above.needed_enclosure[1] > 0.7


def test_opaque_voxels_of_the_field_are_obstacles():
    floater = np.array([[1.0, 3.2, 1.4]])
    free, blocked = RoomSpace(mesh(), CAMERAS, OPTIONS), RoomSpace(mesh(), CAMERAS, OPTIONS, floater, 0.1)
    near = floater + np.array([[0.0, 0.0, 0.2]])
    assert free.refuse(near) == [""] and blocked.refuse(near) == ["no_clearance"]
    assert blocked.refuse(floater + np.array([[0.0, 0.0, 0.5]])) == [""]


def test_cameras_outside_the_scan_are_refused():
    with pytest.raises(UserError, match="none of the 12 recorded cameras stands in free space"):
        RoomSpace(mesh(), CAMERAS + 20, OPTIONS)


def test_directions_are_spread_evenly():
    directions = sphere_directions(64)
    assert np.allclose(np.linalg.norm(directions, axis=1), 1)
    assert np.abs(directions.mean(axis=0)).max() < 0.02
    assert np.allclose(directions.T @ directions / 64, np.eye(3) / 3, atol=0.02)


def test_the_order_of_faces_does_not_matter():
    room = mesh()
    places = np.random.default_rng(0).uniform((0, 0, 0), (5, 4, 2.5), (300, 3))
    again = RoomSpace(replace(room, faces=room.faces.flip(0)), CAMERAS, OPTIONS)
    assert RoomSpace(room, CAMERAS, OPTIONS).refuse(places) == again.refuse(places)

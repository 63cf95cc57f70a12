"""Surfaces that furniture is built from: orientation, size of cells, closedness."""

import numpy as np
import pytest

from dataloader.synthesis import geometry

EDGE = 0.06
SURFACES = {
    "rectangle": geometry.rectangle((1, 2, 3), (0.5, 0, 0), (0, 0.2, 0.3), EDGE),
    "box": geometry.box((0, 0, 0), (0.3, 0.5, 0.2), EDGE),
    "cushion": geometry.cushion((-0.3, -0.2, 0), (0.3, 0.2, 0.15), EDGE, 6.0),
    "tube": geometry.tube((0, 0, 0), (0.3, -0.2, 0.4), 0.1, EDGE, 0.05),
    "downward tube": geometry.tube((0, 0, 1), (0, 0, 0.4), 0.1, EDGE),
    "lathe": geometry.lathe([(0.1, 0.0), (0.15, 0.1), (0.12, 0.3)], (1, 1, 0), EDGE, (1.0, 0.7)),
    "disk": geometry.disk(geometry.curve_of(32, (0, 0, 1), 0.3, 0.2, 2.0), EDGE),
}


def _face_normals(surface):
    corners = surface.vertices[surface.faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


@pytest.mark.parametrize("name", SURFACES)
def test_winding_agrees_with_unit_normals(name):
    surface = SURFACES[name]
    cross = _face_normals(surface)
    large = np.linalg.norm(cross, axis=1) > 1e-7
    agreement = (cross[:, None] * surface.normals[surface.faces]).sum(axis=-1)[large]
    assert large.any() and (agreement > 0).all()
    assert np.allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("name", SURFACES)
def test_no_triangle_leg_is_longer_than_twice_the_edge(name):
    surface = SURFACES[name]
    corners = surface.vertices[surface.faces]
    legs = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)
    assert legs.max() <= 2 * EDGE


@pytest.mark.parametrize(("name", "volume"), [
    ("box", 0.3 * 0.5 * 0.2),
    ("tube", np.pi * 0.539 * (0.1**2 + 0.1 * 0.05 + 0.05**2) / 3),
])
def test_solids_are_closed_and_face_outwards(name, volume):
    surface = SURFACES[name]
    corners = surface.vertices[surface.faces]
    enclosed = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert enclosed == pytest.approx(volume, rel=0.05)  # a tube's circle is a polygon


def test_a_cushion_stays_in_its_box_and_reaches_it():
    surface = SURFACES["cushion"]
    assert np.allclose(surface.vertices.min(axis=0), (-0.3, -0.2, 0), atol=0.005)
    assert np.allclose(surface.vertices.max(axis=0), (0.3, 0.2, 0.15), atol=0.005)


def test_rectangle_texture_is_in_metres_from_the_centre():
    surface = SURFACES["rectangle"]
    assert np.allclose(surface.uv.min(axis=0), (-0.25, -np.hypot(0.2, 0.3) / 2))
    assert np.allclose(surface.uv.max(axis=0), (0.25, np.hypot(0.2, 0.3) / 2))


def test_moving_turns_vertices_and_normals_alike():
    box = SURFACES["box"]
    moved = box.moved(geometry.axis_rotation(2, np.pi / 2), (0, 0, 1))
    assert np.allclose(moved.vertices, box.vertices[:, [1, 0, 2]] * (-1, 1, 1) + (0, 0, 1))
    assert np.allclose(moved.normals, box.normals[:, [1, 0, 2]] * (-1, 1, 1))

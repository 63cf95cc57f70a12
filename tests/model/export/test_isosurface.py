"""The surface of fields whose shape is known: where it is, closed, and the right way round."""

import importlib.util

import numpy as np
import pytest
import torch

from model import PlenoxelGrid
from model.export import isosurface
from model.export.isosurface import drop_specks, extract_surface, vertex_normals
from tests.model.export.shapes import ball, box, field_of, open_edges, volume
from utils.errors import UserError

pytest.importorskip("skimage", reason="needs the extra mesh")
CENTER, RADIUS = (0.05, -0.02, 0.01), 0.7


def distances(surface):
    """How far vertices are outside of the ball."""
    return np.linalg.norm(surface.vertices - np.array(CENTER), axis=1) - RADIUS


def test_a_ball_in_several_bricks():
    surface = extract_surface(field_of(ball(RADIUS, CENTER), 70), 0.5)
    assert np.abs(distances(surface)).max() < 0.5 * 2 / 70  # half a voxel
    assert open_edges(surface.faces) == 0
    assert volume(*surface) == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.01)
    assert len(np.unique(surface.faces)) == len(surface.vertices) == 2 + len(surface.faces) // 2  # Euler, no hole


def test_a_box_that_ends_at_the_grids_border():
    low, high = (-0.6, -0.3, -0.9), (0.3, 1.0, 0.5)
    surface = extract_surface(field_of(box(low, high), 40), 0.5)
    np.testing.assert_allclose(surface.vertices.min(0), low, atol=1e-3)  # faces lie between voxels, as the box's do
    np.testing.assert_allclose(surface.vertices.max(0), high, atol=1e-3)
    assert open_edges(surface.faces) == 0 and volume(*surface) == pytest.approx(0.9 * 1.3 * 1.4, rel=0.01)


@pytest.mark.parametrize("voxels_of", [0, 1, 2])
def test_nested_grids_have_one_closed_surface(voxels_of):
    """A ball through all three grids of 16, whose voxels are 1/32, 1/16 and 1/8 wide."""
    grid = field_of(ball(RADIUS, CENTER), 16, levels=3)
    surface = extract_surface(grid, 0.5, voxels_of)
    assert open_edges(surface.faces) == 0
    assert np.abs(distances(surface)).max() < 0.5 / 8
    assert volume(*surface) == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.03)
    edges = surface.vertices[surface.faces[:, 0]] - surface.vertices[surface.faces[:, 1]]
    assert np.abs(edges).max() < 1.001 * 2.0**voxels_of / 32


def test_small_things_in_the_innermost_grid_are_as_exact_as_its_voxels():
    grid = field_of(ball(0.15, (0.01, 0.02, 0.03)), 16, levels=3)
    surface = extract_surface(grid, 0.5)
    distance = np.linalg.norm(surface.vertices - [0.01, 0.02, 0.03], axis=1) - 0.15
    assert np.abs(distance).max() < 0.5 / 32 and open_edges(surface.faces) == 0


def test_bricks_make_no_difference(monkeypatch):
    grid = field_of(lambda points: (points * 7).sin().sum(-1) > 0.3, 24)
    whole = extract_surface(grid, 0.5)
    monkeypatch.setattr(isosurface, "_BRICK", 5)
    parts = extract_surface(grid, 0.5)
    assert len(parts.faces) == len(whole.faces) and open_edges(parts.faces) == 0
    np.testing.assert_allclose(parts.vertices, whole.vertices, atol=1e-6)  # both in the order of their edges
    assert volume(*parts) == pytest.approx(volume(*whole), rel=1e-6)


def test_random_opacities_leave_no_hole():
    generator = torch.Generator().manual_seed(0)
    density = torch.rand(12**3, generator=generator) * 8
    grid = PlenoxelGrid.from_sparse((12,) * 3, torch.arange(12**3), density, torch.zeros(12**3, 27))
    surface = extract_surface(grid, 0.5)
    assert len(surface.faces) > 2000
    edges = np.concatenate((surface.faces[:, :2], surface.faces[:, 1:], surface.faces[:, ::2][:, ::-1]))
    key, opposite = edges[:, 0] * 10**6 + edges[:, 1], edges[:, 1] * 10**6 + edges[:, 0]
    assert np.array_equal(np.sort(key), np.sort(opposite))  # as often in one direction as in the other


def test_the_level_is_met_between_voxels():
    """A slab of opacity 0.8 beside nothing: at level 0.2 the surface is 0.75 voxels beyond the last middle."""
    mask = torch.zeros(8, 8, 8, dtype=torch.bool)
    mask[:4] = True
    density = torch.full((256,), -np.log(0.2) / 0.25)  # voxels are 0.25 wide
    grid = PlenoxelGrid.from_mask(mask, density.float(), torch.zeros(256, 27))
    surface = extract_surface(grid, 0.2)
    assert surface.vertices[:, 0].max() == pytest.approx((3.5 + 0.75) * 0.25 - 1, abs=1e-6)


def test_specks_are_dropped_and_counted():
    small = ball(0.08, (0.8, 0.8, 0.8))
    surface = extract_surface(field_of(lambda points: ball(0.4)(points) | small(points), 32), 0.5)
    kept, dropped = drop_specks(surface, 200)
    assert dropped == 1 and np.linalg.norm(kept.vertices, axis=1).max() < 0.4 + 1 / 32
    assert len(np.unique(kept.faces)) == len(kept.vertices) and open_edges(kept.faces) == 0
    assert drop_specks(surface, 0)[1] == 0
    nothing, all_of_them = drop_specks(surface, 10**6)
    assert all_of_them == 2 and len(nothing.faces) == len(nothing.vertices) == 0


def test_normals_point_outwards():
    vertices, faces = extract_surface(field_of(box((-0.6, -0.3, -0.9), (0.3, 0.7, 0.5)), 40), 0.5)
    normals = vertex_normals(vertices, faces)
    inner = (np.abs(vertices - [-0.15, 0.2, -0.2]) < [0.3, 0.4, 0.6]).sum(1) == 2  # of a side, away from its edges
    side = np.abs(vertices[inner] - [-0.15, 0.2, -0.2]) / [0.45, 0.5, 0.7] > 0.9
    expected = np.where(side, np.sign(vertices[inner] - [-0.15, 0.2, -0.2]), 0)
    assert len(expected) > 1000
    np.testing.assert_allclose(normals[inner], expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_nothing_opaque_is_no_surface():
    grid = field_of(ball(0.5), 16)
    thin = grid.replace(density=torch.full_like(grid.density, 0.1))
    surface = extract_surface(thin, 0.5)
    assert surface.vertices.shape == (0, 3) and surface.faces.shape == (0, 3)
    with pytest.raises(UserError, match="voxels_of = 1: the field has 1 nested grids"):
        extract_surface(grid, 0.5, 1)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install scikit-image"):
        extract_surface(field_of(ball(0.5), 16), 0.5)

"""Meshes and points as they are written: places, colours, normals and labels in the world."""

import math

import numpy as np
import pytest
import torch

from dataloader import CameraList, SceneTransform, load_mesh
from dataloader.ply import read_ply
from lib.plenoxel.options import RenderOptions
from model import RadianceField
from model.export.colors import see_voxels, voxel_colors
from model.export.geometry import point_normals, visible_points, write_mesh, write_points
from model.export.options import MeshOptions, PointOptions
from model.semantic_field import SemanticField
from tests.model.export.shapes import ball, field_of, open_edges, volume
from utils.cameras import look_at
from utils.errors import UserError
from utils.labels import label_set

RADIUS = 0.6
TURN = torch.tensor([[0.0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1]])
TRANSFORM = SceneTransform(TURN, torch.tensor([0.5, 0.25, 0.125]), 0.5)  # a metre is half a unit of the grid
MIDDLE = TRANSFORM.points_from_grid(torch.zeros(3).double()).numpy()


def red_above(points):
    """Red where z is above 0, else blue."""
    up = points[:, 2] > 0
    return torch.stack((up, torch.zeros_like(up), ~up), dim=-1) * 0.8 + 0.1


def colored(levels=1, resolution=32):
    return RadianceField(field_of(ball(RADIUS), resolution, levels, color=red_above), TRANSFORM)


def cameras_around(count=8, size=(48, 64)):
    """Around the ball, two metres from its middle and above it: half of the ball is seen from no camera."""
    angle = torch.arange(count) * (2 * math.pi / count)
    middle = torch.from_numpy(MIDDLE)
    eye = torch.stack((1.5 * angle.cos(), 1.5 * angle.sin(), torch.full((count,), 2.5)), dim=-1).double() + middle
    intrinsics = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
    names = [str(number) for number in range(count)]
    return CameraList("ball", names, look_at(eye, middle.expand_as(eye)), intrinsics, size)


@pytest.mark.parametrize("levels", [1, 2])
def test_a_mesh_is_in_metres_and_has_the_voxels_colours(tmp_path, levels):
    pytest.importorskip("skimage", reason="needs the extra mesh")
    field = colored(levels)
    figures = write_mesh(tmp_path / "mesh.ply", field, MeshOptions(opacity=0.5), voxel_colors(field.grid))
    mesh = load_mesh(tmp_path / "mesh.ply")
    vertices, faces = mesh.vertices.double().numpy(), mesh.faces.numpy()
    assert figures == {"vertices": len(vertices), "faces": len(faces), "specks_dropped": 0}
    voxel = 2 / 32 / TRANSFORM.scene_scale
    assert np.abs(np.linalg.norm(vertices - MIDDLE, axis=1) - RADIUS / 0.5).max() < voxel / 2
    assert open_edges(faces) == 0
    assert volume(vertices - MIDDLE, faces) == pytest.approx(4 / 3 * math.pi * 1.2**3, rel=0.03)
    up, colors = vertices[:, 2] - MIDDLE[2], mesh.colors.int()
    assert (colors[up > voxel] - torch.tensor([230, 26, 26])).abs().max() <= 1  # 0.9 and 0.1 of 255
    assert (colors[up < -voxel] - torch.tensor([26, 26, 230])).abs().max() <= 1
    columns = read_ply(tmp_path / "mesh.ply")["vertex"]
    normals = np.stack([columns[f"n{axis}"] for axis in "xyz"], axis=1)
    outward = (vertices - MIDDLE) / np.linalg.norm(vertices - MIDDLE, axis=1, keepdims=True)
    assert (normals * outward).sum(1).min() > 0.3 and (normals * outward).sum(1).mean() > 0.95


def test_what_no_camera_sees_is_dropped(tmp_path):
    """Cameras are above the ball's middle: of the surface, what is below their tangents goes, and nothing else."""
    pytest.importorskip("skimage", reason="needs the extra mesh")
    field = colored()
    seen = see_voxels(field, cameras_around(), RenderOptions())
    whole = write_mesh(tmp_path / "whole.ply", field, MeshOptions(), voxel_colors(field.grid), seen)
    part = write_mesh(tmp_path / "part.ply", field, MeshOptions(weight=0.05), voxel_colors(field.grid), seen)
    z = load_mesh(tmp_path / "part.ply").vertices[:, 2].double().numpy() - MIDDLE[2]
    all_z = load_mesh(tmp_path / "whole.ply").vertices[:, 2].double().numpy() - MIDDLE[2]
    assert all_z.min() < -1.1 and -0.95 < z.min() < 0 and z.max() == all_z.max()
    assert 0.5 * whole["faces"] < part["faces"] < 0.95 * whole["faces"]
    assert (z > 0.3).sum() == (all_z > 0.3).sum()


def test_points_are_the_voxels_that_cameras_see(tmp_path):
    field, options = colored(), PointOptions(0.1)
    seen = see_voxels(field, cameras_around(), RenderOptions())
    figures = write_points(tmp_path / "points.ply", field, options, seen.weight, voxel_colors(field.grid, seen))
    columns = read_ply(tmp_path / "points.ply")["vertex"]
    places = np.stack([columns[axis] for axis in "xyz"], axis=1) - MIDDLE
    assert figures == {"points": len(places)} and 300 < len(places) < field.grid.num_voxels / 4
    distance, voxel = np.linalg.norm(places, axis=1), 2 / 32 / 0.5
    assert distance.max() < 1.2 and distance.min() > 1.2 - 2 * voxel  # the outermost layers only
    # The ball hides what is below the tangents from the cameras: a cap of 114 degrees around each camera's side.
    assert places[:, 2].min() > -0.9 and places[:, 2].max() > 1.2 - voxel
    assert columns["opacity"].min() > 0.999 and columns["weight"].min() >= np.float32(0.1)
    up = places[:, 2] > 0
    assert columns["red"][up].min() >= 229 and columns["blue"][~up].min() >= 229  # 0.9 of 255, rounded
    normals = np.stack([columns[f"n{axis}"] for axis in "xyz"], axis=1)
    known = np.linalg.norm(normals, axis=1) > 0.5  # voxels in the middle of others have none
    cosine = (normals * places / distance[:, None]).sum(1)[known]
    assert known.mean() > 0.95 and cosine.min() > 0 and cosine.mean() > 0.9
    same = visible_points(field, options, seen.weight, voxel_colors(field.grid, seen))
    np.testing.assert_allclose(same.positions.numpy() - MIDDLE.astype(np.float32), places, atol=1e-6)
    assert np.array_equal(same.colors[:, 0].numpy(), columns["red"])


def test_normals_of_a_nested_fields_voxels():
    field = colored(levels=3, resolution=16)
    centers = field.grid.voxel_centers()
    rows = ((centers.norm(dim=-1) - 0.5).abs() < 0.1).nonzero()[:, 0]  # below the ball's surface
    surface = ((centers.norm(dim=-1) > RADIUS - 0.125) & (centers.abs().amax(-1) > 0.5)).nonzero()[:, 0]
    normals = point_normals(field, surface)
    outward = (centers[surface].double() @ TURN[:3, :3].double()).numpy()  # into the world's axes
    assert len(surface) > 20 and len(rows) > 20 and ((normals * outward).sum(1) > 0).mean() > 0.95


def test_colours_as_cameras_see_them_follow_the_directions_they_look_in():
    """Red is 0.5 + 0.4 z of the direction of the ray: cameras look down, the mean over all directions is grey."""
    grid = field_of(ball(RADIUS), 24)
    sh = torch.zeros_like(grid.sh)
    sh[:, 2] = 0.4 / 0.48860251
    field = RadianceField(grid.replace(sh=sh), SceneTransform.identity())
    middle = torch.zeros(1, 3).double()
    above = look_at(torch.tensor([[0.0, 0.0, 30.0]]).double(), middle)
    intrinsics = torch.tensor([[600.0, 0, 16], [0, 600, 16], [0, 0, 1]])
    seen = see_voxels(field, CameraList("ball", ["0"], above, intrinsics, (32, 32)), RenderOptions())
    colors = voxel_colors(field.grid, seen)
    visible = seen.weight > 0.5
    assert visible.sum() > 100
    torch.testing.assert_close(colors[visible][:, 0], torch.full((int(visible.sum()),), 0.1), atol=2e-3, rtol=0)
    assert (colors[seen.weight == 0] == 0.5).all() and (seen.weight == 0).sum() > 1000
    assert (voxel_colors(field.grid) == 0.5).all()


def test_fused_classes_are_labels_and_colours(tmp_path):
    pytest.importorskip("skimage", reason="needs the extra mesh")
    field = colored()
    names = label_set().names
    wall, floor = names.index("wall"), names.index("floor")
    up = field.grid.voxel_centers()[:, 2] > 0
    probabilities = torch.zeros(field.grid.num_voxels, len(names))
    probabilities[up, wall], probabilities[~up, floor] = 0.9, 0.8
    semantic = SemanticField(probabilities, *torch.ones(2, field.grid.num_voxels))
    write_mesh(tmp_path / "mesh.ply", field, MeshOptions(), torch.zeros(0, 3), None, semantic)
    mesh = load_mesh(tmp_path / "mesh.ply", require_labels=True)
    above = mesh.vertices[:, 2] > MIDDLE[2] + 0.07
    below = mesh.vertices[:, 2] < MIDDLE[2] - 0.07
    assert (mesh.labels[above] == 1).all() and (mesh.labels[below] == 2).all()  # NYU40's ids
    assert (mesh.colors[above].numpy() == label_set().colors[wall]).all()
    weight = torch.ones(field.grid.num_voxels)
    write_points(tmp_path / "points.ply", field, PointOptions(), weight, torch.zeros(0, 3), semantic)
    columns = read_ply(tmp_path / "points.ply")["vertex"]
    assert np.array_equal(columns["label"] == 1, columns["z"] > MIDDLE[2])


def test_fields_without_surface_are_refused(tmp_path):
    pytest.importorskip("skimage", reason="needs the extra mesh")
    field = colored()
    thin = RadianceField(field.grid.replace(density=torch.full_like(field.grid.density, 1.6)), TRANSFORM)
    with pytest.raises(UserError, match="most opaque voxel has opacity 0.0952, and MeshOptions.opacity is 0.3"):
        write_mesh(tmp_path / "mesh.ply", thin, MeshOptions(), voxel_colors(thin.grid))
    with pytest.raises(UserError, match="all 1 connected parts of the surface that is left have fewer than"):
        write_mesh(tmp_path / "mesh.ply", field, MeshOptions(least_faces=10**6), voxel_colors(field.grid))
    with pytest.raises(UserError, match="no visible voxel: the largest rendering weight is 0.05"):
        write_points(tmp_path / "p.ply", field, PointOptions(), torch.full((field.grid.num_voxels,), 0.05), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same(tmp_path):
    pytest.importorskip("skimage", reason="needs the extra mesh")
    field = colored(levels=2)
    for device in ("cpu", "cuda"):
        moved = field.to(device)
        seen = see_voxels(moved, cameras_around(), RenderOptions())
        write_mesh(tmp_path / f"{device}.ply", moved, MeshOptions(weight=0.05), voxel_colors(moved.grid, seen), seen)
        write_points(tmp_path / f"{device}_points.ply", moved, PointOptions(), seen.weight,
                     voxel_colors(moved.grid, seen))  # fmt: skip
    cpu, cuda = (load_mesh(tmp_path / f"{device}.ply") for device in ("cpu", "cuda"))
    torch.testing.assert_close(cpu.vertices, cuda.vertices, atol=1e-4, rtol=0)
    assert torch.equal(cpu.faces, cuda.faces)
    assert (cpu.colors.int() - cuda.colors.int()).abs().max() <= 2

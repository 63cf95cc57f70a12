"""Ray tracing, and views through lenses: against the reference, the rasterizer, and Intel Embree."""

import pytest
import torch

from benchmarks.room_mesh import room_cameras, room_mesh
from lib.raster import RayTree, rasterize
from lib.raster.tracing import _load_library
from tests.lib.raster_scenes import (
    OCTAHEDRON,
    embree_hits,
    intrinsics,
    octahedron,
    random_cameras,
    random_soup,
)  # fmt: skip
from utils.cameras import camera_rays, ray_length_to_depth, rigid_inverse, seen_pixels
from utils.lenses import FISHEYE, Lens

FISH = Lens(FISHEYE, (-0.02, 0.004, -0.003, 4e-4))
BARREL = Lens(radial=(-0.2, 0.05, 0.0, 0.0), tangential=(2e-3, -1e-3))
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def random_rays(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, 3, generator=generator, dtype=torch.float64),
            torch.randn(count, 3, generator=generator, dtype=torch.float64))  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_faces", [1, 5, 300])
def test_the_tree_finds_what_the_reference_finds(num_faces, device):
    vertices, faces = random_soup(60, num_faces, seed=num_faces)
    tree = RayTree(vertices.to(device), faces.to(device))
    origins, directions = (values.to(device) for values in random_rays(2000))
    found = tree.trace(origins, directions, 0.05)
    expected = tree.trace(origins, directions, 0.05, backend="reference")
    assert torch.equal(found.face, expected.face)
    torch.testing.assert_close(found.depth, expected.depth, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.barycentric, expected.barycentric, rtol=0, atol=1e-5)
    hit = found.face >= 0
    corners = vertices.to(device)[faces.to(device).long()[found.face[hit].long()]]
    points = (found.barycentric[hit][..., None] * corners).sum(1)
    reached = (origins + directions * found.depth[:, None].double()).float()[hit]
    torch.testing.assert_close(points, reached, rtol=0, atol=1e-4)


def test_no_ray_slips_between_faces():
    """Rays through vertices and along edges of a closed mesh, and along its axes, where the boxes' faces are."""
    vertices = octahedron(torch.tensor([1.0, 1.5, 0.7, 2.0, 1.1, 0.9]))
    weights = torch.rand(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    corners = vertices.double()[OCTAHEDRON.long()]
    on_edges = (weights[None] * corners[:, None, 0] + (1 - weights[None]) * corners[:, None, 1]).reshape(-1, 3)
    directions = torch.cat((on_edges, vertices.double(), -vertices.double() * torch.tensor([1.0, -0.0, 1.0])))
    directions = directions[directions.norm(dim=1) > 0]
    found = RayTree(vertices, OCTAHEDRON).trace(torch.zeros_like(directions), directions, 1e-3)
    assert (found.face >= 0).all()


def test_equal_depth_goes_to_the_smaller_index_and_near_hides():
    vertices = torch.tensor([[-1.0, -1, 2], [1, -1, 2], [0, 1, 2], [-1, -1, 1], [1, -1, 1], [0, 1, 1]])
    faces = torch.tensor([[0, 1, 2], [2, 1, 0], [3, 4, 5]])
    ray = torch.tensor([[0.0, 0, 0]]), torch.tensor([[0.0, 0, 0.5]])
    tree = RayTree(vertices, faces)
    assert (int(tree.trace(*ray, 0.1).face), float(tree.trace(*ray, 0.1).depth)) == (2, 2.0)
    assert (int(tree.trace(*ray, 2.1).face), float(tree.trace(*ray, 2.1).depth)) == (0, 4.0)
    assert int(tree.trace(*ray, 4.1).face) == -1


def test_what_is_no_face_shows_nothing():
    vertices = torch.tensor([[0.0, 0, 1], [1, 0, 1], [0, 1, 1], [torch.nan, 0, 1]])
    tree = RayTree(vertices, torch.tensor([[0, 1, 3], [0, 0, 1]]))
    assert int(tree.trace(torch.zeros(1, 3), torch.tensor([[0.1, 0.1, 1.0]]), 0.1).face) == -1
    assert int(RayTree(vertices, torch.zeros(0, 3).int()).trace(torch.zeros(1, 3), torch.ones(1, 3), 0.1).face) == -1
    with pytest.raises(IndexError, match="face 1 names a vertex"):
        RayTree(vertices, torch.tensor([[0, 1, 2], [0, 1, 9]]))


def test_opcheck():
    _load_library()
    vertices, faces = random_soup(30, 40, seed=3)
    nodes, order, _ = torch.ops.raster.build_tree(vertices, faces)
    torch.library.opcheck(torch.ops.raster.trace, (vertices, faces, nodes, order, *random_rays(20), 0.1),
                          test_utils=("test_schema", "test_faketensor"))  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
def test_a_lens_that_does_nothing_shows_what_a_pinhole_shows(device):
    vertices, faces = (values.to(device) for values in random_soup(80, 200, seed=5))
    cameras, k = random_cameras(3, seed=6), intrinsics(40, 56, 3)
    plain = rasterize(vertices, faces, cameras, k, 40, 56)
    traced = rasterize(vertices, faces, cameras, k, 40, 56, lens=Lens())
    same = plain.face == traced.face
    assert same.double().mean() > 0.998  # the rasterizer rounds vertices to float32 of image positions
    torch.testing.assert_close(traced.depth[same], plain.depth[same], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lens", [FISH, BARREL])
def test_views_through_lenses_are_what_embree_traces(lens):
    pytest.importorskip("embreex")
    vertices, faces = room_mesh(20_000)
    size, views = (150, 200), 3
    k = torch.tensor([[[60.0, 0, 99], [0, 61, 76], [0, 0, 1]]], dtype=torch.float64).repeat(views, 1, 1)
    poses = rigid_inverse(room_cameras(views)).double()
    shown = rasterize(vertices, faces, rigid_inverse(poses), k, *size, near=1e-3, lens=lens)
    seen = seen_pixels(k[0], size, lens)
    assert (shown.face[:, ~seen] == -1).all() and (shown.depth[:, ~seen] == 0).all()
    for view in range(views):
        origins, directions = camera_rays(poses[view], k[view], *size, lens)
        face, distance = embree_hits(vertices, faces, origins[seen], directions[seen])
        same = face == shown.face[view][seen]
        assert same.double().mean() > 0.9995  # Embree's rays are float32: some pass on the other side of an edge
        full = torch.zeros(size, dtype=torch.float64)
        full[seen] = distance
        depth = ray_length_to_depth(full, k[view], lens)[seen]
        error = ((depth - shown.depth[view][seen]).abs() / depth)[same & (face >= 0)]
        assert error.max() < 1e-4


def test_lens_and_several_meshes_are_refused():
    vertices, faces = random_soup(10, 4, seed=0)
    offsets = {"mesh_index": torch.zeros(1).long(), "vertex_offsets": torch.tensor([0, 10]),
               "face_offsets": torch.tensor([0, 4])}  # fmt: skip
    with pytest.raises(ValueError, match="one mesh a call"):
        rasterize(vertices, faces, random_cameras(1, 0), intrinsics(8, 8), 8, 8, lens=FISH, **offsets)

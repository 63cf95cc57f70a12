"""The rasterizer's op against its plain reference, and its arguments."""

import pytest
import torch

from lib.raster import pack_meshes, rasterize
from lib.raster.ops import _load_library
from tests.lib.raster_scenes import intrinsics, random_cameras, random_soup

_load_library()


def assert_same(found, expected):
    assert torch.equal(found.face, expected.face)
    torch.testing.assert_close(found.depth, expected.depth, rtol=2e-7, atol=0)
    torch.testing.assert_close(found.barycentric, expected.barycentric, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (23, 1), (37, 53), (64, 64)])
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_reference(height, width, index_dtype):
    vertices, faces = random_soup(40, 60, seed=height * width)
    cameras, k = random_cameras(3, seed=7), intrinsics(height, width, 3, skew=2.0)
    arguments = (vertices, faces.to(index_dtype), cameras, k, height, width)
    assert_same(rasterize(*arguments), rasterize(*arguments, backend="reference"))


@pytest.mark.parametrize("near", [1e-4, 0.3, 1.5])
def test_reference_near(near):
    vertices, faces = random_soup(60, 90, seed=3)
    arguments = (vertices, faces, random_cameras(4, seed=1), intrinsics(40, 30, 4), 40, 30, near)
    found = rasterize(*arguments)
    assert_same(found, rasterize(*arguments, backend="reference"))
    assert found.depth[found.face >= 0].min() >= near * (1 - 1e-6)


def test_barycentric_is_the_hit_point():
    """Weights are those in space, not on the image plane: they bring the vertices back to the pixel's ray."""
    vertices, faces = random_soup(30, 20, seed=5)
    camera, k = random_cameras(1, seed=2), intrinsics(50, 60)
    frags = rasterize(vertices, faces, camera, k, 50, 60)
    hit = frags.face[0] >= 0
    corners = vertices[faces[frags.face[0][hit]].long()].double()
    points = (frags.barycentric[0][hit].double()[..., None] * corners).sum(1)
    local = points @ camera[0, :3, :3].T + camera[0, :3, 3]
    torch.testing.assert_close(local[:, 2].float(), frags.depth[0][hit], rtol=1e-5, atol=1e-6)
    pixels = local @ k[0].T
    rows, columns = hit.nonzero().unbind(1)
    expected = torch.stack((columns, rows), -1) + 0.5
    assert (pixels[:, :2] / pixels[:, 2:] - expected).abs().max() < 1e-3


def test_outputs():
    vertices, faces = random_soup(30, 20, seed=5)
    arguments = (vertices, faces, random_cameras(2, seed=2), intrinsics(20, 30, 2), 20, 30)
    everything = rasterize(*arguments)
    for outputs in (("face",), ("depth",), ("face", "barycentric"), ()):
        some = rasterize(*arguments, outputs=outputs)
        assert torch.equal(some.face, everything.face)
        assert (some.depth is None) == ("depth" not in outputs)
        assert (some.barycentric is None) == ("barycentric" not in outputs)
    miss = everything.face < 0
    assert (everything.depth[miss] == 0).all() and (everything.barycentric[miss] == 0).all()
    assert everything.depth.dtype == torch.float32 and everything.face.dtype == torch.int32


@pytest.mark.parametrize(("views", "num_faces"), [(0, 5), (2, 0)])
def test_nothing_to_draw(views, num_faces):
    vertices, faces = random_soup(10, num_faces, seed=0)
    frags = rasterize(vertices, faces, random_cameras(views, seed=0), intrinsics(6, 5, views), 6, 5)
    assert frags.face.shape == (views, 6, 5) and (frags.face == -1).all()
    assert frags.barycentric.shape == (views, 6, 5, 3)


def test_several_meshes():
    """A view of mesh m is the same as if m were alone; face numbers count through all meshes."""
    meshes = [random_soup(20, 15, seed=1), random_soup(35, 40, seed=2), (torch.zeros(0, 3), torch.zeros(0, 3).int())]
    packed = pack_meshes(meshes)
    mesh_index = torch.tensor([1, 0, 2, 1])
    cameras, k = random_cameras(4, seed=3), intrinsics(24, 32, 4)
    offsets = {"vertex_offsets": packed.vertex_offsets, "face_offsets": packed.face_offsets}
    together = rasterize(packed.vertices, packed.faces, cameras, k, 24, 32, mesh_index=mesh_index, **offsets)
    assert_same(together, rasterize(packed.vertices, packed.faces, cameras, k, 24, 32, mesh_index=mesh_index,
                                    backend="reference", **offsets))  # fmt: skip
    for view, mesh in enumerate(mesh_index.tolist()):
        alone = rasterize(*meshes[mesh], cameras[view : view + 1], k[:1], 24, 32)
        shifted = torch.where(alone.face >= 0, alone.face + int(packed.face_offsets[mesh]), -1)
        assert torch.equal(together.face[view], shifted[0])
        assert torch.equal(together.depth[view], alone.depth[0])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("bad", [-1, 10, 2**31 - 1])
def test_face_out_of_range(backend, bad):
    vertices, faces = random_soup(10, 6, seed=0)
    faces[4, 1] = bad
    with pytest.raises(IndexError, match="face 4"):
        rasterize(vertices, faces, random_cameras(1, 0), intrinsics(4, 4), 4, 4, backend=backend)


def test_face_of_another_mesh():
    packed = pack_meshes([random_soup(10, 6, seed=0), random_soup(10, 6, seed=1)])
    packed.faces[7, 0] = 3  # a vertex of the first mesh
    with pytest.raises(IndexError, match="face 7"):
        rasterize(packed.vertices, packed.faces, random_cameras(1, 0), intrinsics(4, 4), 4, 4,
                  mesh_index=torch.tensor([1]), vertex_offsets=packed.vertex_offsets,
                  face_offsets=packed.face_offsets)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": torch.zeros(4, 2)}, "vertices must be"),
        ({"faces": torch.zeros(4, 3)}, "faces must be"),
        ({"world_to_camera": torch.eye(4)}, "world_to_camera must be"),
        ({"intrinsics": torch.eye(3).repeat(2, 1, 1)}, "intrinsics must be"),
        ({"height": 0}, "image size"),
        ({"width": 20000}, "image size"),
        ({"near": 0.0}, "near must be positive"),
        ({"backend": "metal"}, "backend 'metal' is unknown"),
        ({"backend": "cuda"}, "needs tensors on that device"),
        ({"outputs": ("faces",)}, "unknown outputs"),
        ({"mesh_index": torch.tensor([0])}, "go together"),
        ({"mesh_index": torch.tensor([1]), "vertex_offsets": torch.tensor([0, 10]),
          "face_offsets": torch.tensor([0, 6])}, "mesh_index must hold"),
        ({"mesh_index": torch.tensor([0]), "vertex_offsets": torch.tensor([0, 11]),
          "face_offsets": torch.tensor([0, 6])}, "vertex_offsets must rise from 0 to 10"),
    ],
)  # fmt: skip
def test_bad_arguments(change, message):
    vertices, faces = random_soup(10, 6, seed=0)
    arguments = dict(vertices=vertices, faces=faces, world_to_camera=random_cameras(1, 0),
                     intrinsics=intrinsics(4, 4), height=4, width=4)  # fmt: skip
    with pytest.raises(ValueError, match=message):
        rasterize(**{**arguments, **change})


@pytest.mark.parametrize("with_depth", [True, False])
@pytest.mark.parametrize("with_barycentric", [True, False])
def test_opcheck(with_depth, with_barycentric):
    vertices, faces = random_soup(10, 6, seed=0)
    arguments = (vertices, faces, random_cameras(2, 0), intrinsics(5, 6, 2), torch.tensor([[0, 10, 0, 6]] * 2),
                 5, 6, 0.01, with_depth, with_barycentric)  # fmt: skip
    torch.library.opcheck(torch.ops.raster.rasterize.default, arguments)

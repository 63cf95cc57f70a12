"""The CUDA rasterizer gives the same bits as the C++ one."""

import pytest
import torch

from benchmarks.room_mesh import room_cameras, room_mesh
from lib.raster import pack_meshes, rasterize
from tests.lib.raster_scenes import image_camera, intrinsics, random_cameras, random_soup

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def assert_same_bits(vertices, faces, cameras, k, height, width, near=0.01, **options):
    expected = rasterize(vertices, faces, cameras, k, height, width, near, **options)
    found = rasterize(vertices.cuda(), faces.cuda(), cameras, k, height, width, near, **options)
    for name in ("face", "depth", "barycentric"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (23, 1), (37, 53), (300, 400)])
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_soup(height, width, index_dtype):
    """From single pixels to triangles of many tiles."""
    for seed in range(3):
        vertices, faces = random_soup(60, 150, seed)
        assert_same_bits(vertices, faces.to(index_dtype), random_cameras(3, seed), intrinsics(height, width, 3, 1.0),
                         height, width, near=0.05)  # fmt: skip


@pytest.mark.parametrize("size", [(124, 124), (480, 640), (968, 1296)])
def test_room(size):
    vertices, faces = room_mesh()
    assert_same_bits(vertices, faces, room_cameras(3), intrinsics(*size, 3), *size)


def test_ties_on_pixel_centres():
    """A grid whose corners all lie on pixel centres, every decision of which is a tie."""
    steps = torch.arange(9) + 0.5
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    vertices = torch.stack((x, y, torch.ones_like(x)), -1).reshape(-1, 3)
    corner = torch.arange(81).reshape(9, 9)
    a, b, c, d = (part.reshape(-1) for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]))
    faces = torch.cat((torch.stack((a, b, c), -1), torch.stack((a, c, d), -1)))
    assert_same_bits(vertices, faces, *image_camera(), 10, 10)


def test_many_meshes_and_large_batches():
    packed = pack_meshes([random_soup(30, 20 + 9 * mesh, seed=mesh) for mesh in range(7)])
    mesh_index = torch.arange(500) % 7
    offsets = {"vertex_offsets": packed.vertex_offsets, "face_offsets": packed.face_offsets}
    assert_same_bits(packed.vertices, packed.faces, random_cameras(500, 0), intrinsics(20, 30, 500), 20, 30,
                     mesh_index=mesh_index, **offsets)  # fmt: skip
    vertices, faces = random_soup(100, 300, seed=1)
    assert_same_bits(vertices, faces, random_cameras(5, 0), intrinsics(2048, 2048, 5), 2048, 2048)


def test_full_queue():
    """More faces of thousands of pixels than are queued for cutting into tiles: the rest are drawn all the same."""
    vertices, faces = random_soup(300, 150_000, seed=2)
    assert_same_bits(vertices, faces, random_cameras(1, 0), intrinsics(64, 64), 64, 64)
    assert_same_bits(vertices, faces[:120_000], random_cameras(1, 3), intrinsics(200, 200), 200, 200)


def test_twice_the_same():
    vertices, faces = (tensor.cuda() for tensor in random_soup(100, 1000, seed=3))
    arguments = (vertices, faces, random_cameras(4, 1), intrinsics(200, 200, 4), 200, 200)
    first = rasterize(*arguments)
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(rasterize(*arguments), first, strict=True))


@pytest.mark.parametrize("bad", [-1, 10, 2**31 - 1])
def test_face_out_of_range(bad):
    vertices, faces = random_soup(10, 6, seed=0)
    faces[4, 1] = bad
    with pytest.raises(IndexError, match="face 4"):
        rasterize(vertices.cuda(), faces.cuda(), random_cameras(1, 0), intrinsics(4, 4), 4, 4)


def test_opcheck():
    vertices, faces = (tensor.cuda() for tensor in random_soup(10, 6, seed=0))
    rasterize(vertices, faces, random_cameras(1, 0), intrinsics(4, 4), 4, 4)  # loads the library
    cameras, k = random_cameras(2, 0).cuda(), intrinsics(5, 6, 2).cuda()
    ranges = torch.tensor([[0, 10, 0, 6]] * 2)
    arguments = (vertices, faces, cameras, k, ranges, 5, 6, 0.01, True, True)
    torch.library.opcheck(torch.ops.raster.rasterize.default, arguments)

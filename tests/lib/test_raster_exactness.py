"""What must hold without any tolerance: coverage, closed meshes, near plane, ties, order, threads, batches."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.room_mesh import ROOM, room_mesh
from lib.raster import pack_meshes, rasterize
from tests.lib.raster_scenes import OCTAHEDRON, image_camera, intrinsics, octahedron, random_cameras, random_soup
from utils.cameras import look_at, rigid_inverse

SIZE = 9  # pixels a side of the images that are compared with rational arithmetic


def covered_by_each(vertices, faces, camera, k, height, width, near=1e-20):
    """Bool ``[F, H, W]``: what each face covers when drawn alone, however close to the camera."""
    packed = pack_meshes([(vertices, face[None]) for face in faces])
    count = len(faces)
    frags = rasterize(
        packed.vertices, packed.faces, camera.expand(count, 4, 4), k.expand(count, 3, 3), height, width, near,
        outputs=("face",), mesh_index=torch.arange(count), vertex_offsets=packed.vertex_offsets,
        face_offsets=packed.face_offsets,
    )  # fmt: skip
    return frags.face >= 0


def cross(a, b):
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def covers_rationally(corners, row, column):
    """Whether a triangle of (x, y, w) covers a pixel centre that is moved by (e, e^2) for an infinitely small e."""
    a, b, c = ([Fraction(float(value)) for value in corner] for corner in corners)
    determinant = dot(a, cross(b, c))
    centre = (Fraction(2 * column + 1, 2), Fraction(2 * row + 1, 2), Fraction(1))
    for edge in (cross(b, c), cross(c, a), cross(a, b)):
        moved = next((value for value in (dot(edge, centre), edge[0], edge[1]) if value), 0)
        if determinant * moved <= 0:
            return False
    return True


coarse = st.integers(-4, 2 * SIZE + 4).map(lambda n: n / 2)  # many corners and edges lie on pixel centres
depth = st.sampled_from([-2.0, -0.5, 0.25, 0.5, 1.0, 2.0, 3.0, 7.0])
nudge = st.sampled_from([0, 0, 1, -1, 3])  # floats away from there


@st.composite
def image_points(draw):
    w = np.float32(draw(depth))
    point = np.array([draw(coarse) * w, draw(coarse) * w, w], dtype=np.float32)
    for axis in range(2):
        for _ in range(abs(step := draw(nudge))):
            point[axis] = np.nextafter(point[axis], np.float32(np.inf * step))
    return point


@settings(max_examples=40, deadline=None)
@given(st.lists(image_points(), min_size=12, max_size=12))
def test_coverage_is_exact(points):
    """Against rational arithmetic: centres on edges and corners, or a last bit away, and parts behind the camera."""
    vertices = torch.from_numpy(np.stack(points))
    faces = torch.arange(12, dtype=torch.int32).reshape(4, 3)
    found = covered_by_each(vertices, faces, *image_camera(), SIZE, SIZE)
    for index, face in enumerate(faces):
        expected = [[covers_rationally(vertices[face], row, column) for column in range(SIZE)] for row in range(SIZE)]
        assert found[index].tolist() == expected


def test_top_left_rule():
    """A square from centre to centre covers its left column and top row, not its right column and bottom row."""
    square = torch.tensor([[1.5, 1.5, 1.0], [4.5, 1.5, 1.0], [4.5, 4.5, 1.0], [1.5, 4.5, 1.0]])
    faces = torch.tensor([[0, 1, 2], [2, 3, 0]])
    covered = covered_by_each(square, faces, *image_camera(), 6, 6).sum(0)
    expected = torch.zeros(6, 6, dtype=torch.int64)
    expected[1:4, 1:4] = 1
    assert torch.equal(covered, expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.5, 1.0, 1.25, 2.0, 3.0, 8.0]), min_size=6, max_size=6),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_shared_edges(radii, seed, axis_aligned):
    """Neighbours never both cover nor both miss a centre, also along edges that pass behind the camera.

    An octahedron around the camera is seen exactly once in every direction.
    """
    vertices, generator = octahedron(torch.tensor(radii)), torch.Generator().manual_seed(seed)
    k = torch.tensor([[[4.0, 0.0, 6.5], [0.0, 4.0, 6.5], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    camera = torch.eye(4, dtype=torch.float64)[None].clone()
    if not axis_aligned:
        camera[:, :3, :3] = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    camera[:, :3, 3] = torch.randint(-1, 2, (3,), generator=generator) * 0.125
    covered = covered_by_each(vertices, OCTAHEDRON, camera, k, 13, 13)
    assert (covered.sum(0) == 1).all()


def test_closed_mesh_has_no_hole():
    """500 cameras in a furnished room see a surface at every pixel."""
    vertices, faces = room_mesh(6000, seed=1)
    random = np.random.default_rng(0)
    eye = torch.from_numpy(ROOM * random.uniform(0.05, 0.95, (500, 3)))
    cameras = rigid_inverse(look_at(eye, eye + torch.from_numpy(random.normal(size=(500, 3)))))
    frags = rasterize(vertices, faces, cameras, intrinsics(72, 96, 500), 72, 96, outputs=("face",))
    assert (frags.face >= 0).all()


def test_near_plane_cuts_by_pixel():
    """A floor that runs from behind the camera to the horizon is visible exactly where it is at least `near` away."""
    floor = torch.tensor([[-99.0, 1.0, -10.0], [99.0, 1.0, -10.0], [99.0, 1.0, 400.0], [-99.0, 1.0, 400.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    k = torch.tensor([[[20.0, 0.0, 32.0], [0.0, 20.0, 32.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    frags = rasterize(floor, faces, torch.eye(4)[None], k, 64, 64, near=1.0)
    below_horizon = (torch.arange(64) + 0.5 - 32) / 20  # depth is 1 / this
    expected = torch.where((below_horizon > 1 / 400) & (below_horizon <= 1.0), 1 / below_horizon, 0.0)
    torch.testing.assert_close(frags.depth[0], expected[:, None].expand(64, 64), rtol=1e-6, atol=0)
    assert torch.equal(frags.face[0] >= 0, expected[:, None].expand(64, 64) > 0)


def test_both_sides_are_seen():
    triangle = torch.tensor([[0.0, 0.0, 1.0], [8.0, 0.0, 1.0], [0.0, 8.0, 1.0]])
    front = covered_by_each(triangle, torch.tensor([[0, 1, 2], [0, 2, 1]]), *image_camera(), 8, 8)
    assert torch.equal(front[0], front[1]) and front[0].sum() == 28


def test_ties_go_to_the_smaller_face():
    triangle = torch.tensor([[0.0, 0.0, 2.0], [16.0, 0.0, 2.0], [0.0, 16.0, 2.0]])
    for faces in ([[0, 1, 2]] * 3, [[0, 1, 2], [1, 2, 0], [2, 1, 0]]):
        frags = rasterize(triangle, torch.tensor(faces), *image_camera(), 8, 8)
        assert frags.face.max() == 0


def test_face_order_does_not_matter():
    vertices, faces = random_soup(60, 200, seed=4)
    camera, k = random_cameras(2, seed=5), intrinsics(60, 80, 2)
    expected = rasterize(vertices, faces, camera, k, 60, 80)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    shuffled = rasterize(vertices, faces[order], camera, k, 60, 80)
    original = torch.where(shuffled.face >= 0, order[shuffled.face.long()].int(), -1)
    assert torch.equal(original, expected.face)
    assert torch.equal(shuffled.depth, expected.depth) and torch.equal(shuffled.barycentric, expected.barycentric)


@pytest.mark.parametrize("views", [1, 2, 5])
def test_threads_and_batch_do_not_matter(views):
    """One thread, more threads than views, fewer threads than views: the same bits; and each view as if alone."""
    vertices, faces = room_mesh(3000)
    eye = torch.tensor(ROOM).double() * torch.tensor([[0.5, 0.5, 0.5]])
    angle = torch.arange(views) * 1.3
    aim = eye + torch.stack((angle.cos(), angle.sin(), torch.full((views,), -0.3)), -1)
    camera, k = rigid_inverse(look_at(eye.expand(views, 3), aim)), intrinsics(130, 170, views)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 4, 7):
            torch.set_num_threads(count)
            results.append(rasterize(vertices, faces, camera, k, 130, 170))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    for view in range(views):
        alone = rasterize(vertices, faces, camera[view : view + 1], k[:1], 130, 170)
        assert all(torch.equal(a[0], b[view]) for a, b in zip(alone, results[0], strict=True))


def test_degenerate_faces_are_ignored():
    vertices = torch.tensor(
        [[0.0, 0, 1], [8, 0, 1], [8, 8, 1], [0, 8, 1], [4, 4, 1], [torch.nan, 1, 1], [torch.inf, 0, 1], [3e38, 3e38, 1]]
    )
    faces = torch.tensor([[0, 0, 1], [0, 4, 2], [1, 1, 1], [0, 1, 5], [6, 1, 2], [0, 1, 2]])
    frags = rasterize(vertices, faces, *image_camera(), 8, 8)
    assert set(frags.face.unique().tolist()) == {-1, 5}
    assert (frags.face == 5).sum() == 36


def test_huge_and_tiny_triangles():
    """A plane of twenty kilometres, seen from a metre above, with a triangle of a micrometre before it."""
    plane = torch.tensor([[-1e4, 1.0, -1e4], [1e4, 1.0, -1e4], [0.0, 1.0, 1e4]])
    speck = torch.tensor([[-1e-6, -1e-6, 0.5], [1e-6, -1e-6, 0.5], [0.0, 1e-6, 0.5]])
    vertices, faces = torch.cat((plane, speck)), torch.tensor([[0, 1, 2], [3, 4, 5]])
    k = torch.tensor([[[100.0, 0.0, 8.5], [0.0, 100.0, 8.5], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    frags = rasterize(vertices, faces, torch.eye(4)[None], k, 17, 17)
    expected = torch.full((17, 17), -1, dtype=torch.int32)
    expected[9:] = 0
    expected[8, 8] = 1
    assert torch.equal(frags.face[0], expected)
    rows = (torch.arange(9, 17) + 0.5 - 8.5) / 100
    torch.testing.assert_close(frags.depth[0, 9:, 3], 1 / rows, rtol=1e-4, atol=0)


def test_largest_images():
    """4096 x 4096 and a strip of the largest width: corners and middle show what a small image shows there."""
    vertices, faces = random_soup(50, 60, seed=9)
    camera = random_cameras(1, seed=9)
    for height, width in ((4096, 4096), (3, 16384)):
        large = rasterize(vertices, faces, camera, intrinsics(height, width), height, width, outputs=("face",)).face[0]
        for row, column in ((0, 0), (0, width - 1), (height - 1, 0), (height // 2, width // 3)):
            window = intrinsics(height, width)
            window[0, 0, 2] -= column
            window[0, 1, 2] -= row
            small = rasterize(vertices, faces, camera, window, 1, 1).face
            assert small.item() == large[row, column].item()

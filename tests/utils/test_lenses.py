"""Lenses: against their formulas written out as OpenCV's documentation has them, and as inverses of themselves."""

import math

import pytest
import torch

from utils.cameras import camera_rays, look_at, pixel_grid, project, ray_length_to_depth, seen_pixels, unproject
from utils.lenses import FISHEYE, INVERSE_BOUND, Lens

LENSES = {
    "barrel": Lens(radial=(-0.21, 0.05, 0.0, 0.0), tangential=(2e-3, -1.5e-3)),
    "pincushion": Lens(radial=(0.12, 0.03, 0.01, 0.002)),
    "equidistant": Lens(FISHEYE),
    "kannala-brandt": Lens(FISHEYE, (-0.02, 0.004, -0.003, 4e-4)),
    "rational": Lens(radial=(0.4, -0.1, 0.02, 0.0), tangential=(1e-3, -2e-3), divisor=(0.6, 0.05, 0.01)),
    "thin prism": Lens(FISHEYE, (-0.02, 0.004, 0.0, 0.0), (1e-3, -2e-3), (3e-3, 1e-3)),
}
INTRINSICS = torch.tensor([[61.0, 0, 79], [0, 62, 61], [0, 0, 1]], dtype=torch.float64)
SIZE = (120, 160)


def opencv_fisheye(x, y, z, k1, k2, k3, k4):
    """cv::fisheye's model: for one point, in scalars."""
    a, b = x / z, y / z
    r = math.hypot(a, b)
    theta = math.atan(r)
    theta_d = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
    return theta_d / r * a, theta_d / r * b


def test_fisheye_is_opencvs():
    lens = LENSES["kannala-brandt"]
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[:, 2] = points[:, 2].abs() + 0.1
    shown, seen = lens.project(points)
    assert seen.all()
    for point, place in zip(points.tolist(), shown.tolist(), strict=True):
        assert place == pytest.approx(opencv_fisheye(*point, *lens.radial), abs=1e-12)


def test_equidistant_measures_angles_even_behind_the_camera():
    angle = torch.tensor([0.0, 0.3, math.pi / 2, 2.5], dtype=torch.float64)
    points = 4 * torch.stack((angle.sin(), torch.zeros(4).double(), angle.cos()), dim=-1)
    plane, seen = LENSES["equidistant"].project(points)
    assert seen.all()
    torch.testing.assert_close(plane[:, 0], angle, rtol=0, atol=1e-15)
    _, seen = Lens(FISHEYE, limit=math.radians(100)).project(points)
    assert seen.tolist() == [True, True, True, False]


def test_the_rational_model_is_opencvs():
    lens = LENSES["rational"]
    (k1, k2, k3, _), (p1, p2), (k4, k5, k6) = lens.radial, lens.tangential, lens.divisor
    plane = torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    for (x, y), place in zip(plane.tolist(), lens.distort(plane).tolist(), strict=True):
        r2 = x * x + y * y
        s = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        expected = (s * x + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), s * y + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y)
        assert place == pytest.approx(expected, abs=1e-14)


def test_a_rational_lens_folds_where_its_slope_is_zero_or_its_divisor():
    pole = Lens(divisor=(-0.25, 0.0, 0.0))  # r / (1 - r^2 / 4) rises until r = 2
    assert pole.fold_radius == pytest.approx(2)
    hump = Lens(divisor=(1.0, 0.0, 0.0))  # r / (1 + r^2) falls from r = 1 on
    assert hump.fold_radius == pytest.approx(1)


@pytest.mark.parametrize("name", LENSES)
def test_every_pixel_is_where_its_ray_projects_to(name):
    lens = LENSES[name]
    seen = seen_pixels(INTRINSICS, SIZE, lens)
    assert seen.double().mean() > 0.75
    pose = look_at(torch.tensor([1.0, 2, 3]).double(), torch.tensor([4.0, 4, 1]).double())
    uv = pixel_grid(*SIZE, dtype=torch.float64)
    depth = torch.rand(SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 5 + 0.1
    points = unproject(uv, depth, INTRINSICS, pose, lens)
    shown, again = project(points, INTRINSICS, pose, lens)
    assert (shown - uv)[seen].abs().max() < 100 * INVERSE_BOUND  # 62 pixels a focal length
    torch.testing.assert_close(again[seen], depth[seen], rtol=1e-12, atol=0)
    origins, directions = camera_rays(pose, INTRINSICS, *SIZE, lens)
    distance = (points - origins).norm(dim=-1)
    torch.testing.assert_close((origins + directions * distance[..., None]).double()[seen], points[seen], rtol=0,
                               atol=2e-6)  # fmt: skip
    torch.testing.assert_close(ray_length_to_depth(distance, INTRINSICS, lens)[seen], depth[seen], rtol=1e-6, atol=0)


def test_depth_is_along_the_axis_or_along_the_ray():
    points = torch.tensor([[3.0, 0.0, 4.0]], dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)
    assert float(project(points, INTRINSICS, eye, LENSES["barrel"])[1]) == 4
    assert float(project(points, INTRINSICS, eye, LENSES["equidistant"])[1]) == 5
    assert float(project(points, INTRINSICS, eye)[1]) == 4
    assert float(project(-points, INTRINSICS, eye, LENSES["barrel"])[1]) < 0


def test_nothing_is_seen_beyond_the_fold_or_the_limit():
    folding = Lens(radial=(-0.13, 0.0, 0.0, 0.0))
    assert folding.fold_radius == pytest.approx((1 / 0.39) ** 0.5)
    edge = folding.fold_radius * (1 - 0.13 * folding.fold_radius**2)  # where the farthest point is shown
    places = torch.tensor([[edge - 1e-6, 0.0], [edge + 1e-6, 0.0]], dtype=torch.float64)
    assert folding.directions(places)[1].tolist() == [True, False]
    _, seen = folding.project(torch.tensor([[2.0, 0, 1], [1.5, 0, 1]], dtype=torch.float64))
    assert seen.tolist() == [False, True]
    circle = Lens(FISHEYE, limit=1.0)
    found = seen_pixels(INTRINSICS, SIZE, circle)
    uv = pixel_grid(*SIZE, dtype=torch.float64)
    radius = ((uv - INTRINSICS[:2, 2]) / INTRINSICS.diagonal()[:2]).norm(dim=-1)
    assert torch.equal(found, radius <= 1.0) and not found.all()


@pytest.mark.parametrize("name", LENSES)
def test_jacobian_is_the_derivative_of_the_projection(name):
    lens = LENSES[name]
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    points[:, 2] = points[:, 2].abs() + 0.7
    points[0] = torch.tensor([0.0, 0.0, 2.0])
    step = 1e-6
    for axis in range(3):
        moved = torch.zeros(3, dtype=torch.float64)
        moved[axis] = step
        difference = (lens.project(points + moved)[0] - lens.project(points - moved)[0]) / (2 * step)
        torch.testing.assert_close(lens.jacobian(points)[..., axis], difference, rtol=1e-5, atol=1e-6)


def test_a_lens_survives_json():
    lens = Lens(FISHEYE, (0.1, 0.2, 0.3, 0.4), (0.5, 0.6), (0.7, 0.8), 1.5, (0.1, 0.2, 0.3))
    assert Lens.from_json(lens.to_json()) == lens
    with pytest.raises(ValueError):
        Lens.from_json({**lens.to_json(), "radial": [1.0]})
    assert Lens().is_pinhole and not Lens(FISHEYE).is_pinhole

"""Lens distortion: against scipy's root finder, against pictures whose colours say where their pixels are, and
against a scene seen by a pinhole camera and by a distorting one.
"""

import pytest
import torch
from scipy.optimize import fsolve

from dataloader import load_scene
from dataloader.calibrated_camera import CalibratedCamera
from dataloader.undistortion import common_pinhole, undistort_image
from tests.dataloader.scene_exports import Capture, random_capture, transforms, write_colmap, write_transforms
from utils.cameras import pixel_grid, project, unproject
from utils.errors import UserError
from utils.lenses import Lens

BARREL = CalibratedCamera(
    (240, 320), (200.0, 210.0), (155.0, 123.0), Lens(radial=(-0.21, 0.05, 0.0, 0.0), tangential=(2e-3, -1.5e-3))
)
PINCUSHION = CalibratedCamera(
    (240, 320), (260.0, 250.0), (163.0, 118.0), Lens(radial=(0.12, 0.03, 0.01, 0.002), tangential=(-1e-3, 1e-3))
)


def opencv_formula(camera, x, y):
    """Scalars, written out as OpenCV's documentation has it (k3 in its place)."""
    r2 = x**2 + y**2
    k1, k2, k3, k4 = camera.lens.radial
    p1, p2 = camera.lens.tangential
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + k4 * r2**4
    return (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2), y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y)


def smooth_picture(points):
    """Colours 0 to 255 ``[3, ...]`` of plane positions ``[..., 2]``, smooth enough for bilinear sampling."""
    x, y = points.unbind(-1)
    return torch.stack((128 + 90 * torch.sin(3 * x + y), 128 + 90 * torch.cos(2 * y - x), 128 + 60 * x + 40 * y))


def picture_of(camera):
    """What a camera takes of :func:`smooth_picture`, by solving for each pixel's position."""
    pixels = pixel_grid(*camera.size, dtype=torch.float64)
    plane = (pixels - pixels.new_tensor(camera.center)) / pixels.new_tensor(camera.focal)
    return smooth_picture(camera.undistort(plane)).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("camera", [BARREL, PINCUSHION])
def test_distortion_is_opencvs_and_undistortion_its_inverse(camera):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(40, 2, generator=generator, dtype=torch.float64) * 1.2 - 0.6
    shown = camera.lens.distort(points)
    for point, place in zip(points.tolist(), shown.tolist(), strict=True):
        assert place == pytest.approx(opencv_formula(camera, *point), abs=1e-14)
        found = fsolve(lambda xy, place=place: [a - b for a, b in zip(opencv_formula(camera, *xy), place, strict=True)],
                       place, xtol=1e-12)  # fmt: skip
        assert found.tolist() == pytest.approx(point, abs=1e-9)
    torch.testing.assert_close(camera.undistort(shown), points, rtol=0, atol=1e-9)


@pytest.mark.parametrize("camera", [BARREL, PINCUSHION])
def test_no_pixel_is_blank_and_none_is_wasted(camera):
    intrinsics, (height, width), covers = common_pinhole([camera])
    assert covers == [True] and (intrinsics[0, 0], intrinsics[1, 1]) == camera.focal

    def shown_at(rows, columns):
        uv = torch.stack(torch.broadcast_tensors(columns, rows), -1)
        eye = torch.eye(4, dtype=torch.float64)
        plane = unproject(uv, torch.ones(uv.shape[:-1], dtype=torch.float64), intrinsics, eye)[..., :2]
        return camera.to_pixels(plane)

    def outside(pixels):
        limit = pixels.new_tensor([camera.size[1], camera.size[0]])
        return torch.maximum(-pixels, pixels - limit).amax(-1)

    along = torch.linspace(0, 1, 500, dtype=torch.float64)
    for rows, columns in ((along * height, along[:, None] * width),):
        assert outside(shown_at(rows, columns)).max() < 0.01  # of a pixel
    # Two pixels farther on any side, and some of that side is blank.
    for rows, columns in (
        (torch.tensor(-2.0), along * width), (torch.tensor(height + 2.0), along * width),
        (along * height, torch.tensor(-2.0)), (along * height, torch.tensor(width + 2.0)),
    ):  # fmt: skip
        assert outside(shown_at(rows.double(), columns.double())).max() > 0


@pytest.mark.parametrize("camera", [BARREL, PINCUSHION])
@pytest.mark.parametrize("factor", [1.0, 0.7, 0.25, 0.1])
def test_undistorted_pictures_show_what_a_pinhole_camera_sees(camera, factor):
    intrinsics, full, _ = common_pinhole([camera])
    size = tuple(round(side * factor) for side in full)
    scale = torch.tensor([[size[1] / full[1]], [size[0] / full[0]], [1.0]], dtype=torch.float64)
    picture = undistort_image(picture_of(camera), camera, intrinsics * scale, size)
    uv = pixel_grid(*size, dtype=torch.float64)
    plane = unproject(uv, torch.ones(size, dtype=torch.float64), intrinsics * scale, torch.eye(4, dtype=torch.float64))
    error = (picture - smooth_picture(plane[..., :2]).clamp(0, 255)).abs()
    # A tenth of the size averages over ten pixels, where curvature shows.
    assert error.mean() < (0.6 if factor > 0.2 else 1.0) and error.max() < (2.5 if factor > 0.2 else 6)


def test_reducing_averages_all_pixels():
    camera = CalibratedCamera((240, 320), (200.0, 200.0), (160.0, 120.0), Lens(radial=(-1e-4, 0.0, 0.0, 0.0)))
    stripes = (torch.arange(320) % 2 * 255).to(torch.uint8).expand(3, 240, 320)
    intrinsics = camera.intrinsics * torch.tensor([[0.125], [0.125], [1.0]], dtype=torch.float64)
    picture = undistort_image(stripes, camera, intrinsics, (30, 40)).float()
    assert (picture - 127.5).abs().max() < 4


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL", "RADIAL", "OPENCV"])
@pytest.mark.parametrize("binary", [True, False])
def test_points_of_a_distorted_capture_land_where_the_scene_says(model, binary, tmp_path):
    used = {"SIMPLE_RADIAL": 1, "RADIAL": 2, "OPENCV": 4}[model]
    values = (-0.1, 0.02, 1e-3, -2e-3)
    capture = random_capture(size=(60, 80), square=model != "OPENCV")
    capture.distortion = values[:used] + (0.0,) * (4 - used)
    capture.intrinsics[:2, 2] = torch.tensor([39.0, 31.0])
    capture.intrinsics[:2, :2] *= 2
    distortion = Lens(radial=(*capture.distortion[:2], 0.0, 0.0), tangential=capture.distortion[2:])
    camera = CalibratedCamera((60, 80), (80.0, float(capture.intrinsics[1, 1])), (39.0, 31.0), distortion)
    capture.images = [picture_of(camera) for _ in capture.images]
    scene = load_scene(write_colmap(tmp_path / "scene", capture, model, binary))
    torch.testing.assert_close(scene.camera_to_world, capture.poses, rtol=0, atol=1e-9)
    picture = scene.read_color(2)
    eye = torch.eye(4, dtype=torch.float64)
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.6 - 0.3
    uv, _ = project(torch.cat((points, torch.ones(200, 1, dtype=torch.float64)), -1), scene.intrinsics, eye)
    column, row = uv.floor().long().unbind(-1)
    uv = torch.stack((column, row), -1) + 0.5
    plane = unproject(uv, torch.ones(200, dtype=torch.float64), scene.intrinsics, eye)[..., :2]
    assert (picture[:, row, column] - smooth_picture(plane)).abs().max() < 2.5


def test_instant_ngp_reads_the_same_lens(tmp_path):
    capture = random_capture(size=(60, 80))
    capture.distortion = (-0.1, 0.02, 1e-3, -2e-3)
    capture.intrinsics[:2, 2] = torch.tensor([39.0, 31.0])
    one = load_scene(write_colmap(tmp_path / "one", capture, "OPENCV"))
    other = load_scene(write_transforms(tmp_path / "other", capture))
    torch.testing.assert_close(one.intrinsics, other.intrinsics)
    assert one.image_size == other.image_size and torch.equal(one.read_color(3), other.read_color(3))


def test_several_cameras_become_one(tmp_path):
    """Two landscape cameras of different pixels and a portrait one see one smooth wall each."""
    cameras = [
        CalibratedCamera(size, focal, center) for size, focal, center in (
            ((120, 160), (130.0, 130.0), (80.0, 60.0)), ((240, 320), (280.0, 280.0), (161.0, 119.0)),
            ((160, 120), (130.0, 130.0), (60.0, 80.0)), ((120, 160), (130.0, 130.0), (80.0, 60.0)),
        )
    ]  # fmt: skip
    capture = random_capture(count=4)
    capture = Capture([picture_of(camera) for camera in cameras], capture.poses, capture.intrinsics)
    content = transforms(capture)
    for frame, camera in zip(content["frames"], cameras, strict=True):
        frame.update(fl_x=camera.focal[0], fl_y=camera.focal[1], cx=camera.center[0], cy=camera.center[1],
                     h=camera.size[0], w=camera.size[1])  # fmt: skip
    scene = load_scene(write_transforms(tmp_path / "scene", capture, content))
    assert scene.image_size[0] == pytest.approx(240 / 280 * 130 * 119 / 120, abs=2) and scene.image_size[1] == 120
    assert scene.intrinsics[0, 0] == 130
    uv = pixel_grid(*scene.image_size, dtype=torch.float64)
    plane = unproject(uv, torch.ones(uv.shape[:2], dtype=torch.float64), scene.intrinsics,
                      torch.eye(4, dtype=torch.float64))[..., :2]  # fmt: skip
    for index in range(4):
        assert (scene.read_color(index) - smooth_picture(plane)).abs().max() < 3


def test_a_single_zoomed_picture_is_left_out(tmp_path, caplog):
    capture = random_capture(count=5)
    content = transforms(capture)
    content["frames"][2].update(fl_x=120.0, fl_y=120.0)
    scene = load_scene(write_transforms(tmp_path / "scene", capture, content))
    assert scene.frames == ["0", "1", "3", "4"] and scene.image_size == (24, 32)
    assert "a much smaller field of view than the others" in caplog.text


def test_corners_beyond_the_fold_are_cut_off():
    camera = CalibratedCamera((480, 640), (330.0, 330.0), (320.0, 240.0), Lens(radial=(-0.13, 0.0, 0.0, 0.0)))
    with pytest.raises(UserError):  # the corners, 400 pixels from the middle, are farther than any point can show
        camera.undistort(torch.tensor([[-320 / 330, -240 / 330]], dtype=torch.float64))
    assert camera.lens.fold_radius == pytest.approx((1 / 0.39) ** 0.5)
    box = camera.visible_rectangle()
    corner = torch.tensor([[box.right, box.bottom]], dtype=torch.float64)
    assert corner.norm() < camera.lens.fold_radius
    shown = camera.to_pixels(corner)
    assert 560 < shown[0, 0] < 640 and 420 < shown[0, 1] < 480


def test_a_lens_that_folds_is_refused(tmp_path):
    capture = random_capture()
    capture.distortion = (-9.0, 0.0, 0.0, 0.0)
    with pytest.raises(UserError, match=r"transforms.json: distortion \(-9.0, 0.0\) folds the images"):
        load_scene(write_transforms(tmp_path / "scene", capture))


def test_alpha_is_undistorted_with_the_colours(tmp_path):
    capture = random_capture(size=(60, 80), channels=4)
    capture.intrinsics = torch.tensor([[80.0, 0, 39], [0, 80, 31], [0, 0, 1]], dtype=torch.float64)
    capture.distortion = (-0.1, 0.0, 0.0, 0.0)
    for image in capture.images:
        image[:3] = 0
    scene = load_scene(write_transforms(tmp_path / "scene", capture), background=1.0)
    # Black in front of white: the colour is what alpha leaves.
    assert (scene.read_color(0, (30, 40)).int() + scene.read_alpha(0, (30, 40)).int() - 255).abs().max() <= 1

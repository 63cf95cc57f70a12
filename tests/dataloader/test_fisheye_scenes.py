"""Fisheye captures as the readers see them: cameras against formulas written out for single points, pictures left as
they are, and what LensOptions makes of them.
"""

import json
import math

import gin
import numpy as np
import pytest
import torch

from dataloader import CameraList, load_scene
from tests.dataloader.scene_exports import random_capture, transforms, write_colmap, write_transforms
from utils.cameras import pixel_grid, project, unproject, view_directions
from utils.depth_images import write_depth
from utils.errors import UserError
from utils.lenses import FISHEYE, Lens

EYE = torch.eye(4, dtype=torch.float64)
F, FY, CX, CY = 11.0, 12.0, 15.2, 12.7  # of a picture of 32 x 24 pixels, which reaches 88 degrees to the left
MODELS = {  # what follows the intrinsics in COLMAP's order, and k1..k4, p1, p2, s1, s2
    "OPENCV_FISHEYE": ((F, FY, CX, CY, 0.02, -0.01, 3e-3, -4e-4), (0.02, -0.01, 3e-3, -4e-4, 0, 0, 0, 0)),
    "SIMPLE_RADIAL_FISHEYE": ((F, CX, CY, 0.02), (0.02, 0, 0, 0, 0, 0, 0, 0)),
    "RADIAL_FISHEYE": ((F, CX, CY, 0.02, -0.01), (0.02, -0.01, 0, 0, 0, 0, 0, 0)),
    "THIN_PRISM_FISHEYE": ((F, FY, CX, CY, 0.02, -0.01, 1e-3, -2e-3, 3e-3, -4e-4, 2e-3, -1e-3),
                           (0.02, -0.01, 3e-3, -4e-4, 1e-3, -2e-3, 2e-3, -1e-3)),
    "SIMPLE_FISHEYE": ((F, CX, CY), (0,) * 8),
    "FISHEYE": ((F, FY, CX, CY), (0,) * 8),
}  # fmt: skip


def pixel_of(point, intrinsics, numbers):
    """Of one point in the camera's frame, with Python's numbers alone."""
    (fx, fy, cx, cy), (k1, k2, k3, k4, p1, p2, s1, s2) = intrinsics, numbers
    x, y, z = point
    across = math.hypot(x, y)
    theta = math.atan2(across, z)
    u, v = theta * x / across, theta * y / across
    r2 = theta**2
    radial = k1 * r2 + k2 * r2**2 + k3 * r2**3 + k4 * r2**4
    du = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u) + s1 * r2
    dv = v * radial + 2 * p2 * u * v + p1 * (r2 + 2 * v * v) + s2 * r2
    return fx * (u + du) + cx, fy * (v + dv) + cy


def some_points(count=40):
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    points[:, 2] = points[:, 2].abs() - 0.2  # some are behind the image plane
    return points


def fisheye_capture(tmp_path, model="OPENCV_FISHEYE", count=5):
    folder = write_colmap(tmp_path, random_capture(count), binary=False)
    parameters = " ".join(map(repr, MODELS[model][0]))
    (folder / "sparse/0/cameras.txt").write_text(f"7 {model} 32 24 {parameters}\n")
    return folder


def fisheye_transforms(capture, **changes):
    numbers = dict(zip(("k1", "k2", "k3", "k4"), MODELS["OPENCV_FISHEYE"][1], strict=False))
    return {**transforms(capture), "fl_x": F, "fl_y": FY, "cx": CX, "cy": CY, "p1": 0.0, "p2": 0.0, **numbers,
            "camera_model": "OPENCV_FISHEYE", **changes}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_colmaps_fisheye_models_project_as_its_documentation_says(model, tmp_path):
    scene = load_scene(fisheye_capture(tmp_path, model))
    focal_y = FY if len(MODELS[model][0]) > 5 or model == "FISHEYE" else F
    uv, depth = project(some_points(), scene.intrinsics, EYE, scene.lens)
    for point, pixel, distance in zip(some_points().tolist(), uv.tolist(), depth.tolist(), strict=True):
        assert pixel == pytest.approx(pixel_of(point, (F, focal_y, CX, CY), MODELS[model][1]), abs=1e-9)
        assert distance == pytest.approx(math.hypot(*point))
    assert scene.lens.projection == FISHEYE and scene.image_size == (24, 32) and scene.resampled_from is None
    assert all(torch.equal(scene.read_color(k), image) for k, image in enumerate(random_capture().images))
    assert any("fisheye lens is kept" in remark for remark in scene.remarks)


def test_colmaps_rational_model_is_undistorted_or_kept(tmp_path):
    folder = write_colmap(tmp_path, random_capture(), binary=False)
    numbers = (40.0, 37.5, 15.2, 12.7, 0.4, -0.1, 1e-3, -2e-3, 0.02, 0.6, 0.05, 0.01)
    (folder / "sparse/0/cameras.txt").write_text(f"7 FULL_OPENCV 32 24 {' '.join(map(repr, numbers))}\n")
    assert load_scene(folder).lens is None and all(load_scene(folder).resampled_from)
    gin.bind_parameter("LensOptions.keep", "all")
    lens = load_scene(folder).lens
    assert lens == Lens(radial=(0.4, -0.1, 0.02, 0.0), tangential=(1e-3, -2e-3), divisor=(0.6, 0.05, 0.01))


@pytest.mark.parametrize("named", [{}, {"camera_model": "EQUIDISTANT"}, {"camera_model": "OPENCV", "is_fisheye": 1}])
def test_transforms_json_and_colmap_give_the_same_scene(named, tmp_path):
    capture = random_capture()
    one = load_scene(fisheye_capture(tmp_path / "one"))
    other = load_scene(write_transforms(tmp_path / "other", capture, fisheye_transforms(capture, **named)))
    assert one.lens == other.lens and one.image_size == other.image_size
    torch.testing.assert_close(one.intrinsics, other.intrinsics, rtol=0, atol=1e-12)
    assert other.geometry_identity() != load_scene(write_transforms(tmp_path / "pinhole", capture)).geometry_identity()


def test_intrinsics_of_another_size_belong_to_the_same_lens(tmp_path):
    scene = load_scene(fisheye_capture(tmp_path))
    cameras = scene.cameras((6, 16))
    full, _ = project(some_points(), scene.intrinsics, EYE, scene.lens)
    small, _ = project(some_points(), cameras.intrinsics[0], EYE, cameras.lens)
    torch.testing.assert_close(small, full * torch.tensor([0.5, 0.25]), rtol=0, atol=1e-12)


def test_camera_lists_keep_the_lens_on_disk(tmp_path):
    scene = load_scene(fisheye_capture(tmp_path / "scene", "THIN_PRISM_FISHEYE"))
    scene.cameras((12, 16)).save(tmp_path / "cameras.json")
    loaded = CameraList.load(tmp_path / "cameras.json")
    assert loaded.lens == scene.lens and loaded.select([1, 2]).resized((6, 8)).lens == scene.lens
    content = json.loads((tmp_path / "cameras.json").read_text())
    content["lens"]["radial"] = [1e999, 0, 0, 0]
    (tmp_path / "cameras.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="cameras.json cannot be read as a camera list"):
        CameraList.load(tmp_path / "cameras.json")


def smooth_picture(directions):
    """Colours ``[3, ...]`` of unit directions ``[..., 3]``, smooth enough for bilinear sampling."""
    x, y, z = directions.unbind(-1)
    return torch.stack((128 + 100 * x, 128 + 100 * y, 128 + 60 * z + 40 * x * y))


def seen_by(intrinsics, size, lens):
    """What a camera with a lens takes of :func:`smooth_picture`, uint8 ``[3, H, W]``."""
    directions = torch.nn.functional.normalize(view_directions(intrinsics, size, lens), dim=-1)
    return smooth_picture(directions).round().to(torch.uint8)


def large_capture(tmp_path, count=4, **changes):
    """Pictures of 160 x 120 pixels that show :func:`smooth_picture`, whatever their pose."""
    capture = random_capture(count, (120, 160))
    values = {name: 5 * value for name, value in (("fl_x", F), ("fl_y", FY), ("cx", CX), ("cy", CY))}
    content = fisheye_transforms(capture, h=120, w=160, **values, **changes)
    scene = load_scene(write_transforms(tmp_path, capture, content))
    capture.images = [seen_by(scene.intrinsics, (120, 160), scene.lens)] * count
    return write_transforms(tmp_path, capture, content)


@pytest.mark.parametrize("size", [None, (60, 80), (23, 31)])
def test_undistorted_on_request_a_fisheye_picture_is_a_pinholes(size, tmp_path):
    folder = large_capture(tmp_path)
    gin.bind_parameter("LensOptions.keep", "none")
    scene = load_scene(folder)
    assert scene.lens is None and len([camera for camera in scene.resampled_from if camera]) == 4
    assert scene.image_size == pytest.approx((120, 160), abs=2) and scene.intrinsics[0, 0] == 5 * F
    cameras = scene.cameras(size)
    wanted = seen_by(cameras.intrinsics[0], cameras.image_size, None)
    assert (scene.read_color(1, size).int() - wanted.int()).abs().max() <= (2 if size != (23, 31) else 4)


def test_distances_become_depth_when_undistorted(tmp_path):
    folder = large_capture(tmp_path)
    content = json.loads((folder / "transforms.json").read_text())
    kept = load_scene(folder)
    rays = torch.nn.functional.normalize(view_directions(kept.intrinsics, (120, 160), kept.lens), dim=-1)
    distance = 2 / rays[..., 2]
    write_depth(folder / "depth.png", torch.where((distance > 0) & (distance < 30), distance, 0.0).float())
    content["frames"][0]["depth_file_path"] = "depth.png"
    (folder / "transforms.json").write_text(json.dumps(content))
    kept = load_scene(folder)
    gap = (kept.read_depth(0, (120, 160)).double() - distance)[:, 40:120].abs()
    assert gap.max() <= 5e-4 + 1e-9  # millimetres are rounded; the distance is as it was written
    gin.bind_parameter("LensOptions.keep", "none")
    plane = load_scene(folder).read_depth(0, (120, 160))  # a wall two metres in front of the camera
    assert (plane[5:-5, 5:-5] - 2).abs().max() < 0.05 and plane[plane > 0].median() == pytest.approx(2, abs=5e-3)


def test_a_second_fisheye_camera_is_resampled_to_the_first(tmp_path):
    folder = large_capture(tmp_path)
    content = json.loads((folder / "transforms.json").read_text())
    main = load_scene(folder)
    narrower = {"fl_x": 75.0, "fl_y": 80.0, "cx": 80.0, "cy": 61.0, "k1": -0.03, "k2": 0.0, "k3": 0.0, "k4": 0.0}
    content["frames"][2].update(narrower)
    only = {**content, **narrower, "frames": content["frames"][:1]}
    (folder / "transforms.json").write_text(json.dumps(only))
    other = load_scene(folder)
    (folder / "transforms.json").write_text(json.dumps(content))
    from utils.images import write_image

    write_image(folder / "images" / "2.png", seen_by(other.intrinsics, (120, 160), other.lens))
    scene = load_scene(folder)
    assert scene.lens == main.lens and [camera is not None for camera in scene.resampled_from] == [0, 0, 1, 0]
    seen, whole = scene.read_mask(2), scene.read_mask(0)
    wanted = seen_by(main.intrinsics, (120, 160), main.lens)
    assert (scene.read_color(2).int() - wanted.int())[:, seen].abs().max() <= 2
    assert whole is None or whole.float().mean() > 0.9
    assert 0.5 < seen.float().mean() < 0.95 and not seen[:, 0].any()  # it sees less to the sides


def test_a_fisheye_camera_among_many_perspective_ones_is_undistorted_with_them(tmp_path):
    capture = random_capture(5, (24, 32))
    content = transforms(capture)
    content["frames"][1].update(camera_model="OPENCV_FISHEYE", fl_x=20.0, fl_y=20.0)
    scene = load_scene(write_transforms(tmp_path, capture, content))
    assert scene.lens is None and scene.resampled_from[1].lens.is_fisheye and scene.image_size == (24, 32)


def test_keeping_all_lenses_keeps_a_perspective_one(tmp_path):
    capture = random_capture()
    capture.distortion = (-0.1, 0.02, 1e-3, -2e-3)
    folder = write_transforms(tmp_path, capture)
    assert load_scene(folder).lens is None
    gin.bind_parameter("LensOptions.keep", "all")
    scene = load_scene(folder)
    assert scene.lens.tangential == (1e-3, -2e-3) and not scene.lens.is_fisheye
    assert torch.equal(scene.read_color(0), capture.images[0]) and scene.image_size == (24, 32)


def test_nothing_is_seen_beyond_the_crop_radius_or_the_widest_angle(tmp_path):
    capture = random_capture()
    content = fisheye_transforms(capture, k1=0.0, k2=0.0, k3=0.0, k4=0.0, fl_y=F, fisheye_crop_radius=10.0)
    folder = write_transforms(tmp_path, capture, content)
    radius = (pixel_grid(24, 32, torch.float64) - torch.tensor([CX, CY])).norm(dim=-1)
    assert torch.equal(load_scene(folder).read_mask(0), radius <= 10)
    assert load_scene(folder).lens.limit == pytest.approx(10 / F)
    gin.bind_parameter("LensOptions.widest", 30.0)
    assert torch.equal(load_scene(folder).read_mask(3), radius <= F * math.radians(30))
    gin.bind_parameter("LensOptions.widest", 0.01)
    with pytest.raises(UserError, match="sees no pixel of its pictures"):
        load_scene(folder)
    gin.bind_parameter("LensOptions.widest", 200.0)
    with pytest.raises(UserError, match="LensOptions.widest = 200"):
        load_scene(folder)


def test_masks_and_the_lens_both_count(tmp_path):
    from PIL import Image

    capture = random_capture()
    content = fisheye_transforms(capture, fisheye_crop_radius=10.0)
    folder = write_transforms(tmp_path, capture, content)
    seen = load_scene(folder).read_mask(0)
    (folder / "masks").mkdir()
    mask = np.full((24, 32), 255, np.uint8)
    mask[:, :16] = 0
    Image.fromarray(mask).save(folder / "masks" / "0.png")
    scene = load_scene(folder)
    assert torch.equal(scene.read_mask(0), seen & torch.from_numpy(mask > 0)) and torch.equal(scene.read_mask(1), seen)


def test_points_on_the_rays_of_pixels_return_to_them(tmp_path):
    scene = load_scene(fisheye_capture(tmp_path, "THIN_PRISM_FISHEYE"))
    pose = scene.camera_to_world[2]
    uv = pixel_grid(24, 32, torch.float64)
    points = unproject(uv, torch.full((24, 32), 3.0, dtype=torch.float64), scene.intrinsics, pose, scene.lens)
    assert ((points - pose[:3, 3]).norm(dim=-1) - 3).abs().max() < 1e-9
    back, depth = project(points, scene.intrinsics, pose, scene.lens)
    assert (back - uv).abs().max() < 1e-6 and (depth - 3).abs().max() < 1e-9

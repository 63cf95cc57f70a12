"""What is written for nerfstudio is what this project's own reader, and nerfstudio's rules, give back."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import CameraList, SparsePoints, load_scene
from dataloader.nerfstudio_writer import View, write_nerfstudio
from utils.cameras import look_at
from utils.errors import UserError
from utils.lenses import Lens

SIZE = (18, 24)


def cameras(count=11, skew=0.0, names=None):
    angle = torch.arange(count).double()
    eye = torch.stack((angle.cos() * 2, angle.sin() * 2, 0.1 * angle), dim=-1)
    intrinsics = torch.tensor([[20.25, skew, 11.5], [0, 21.75, 9.125], [0, 0, 1]])
    return CameraList("room", names or [str(number) for number in range(count)], look_at(eye, eye * 0), intrinsics,
                      SIZE)  # fmt: skip


def views(count=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        color = torch.randint(0, 256, (3, *SIZE), generator=generator, dtype=torch.uint8)
        depth = torch.rand(SIZE, generator=generator) * 8 * (torch.rand(SIZE, generator=generator) > 0.2)
        mask = torch.rand(SIZE, generator=generator) > 0.3
        yield View(color, depth if number != 4 else None, mask if number % 2 else None)


def test_it_is_read_back_as_it_was(tmp_path):
    points = SparsePoints(torch.randn(7, 3), torch.arange(21, dtype=torch.uint8).reshape(7, 3))
    folder, written = tmp_path / "room", cameras()
    figures = write_nerfstudio(folder, written, views(), ["0", "8", "77"], points)
    assert figures == {"views": 11, "held_out": 2, "depth_maps": 10, "masks": 5, "depth_beyond_range": 0, "points": 7}
    scene = load_scene(folder)
    assert scene.frames == written.names and scene.image_size == SIZE and scene.lens is None
    assert torch.equal(scene.camera_to_world, written.camera_to_world)
    assert torch.equal(scene.intrinsics, written.intrinsics[0])
    assert torch.equal(scene.points.positions, points.positions)
    assert torch.equal(scene.points.colors, points.colors)
    assert [name for name, split in zip(scene.frames, scene.splits, strict=True) if split != "train"] == ["0", "8"]
    for index, view in enumerate(views()):
        assert torch.equal(scene.read_color(index), view.color)
        depth, mask = scene.read_depth(index, SIZE), scene.read_mask(index)
        assert (depth is None) == (index == 4) and (mask is None) == (index % 2 == 0)
        if depth is not None:
            torch.testing.assert_close(depth, view.depth, atol=0.0005001, rtol=0)
        if mask is not None:
            assert torch.equal(mask, view.mask)


def test_the_file_is_what_nerfstudio_expects(tmp_path):
    """Axes of OpenGL; files that exist; every frame in one of the lists that it needs, all three of them."""
    write_nerfstudio(tmp_path, cameras(), views(), ["3"])
    content = json.loads((tmp_path / "transforms.json").read_text())
    assert content["camera_model"] == "OPENCV" and (content["w"], content["h"]) == (24, 18)
    assert (content["fl_x"], content["fl_y"], content["cx"], content["cy"]) == (20.25, 21.75, 11.5, 9.125)
    pose = np.array(content["frames"][2]["transform_matrix"])
    eye = pose[:3, 3]
    np.testing.assert_allclose(pose[:3, 2], eye / np.linalg.norm(eye), atol=1e-12)  # z points away from what is seen
    assert pose[2, 1] > 0.9 and np.linalg.det(pose[:3, :3]) == pytest.approx(1)  # y is up
    assert content["val_filenames"] == content["test_filenames"] == ["images/3.png"]
    files = {frame["file_path"] for frame in content["frames"]}
    assert files == {*content["train_filenames"], "images/3.png"} and "ply_file_path" not in content
    depth = np.array(Image.open(tmp_path / content["frames"][0]["depth_file_path"]))
    assert depth.dtype == np.uint16 and depth.max() > 7000 and content["depth_unit_scale_factor"] == 0.001


def test_intrinsics_of_each_view(tmp_path):
    written = cameras(4)
    written.intrinsics[2, 0, 0] = 30
    write_nerfstudio(tmp_path, written, views(4), [])
    content = json.loads((tmp_path / "transforms.json").read_text())
    assert [frame["fl_x"] for frame in content["frames"]] == [20.25, 20.25, 30, 20.25]
    assert not any(name.endswith("_filenames") for name in content)


def test_depth_beyond_the_range_is_none(tmp_path):
    depth = torch.full(SIZE, 2.0)
    depth[0, :5] = 65.6
    figures = write_nerfstudio(tmp_path, cameras(1), [View(torch.zeros(3, *SIZE, dtype=torch.uint8), depth)], [])
    stored = np.array(Image.open(tmp_path / "depth" / "0.png"))
    assert figures["depth_beyond_range"] == 5 and (stored[0, :5] == 0).all() and (stored[1:] == 2000).all()


def test_what_the_format_cannot_say_is_refused(tmp_path):
    with pytest.raises(UserError, match="room has several cameras of the same name"):
        write_nerfstudio(tmp_path, cameras(2, names=["1", "1"]), views(2), [])
    with pytest.raises(UserError, match="room: the intrinsics have a skew"):
        write_nerfstudio(tmp_path, cameras(2, skew=0.1), views(2), [])
    for lens in (Lens("fisheye", prism=(0.01, 0.0)), Lens("fisheye", tangential=(0.0, 0.01)),
                 Lens("perspective", (0.1, 0.0, 0.0, 0.0)), Lens("fisheye", divisor=(0.1, 0.0, 0.0))):  # fmt: skip
        with pytest.raises(UserError, match=f"room: its views are of a {lens.projection} lens that transforms.json"):
            write_nerfstudio(tmp_path, replace(cameras(2), lens=lens), views(2), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lens", [
    Lens("fisheye"), Lens("fisheye", (0.03, -0.011, 0.004, -0.0007)), Lens("fisheye", limit=1.6),
    Lens("fisheye", (0.03, -0.011, 0.004, -0.0007), limit=1.25), Lens("fisheye", (-0.2, 0.0, 0.0, 0.0), limit=1.0),
])  # fmt: skip
def test_fisheye_cameras_are_read_back(tmp_path, lens):
    """With a fold nearer than the limit, or none, no crop is written."""
    written = replace(cameras(), lens=lens)
    written.intrinsics[:] = torch.tensor([[7.25, 0, 11.5], [0, 7.5, 9.125], [0, 0, 1]])
    write_nerfstudio(tmp_path / "room", written, views(), ["3"])
    content = json.loads((tmp_path / "room" / "transforms.json").read_text())
    assert content["camera_model"] == "OPENCV_FISHEYE"
    assert tuple(content[f"k{place}"] for place in range(1, 5)) == lens.radial
    assert ("fisheye_crop_radius" in content) == (lens.limit < math.pi) and "p1" not in content
    scene = load_scene(tmp_path / "room")
    assert scene.lens.projection == "fisheye" and scene.lens.coefficients == lens.coefficients
    assert scene.lens.limit == pytest.approx(lens.limit, abs=1e-9) and scene.resampled_from is None
    assert torch.equal(scene.intrinsics, written.intrinsics[0])
    assert torch.equal(scene.camera_to_world, written.camera_to_world)
    for index, view in enumerate(views()):
        assert torch.equal(scene.read_color(index), view.color)
        if index != 4:
            seen = scene.read_depth(index, SIZE)
            beyond = (seen == 0) & (view.depth > 0.0005)
            torch.testing.assert_close(seen[~beyond], view.depth[~beyond], atol=0.0005001, rtol=0)
            assert lens.limit < math.pi or not beyond.any()


def test_a_limit_beyond_the_fold_needs_no_crop(tmp_path):
    """From 1.29 radians on this lens folds back; what it sees is the same without the limit of 2."""
    lens = Lens("fisheye", (-0.2, 0.0, 0.0, 0.0), limit=2.0)
    write_nerfstudio(tmp_path, replace(cameras(), lens=lens), views(), [])
    assert load_scene(tmp_path).lens.reach == lens.reach == pytest.approx(1.29099, abs=1e-5)


def test_each_fisheye_view_has_its_own_circle(tmp_path):
    """The same angle is farther out where the focal length is longer."""
    written = replace(cameras(3), lens=Lens("fisheye", limit=1.2))
    written.intrinsics[1, 0, 0] = 30
    write_nerfstudio(tmp_path, written, views(3), [])
    frames = json.loads((tmp_path / "transforms.json").read_text())["frames"]
    assert [frame["fisheye_crop_radius"] for frame in frames] == pytest.approx([20.25 * 1.2, 36, 20.25 * 1.2])

"""NSVF, instant-ngp and COLMAP folders: equal cameras and pictures whatever the layout."""

import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import load_scannet_scene, load_scene
from tests.dataloader.scannet_fixture import write_scannet_scene
from tests.dataloader.scene_exports import (
    LAYOUTS,
    random_capture,
    transforms,
    write_colmap,
    write_nsvf,
    write_transforms,
)
from utils.errors import UserError
from utils.images import write_image


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cameras_and_pictures_are_the_originals(layout, tmp_path):
    capture = random_capture(count=12)
    scene = load_scene(LAYOUTS[layout](tmp_path / "scene", capture))
    assert scene.frames == [str(index) for index in range(12)] and scene.layout.lower() in layout.lower()
    torch.testing.assert_close(scene.camera_to_world, capture.poses, rtol=0, atol=1e-8)
    torch.testing.assert_close(scene.intrinsics, capture.intrinsics, rtol=0, atol=1e-9)
    assert scene.image_size == (24, 32) and scene.resampled_from is None and scene.lens is None
    assert not scene.metric and scene.splits is None
    assert all(torch.equal(scene.read_color(index), image) for index, image in enumerate(capture.images))
    assert scene.read_depth(0) is None and scene.read_alpha(0) is None


@pytest.mark.parametrize("layout", ["colmap", "colmap text"])
def test_sparse_points(layout, tmp_path):
    capture = random_capture()
    points = load_scene(LAYOUTS[layout](tmp_path / "scene", capture)).points
    torch.testing.assert_close(points.positions, capture.points.float())
    assert torch.equal(points.colors.long(), capture.point_colors)


def test_scannet_folders_are_opened_as_before(tmp_path):
    folder = write_scannet_scene(tmp_path / "scene0000_00", num_frames=4)
    (folder / "sparse").mkdir()
    one, other = load_scene(folder), load_scannet_scene(folder)
    assert one.metric and one.layout == "ScanNet" and one.background is None and one.frames == other.frames
    assert torch.equal(one.camera_to_world, other.camera_to_world)
    assert torch.equal(one.read_depth(0), other.read_depth(0)) and torch.equal(one.read_color(0), other.read_color(0))


def test_unknown_layout_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"no known layout; looked for color/.*transforms.json.*pose/.*cameras.bin"):
        load_scene(tmp_path)
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load_scene(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("37.5 16. 12. 0.\n0. 0. 0.\n0.\n1.\n24 32\n", (37.5, 37.5, 16, 12)),
        ("75 32. 24. 0.\n0. 0. 0.\n0.\n1.\n48 64\n", (37.5, 37.5, 16, 12)),  # belongs to images twice as large
        ("37.5 16. 12. 0.\n", (37.5, 37.5, 16, 12)),
        ("40 0 15 0 0 38 11 0 0 0 1 0 0 0 0 1\n", (40, 38, 15, 11)),
        ("40 0 15\n0 38 11\n0 0 1\n", (40, 38, 15, 11)),
        ("40 0 15 0\n0 38 11 0\n0 0 1 0\n0 0 0 1\n", (40, 38, 15, 11)),
    ],
)
def test_nsvf_intrinsics(text, expected, tmp_path):
    folder = write_nsvf(tmp_path / "scene", random_capture())
    (folder / "intrinsics.txt").write_text(text)
    matrix = load_scene(folder).intrinsics
    assert (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]) == pytest.approx(expected)


def test_nsvf_splits_bounds_and_3x4_poses(tmp_path):
    capture = random_capture(count=3)
    folder = write_nsvf(tmp_path / "scene", capture, bounds=[-1, -2, -3, 1, 2, 3.5])
    np.savetxt(folder / "pose" / "2.txt", capture.poses[2, :3].numpy())
    for name, split in (("0", "0_train_0000"), ("1", "1_val_0000"), ("2", "2_test_0000")):
        (folder / "rgb" / f"{name}.png").rename(folder / "rgb" / f"{split}.png")
        (folder / "pose" / f"{name}.txt").rename(folder / "pose" / f"{split}.txt")
    scene = load_scene(folder)
    assert scene.frames == ["0_train_0000", "1_val_0000", "2_test_0000"] and scene.splits == ["train", "val", "test"]
    assert scene.bounds.tolist() == [[-1, -2, -3], [1, 2, 3.5]]
    torch.testing.assert_close(scene.camera_to_world, capture.poses, rtol=0, atol=1e-8)


def test_angle_of_view_splits_and_file_names_without_suffix(tmp_path):
    capture = random_capture(count=4)
    content = transforms(capture, suffix="")
    for name in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        del content[name]
    content["camera_angle_x"] = 2 * np.arctan(16 / 40)
    folder = write_transforms(tmp_path / "scene", capture, content)
    (folder / "transforms.json").unlink()
    for split, frames in (("train", content["frames"][:2]), ("test", content["frames"][2:])):
        (folder / f"transforms_{split}.json").write_text(json.dumps({**content, "frames": frames}))
    scene = load_scene(folder)
    assert scene.splits == ["train", "train", "test", "test"] and scene.bounds is None
    expected = torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(scene.intrinsics, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(scene.camera_to_world, capture.poses, rtol=0, atol=1e-12)


def test_same_names_in_train_and_test_are_kept_apart(tmp_path):
    capture = random_capture(count=2)
    content = transforms(capture)
    folder = write_transforms(tmp_path / "scene", capture)
    (folder / "transforms.json").unlink()
    for split in ("train", "test"):
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    assert load_scene(folder).frames == ["test_images_0", "test_images_1", "train_images_0", "train_images_1"]


def test_instant_ngp_box(tmp_path):
    capture = random_capture()
    content = {**transforms(capture), "aabb_scale": 4, "scale": 0.5, "offset": [0.5, 0.25, 0.5]}
    scene = load_scene(write_transforms(tmp_path / "scene", capture, content))
    # A point x is at 0.5 x + offset in instant-ngp's box, which runs from -1.5 to 2.5.
    assert scene.bounds.tolist() == [[-4, -3.5, -4], [4, 4.5, 4]]


def test_transparent_pixels_show_the_background(tmp_path):
    capture = random_capture(channels=4)
    folder = write_nsvf(tmp_path / "scene", capture)
    color, alpha = capture.images[1][:3].double(), capture.images[1][3:].double() / 255
    for background in (1.0, 0.0, 0.5):
        scene = load_scene(folder, background)
        expected = color * alpha + 255 * background * (1 - alpha)
        assert (scene.read_color(1) - expected).abs().max() <= 0.5 + 1e-4
    assert scene.transparent and torch.equal(scene.read_alpha(1), capture.images[1][3:])


def test_frames_that_cannot_be_used_are_left_out(tmp_path, caplog):
    folder = write_nsvf(tmp_path / "scene", random_capture(count=8))
    (folder / "pose" / "1.txt").write_text("nan " * 16)
    (folder / "pose" / "2.txt").write_text("1 2 3")
    np.savetxt(folder / "pose" / "3.txt", 2 * np.eye(4))
    (folder / "pose" / "4.txt").unlink()
    (folder / "rgb" / "5.png").write_bytes(b"no picture")
    scene = load_scene(folder)
    assert scene.frames == ["0", "6", "7"] and len(scene.skipped) == 5
    assert "2 with an unreadable pose" in caplog.text and "1 with a lost pose" in caplog.text
    assert "with a colour image that cannot be read (such as " in caplog.text and "5.png" in caplog.text


def test_images_that_a_model_names_may_be_missing(tmp_path, caplog):
    folder = write_colmap(tmp_path / "scene", random_capture(count=4))
    (folder / "images" / "2.png").unlink()
    assert load_scene(folder).frames == ["0", "1", "3"] and "without colour image (such as" in caplog.text


def test_the_largest_of_several_models_is_taken(tmp_path, caplog):
    small, large = random_capture(count=2), random_capture(count=6)
    folder = write_colmap(tmp_path / "scene", small)
    (folder / "sparse" / "0").rename(folder / "sparse" / "1")
    write_colmap(folder, large)
    (folder / "sparse" / "0").rename(folder / "sparse" / "2")
    assert len(load_scene(folder)) == 6 and "2 models" in caplog.text


def test_images_reduced_after_the_reconstruction(tmp_path):
    capture = random_capture()
    folder = write_colmap(tmp_path / "scene", capture)
    for path in (folder / "images").iterdir():
        write_image(path, torch.zeros(3, 12, 16))
    scene = load_scene(folder)
    assert scene.image_size == (12, 16) and scene.intrinsics[0].tolist() == pytest.approx([20, 0, 7.6])
    for path in (folder / "images").iterdir():
        write_image(path, torch.zeros(3, 32, 24))
    with pytest.raises(UserError, match="cameras.bin: a camera of 32x24 pixels, but its images are 24x32"):
        load_scene(folder)


def test_cameras_that_no_image_uses_do_not_matter(tmp_path):
    plain = load_scene(write_colmap(tmp_path / "plain", random_capture()))
    binary = write_colmap(tmp_path / "binary", random_capture()) / "sparse" / "0" / "cameras.bin"
    content = bytearray(binary.read_bytes())
    content[:8] = struct.pack("<Q", 3)
    unused = struct.pack("<iiQQ8d", 1, 5, 9, 9, *[1.0] * 8) + struct.pack("<iiQQ4d", 2, 1, 0, 0, *[float("nan")] * 4)
    binary.write_bytes(content + unused)
    text = write_colmap(tmp_path / "text", random_capture(), binary=False) / "sparse" / "0" / "cameras.txt"
    text.write_text(text.read_text() + "1 OPENCV_FISHEYE 9 9 1 1 1 1 1 1 1 1\n2 A_MODEL_OF_2030 0 0 1\n")
    for folder in ("binary", "text"):
        scene = load_scene(tmp_path / folder)
        assert scene.frames == plain.frames and torch.allclose(scene.intrinsics, plain.intrinsics)


def _turned(folder, capture, turn, stored_size_is_the_cameras):
    """A scene whose images are stored turned, with the tag that turns them back; or whose camera saw them stored."""
    write_transforms(folder, capture)
    exif = Image.Exif()
    exif[0x0112] = turn
    for path in (folder / "images").iterdir():
        image = Image.open(path)
        stored = image if stored_size_is_the_cameras else image.transpose(Image.Transpose.ROTATE_90)
        stored.save(path, exif=exif)
    return load_scene(folder)


def test_images_turned_by_exif_are_read_as_their_cameras_saw_them(tmp_path):
    capture = random_capture()
    scene = _turned(tmp_path / "shown", capture, 6, stored_size_is_the_cameras=False)
    assert scene.turned and "are turned as their EXIF tag says" in scene.remarks[0]
    for index, image in enumerate(capture.images):
        assert torch.equal(scene.read_color(index), image)
    scene = _turned(tmp_path / "stored", capture, 6, stored_size_is_the_cameras=True)
    assert not scene.turned and "read as stored" in scene.remarks[0]
    for index, image in enumerate(capture.images):
        assert torch.equal(scene.read_color(index), image)
    scene = _turned(tmp_path / "upside_down", capture, 3, stored_size_is_the_cameras=True)
    assert torch.equal(scene.read_color(0), capture.images[0].flip(1, 2))
    assert "nothing but the poses" in scene.remarks[0]

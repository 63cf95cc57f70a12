"""NSVF, instant-ngp and COLMAP folders: equal cameras whatever the layout, and one sentence for each mistake."""

import json
import re
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import load_scannet_scene, load_scene
from tests.dataloader.scannet_fixture import write_scannet_scene
from tests.dataloader.scene_exports import (
    random_capture,
    transforms,
    write_colmap,
    write_nsvf,
    write_transforms,
)
from utils.errors import UserError
from utils.images import write_image

WRITERS = {
    "nsvf": write_nsvf,
    "instant-ngp": write_transforms,
    "colmap": write_colmap,
    "colmap text": lambda folder, capture: write_colmap(folder, capture, binary=False),
}


@pytest.mark.parametrize("layout", WRITERS)
def test_cameras_and_pictures_are_the_originals(layout, tmp_path):
    capture = random_capture(count=12)
    scene = load_scene(WRITERS[layout](tmp_path / "scene", capture))
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
    points = load_scene(WRITERS[layout](tmp_path / "scene", capture)).points
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


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _cut(path, count):
    path.write_bytes(path.read_bytes()[:-count])


@pytest.mark.parametrize(
    ("layout", "damage", "message"),
    [
        ("nsvf", lambda f: (f / "intrinsics.txt").write_text("focal"), "intrinsics.txt cannot be read as rows"),
        ("nsvf", lambda f: (f / "intrinsics.txt").write_text("40 16 12 0\nnan 32\n"), "as rows of finite numbers"),
        ("nsvf", lambda f: (f / "intrinsics.txt").unlink(), "intrinsics.txt does not exist"),
        ("nsvf", lambda f: (f / "intrinsics.txt").write_text("1 2\n"), "intrinsics.txt holds 2 numbers"),
        ("nsvf", lambda f: (f / "intrinsics.txt").write_text("-4 16 12 0\n"), "intrinsics.txt: a camera of 32x24"),
        ("nsvf", lambda f: (f / "bbox.txt").write_text("1 1 1 0 0 0"), "bbox.txt holds"),
        ("nsvf", lambda f: [path.unlink() for path in (f / "rgb").iterdir()], "rgb holds no files"),
        ("nsvf", lambda f: [path.write_text("inf " * 16) for path in (f / "pose").iterdir()],
         "no usable frame: 5 with a lost pose"),
        ("instant-ngp", lambda f: (f / "transforms.json").write_text("{"), "cannot be read as valid JSON"),
        ("instant-ngp", lambda f: (f / "transforms.json").write_text("[]"), "transforms.json has no list 'frames'"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json", lambda c: c.update(equirectangular=True)),
         r"is neither a perspective nor a fisheye camera \(equirectangular\)"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json", lambda c: [
            c.update(camera_model="OPENCV_FISHEYE", camera_angle_x=1.0), c.pop("fl_x"), c.pop("fl_y")]),
         "has no focal length"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json", lambda c: c.update(
            is_fisheye=True, fisheye_crop_radius=-3)), "fisheye_crop_radius is -0.075 focal lengths"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json", lambda c: [c.pop("fl_x"), c.pop("fl_y")]),
         "has no focal length"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json", lambda c: c.update(k1="a")), "k1 is 'a'"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json", lambda c: c.update(cx=10**400)), "cx is 1000"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json",
                                        lambda c: [c.pop("fl_x"), c.pop("fl_y"), c.update(camera_angle_x=0)]),
         "camera_angle_x is 0; expected radians"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json", lambda c: c["frames"][1].pop("file_path")),
         "a frame without 'file_path'"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json", lambda c: c.update(aabb_scale=0)), "make no box"),
        ("instant-ngp", lambda f: [path.unlink() for path in (f / "images").iterdir()],
         "no usable frame: 5 without colour image"),
        ("instant-ngp", lambda f: _edit(f / "transforms.json",
                                        lambda c: [one.update(transform_matrix="x") for one in c["frames"]]),
         "no usable frame: 5 with an unreadable pose"),
        *(("instant-ngp", lambda f, edit=edit: _edit(f / "transforms.json", edit), message) for edit, message in (
            (lambda c: c["frames"][1].update(file_path="a\0b.png"), "cannot be a path of an image"),
            (lambda c: c["frames"][1].update(file_path="a" * 5000), "cannot be a path of an image"),
            (lambda c: c["frames"][1].update(file_path="\ud800.png"), "cannot be a path of an image"),
            (lambda c: c["frames"][1].update(file_path="images/1\n.png"), "cannot be a path of an image"),
            (lambda c: c["frames"][1].update(file_path=".."), "'..' cannot be a frame's name"),
            (lambda c: c.update(w=10**11), "a camera of 100000000000x24 pixels"),
            (lambda c: c.update(fl_x=1e-9), "focal lengths"), (lambda c: c.update(fl_x=1e11), "focal lengths"),
            (lambda c: c.update(k1=1e11), "distortion"), (lambda c: c.update(k1=float("nan")), "k1 is nan"),
            (lambda c: c.update(k1=-1e8, k2=1e8, k3=-1e8), "transforms.json"),
            (lambda c: c.update(aabb_scale=4, scale=1e-12), "its box runs from"),
            (lambda c: c.update(aabb_scale=4, offset=[1, 2, "x"]), "offset is 'x'"),
            (lambda c: c.update(camera_model=["x"] * 10**5), "is neither a perspective nor"),
            (lambda c: [one.update(transform_matrix=[[10**400] * 4] * 4) for one in c["frames"]], "5 with an unread"),
            (lambda c: [one.update(transform_matrix=[[1, 0, 0, 1e13], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
                        for one in c["frames"]], "5 with a pose farther than 1e\\+12"),
        )),
        ("colmap text", lambda f: (f / "sparse/0/cameras.txt").write_text("7 PINHOLE 99999999999 24 40 40 16 12\n"),
         "cameras.txt: a camera of 99999999999x24"),
        ("colmap text", lambda f: (f / "sparse/0/cameras.txt").write_text("7 OPENCV 32 24 40 40 16 12 1e300 0 0 0\n"),
         "cameras.txt: a camera of 32x24"),
        ("colmap text", lambda f: (f / "sparse/0/cameras.txt").write_bytes(b"\xff\xfe7"), "UnicodeDecodeError"),
        ("colmap text", lambda f: (f / "sparse/0/images.txt").write_text("1 1 0 0 0 0 0 0 7 ..\n\n"),
         "'..' cannot be a frame's name"),
        ("colmap text", lambda f: (f / "sparse/0/images.txt").write_text("1 1 0 0 0 0 0 0 7 a.png\n\n" * 2),
         "two images are called a"),
        ("colmap text", lambda f: (f / "sparse/0/points3D.txt").write_text("1 0 0 0 300 0 0 0\n"), "a point's colour"),
        ("colmap", lambda f: (f / "sparse/0/cameras.bin").write_bytes(
            struct.pack("<QiiQQ4d", 1, 7, 1, 2**60, 24, 40, 40, 16, 12)), "bin: a camera of 1152921504606846976x24"),
        ("colmap", lambda f: (f / "sparse/0/images.bin").write_bytes(struct.pack("<Q", 2**63)), "images.bin cannot be"),
        ("nsvf", lambda f: (f / "intrinsics.txt").write_text("40 16 12 0\n1e300 32\n"), "intrinsics.txt: a camera of"),
        ("nsvf", lambda f: (f / "intrinsics.txt").write_bytes(b"\xff"), "intrinsics.txt cannot be read as rows"),
        ("nsvf", lambda f: (f / "bbox.txt").write_text("-1e300 0 0 1e300 1 1 0.1"), "its box runs from"),
        ("nsvf", lambda f: (f / "bbox.txt").write_text("1 " * 10**5), "bbox.txt holds"),
        ("nsvf", lambda f: (f / "rgb/1.png").rename(f / "rgb/a\\b.png"), "cannot be a frame's name"),
        ("colmap", lambda f: _cut(f / "sparse/0/cameras.bin", 4), "cameras.bin cannot be read"),
        ("colmap", lambda f: _cut(f / "sparse/0/images.bin", 20), "images.bin cannot be read"),
        ("colmap", lambda f: _cut(f / "sparse/0/points3D.bin", 4), "points3D.bin cannot be read"),
        ("colmap", lambda f: (f / "sparse/0/images.bin").write_bytes(struct.pack("<Q", 0)), "no registered image"),
        ("colmap text", lambda f: (f / "sparse/0/cameras.txt").write_text("7 PINHOLE 32 24 40 40 16\n"),
         "camera 7 of model PINHOLE has 3 parameters"),
        ("colmap text", lambda f: (f / "sparse/0/cameras.txt").write_text("8 PINHOLE 32 24 40 40 16 12\n"),
         "was taken by camera 7"),
        ("colmap text", lambda f: (f / "sparse/0/cameras.txt").write_text("7 FOV 32 24 40 40 16 12 1\n"),
         "camera 7 has the model 'FOV'; expected one of SIMPLE_PINHOLE"),
        ("colmap text", lambda f: (f / "sparse/0/images.txt").write_text("1 0 0 0 name\n\n"), "images.txt cannot be"),
        ("colmap text", lambda f: (f / "sparse/0/points3D.txt").write_text("1 0 0\n"), "points3D.txt cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_get_one_sentence(layout, damage, message, tmp_path):
    folder = WRITERS[layout](tmp_path / "scene", random_capture())
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_scene(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("colmap", "sparse/0/cameras.bin"), ("colmap", "sparse/0/images.bin"), ("colmap", "sparse/0/points3D.bin"),
        ("colmap text", "sparse/0/cameras.txt"), ("colmap text", "sparse/0/images.txt"),
        ("colmap text", "sparse/0/points3D.txt"), ("instant-ngp", "transforms.json"), ("nsvf", "intrinsics.txt"),
        ("nsvf", "pose/1.txt"),
    ],
)  # fmt: skip
def test_random_damage_is_never_a_traceback(layout, file, tmp_path):
    folder = WRITERS[layout](tmp_path / "scene", random_capture())
    original = (folder / file).read_bytes()
    generator, noticed = np.random.default_rng(0), 0
    for turn in range(30):
        damaged = bytearray(original)
        if turn % 3 == 0:
            damaged = damaged[: generator.integers(len(damaged))]
        else:
            for _ in range(1 + 5 * (turn % 2)):
                damaged[generator.integers(len(damaged))] = generator.integers(256)
        (folder / file).write_bytes(damaged)
        try:
            scene = load_scene(folder)
            scene.read_color(0)
            noticed += bool(scene.skipped)
        except UserError as error:
            assert "\n" not in str(error)
            noticed += 1
    assert noticed >= 10  # a third is cut off


@pytest.mark.parametrize(("model", "count", "message"), [
    (7, 5, "camera 7 has the model 'FOV'"),
    (11, 16, "camera 7 has the model 'RAD_TAN_THIN_PRISM_FISHEYE'"),
    (99, 4, "unknown model number 99: a newer COLMAP's, which can export the model as text"),
])  # fmt: skip
def test_unsupported_camera_models_in_binary(model, count, message, tmp_path):
    folder = write_colmap(tmp_path / "scene", random_capture())
    head = struct.pack("<QiiQQ", 1, 7, model, 32, 24)
    (folder / "sparse" / "0" / "cameras.bin").write_bytes(head + struct.pack(f"<{count}d", *[20.0] * count))
    with pytest.raises(UserError, match=f"cameras.bin.*{message}"):
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


def test_pictures_that_hold_several_are_named(tmp_path):
    write_transforms(tmp_path, random_capture())
    image = Image.open(tmp_path / "images" / "2.png")
    other = image.transpose(Image.Transpose.ROTATE_180)
    image.save(tmp_path / "images" / "2.png", save_all=True, append_images=[other])
    scene = load_scene(tmp_path)
    assert list(scene.skipped) == ["2"] and "2.png holds 2 pictures; expected one" in scene.skipped["2"]


def test_colmap_text_without_blank_lines_keeps_every_image(tmp_path):
    plain = load_scene(write_colmap(tmp_path / "plain", random_capture(7), binary=False))
    folder = write_colmap(tmp_path / "scene", random_capture(7), binary=False)
    path = folder / "sparse" / "0" / "images.txt"
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    without = [line for line in lines if line.startswith("#") or line.endswith(".png")]
    for kept in (without, lines):  # no second lines at all, and some with points beside some that were cut out
        path.write_text("\n".join(["# Number of images: 7, mean observations per image: 2", *kept]) + "\n")
        scene = load_scene(folder)
        assert scene.frames == plain.frames and torch.equal(scene.camera_to_world, plain.camera_to_world)
        assert not scene.skipped and not scene.remarks
    path.write_text("\n".join(["# Number of images: 9, mean observations per image: 2", *without]) + "\n")
    assert "says that it has 9 images and lists 7" in load_scene(folder).remarks[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("layout", ["transforms", "colmap"])
def test_lists_in_other_encodings_with_accents(tmp_path, layout, encoding):
    capture = random_capture()
    write = write_transforms if layout == "transforms" else write_colmap
    folder = write(tmp_path, capture) if layout == "transforms" else write(tmp_path, capture, binary=False)
    for path in list((folder / "images").iterdir()):
        path.rename(path.with_name(f"k\u00fcche {path.name}"))
    lists = [folder / "transforms.json"] if layout == "transforms" else list((folder / "sparse" / "0").iterdir())
    for path in lists:
        text = re.sub(r"(\d)\.png", "k\u00fcche \\1.png", path.read_text())
        path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    scene = load_scene(folder)
    assert scene.frames == [f"k\u00fcche {index}" for index in range(5)]
    for index, image in enumerate(capture.images):
        assert torch.equal(scene.read_color(index), image)


@pytest.mark.parametrize(
    ("listed", "on_disk", "told"),
    [
        ("images/{}", "{}.PNG", False), ("images/a.b.{}", "a.b.{}.png", False), ("images\\{}.png", "{}.png", False),
        ("C:\\capture\\images\\{}.png", "{}.png", False), ("/home/somebody/capture/images/{}.png", "{}.png", False),
        ("IMAGES/{}.JPG", "{}.jpg", True), ("images/caf\u00e9 {}.png", "cafe\u0301 {}.png", True),
        ("images/{}.jpg", "{}.png", True), ("images/frame.{}", "frame.{}.jpeg", False),
    ],
)  # fmt: skip
def test_names_as_other_systems_write_them(tmp_path, listed, on_disk, told):
    capture = random_capture()
    content = transforms(capture)
    for index, frame in enumerate(content["frames"]):
        frame["file_path"] = listed.format(index)
    write_transforms(tmp_path, capture, content)
    for index in range(5):
        (tmp_path / "images" / f"{index}.png").rename(tmp_path / "images" / on_disk.format(index))
    scene = load_scene(tmp_path)
    assert len(scene) == 5 and bool(scene.remarks) == told
    for index, image in enumerate(capture.images):  # each frame has its own image, in the order of the numbers
        assert torch.equal(scene.read_color(index), image)


def test_a_name_that_could_mean_two_files_is_not_guessed(tmp_path):
    content = transforms(random_capture())
    content["frames"][0]["file_path"] = "images/0.tif"
    write_transforms(tmp_path, random_capture(), content)
    write_image(tmp_path / "images" / "0.jpg", random_capture().images[0])
    assert list(load_scene(tmp_path).skipped) == ["0"]

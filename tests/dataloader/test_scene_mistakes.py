"""Mistakes and damage in NSVF, instant-ngp and COLMAP folders: one sentence for each, never a traceback."""

import json
import struct

import numpy as np
import pytest

from dataloader import load_scene
from tests.dataloader.scene_exports import (
    LAYOUTS,
    random_capture,
    write_colmap,
)
from utils.errors import UserError


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
    folder = LAYOUTS[layout](tmp_path / "scene", random_capture())
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
    folder = LAYOUTS[layout](tmp_path / "scene", random_capture())
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

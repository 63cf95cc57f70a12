"""Lists of images as other programs and systems write them: every image is found, under its own name."""

import re

import pytest
import torch
from PIL import Image

from dataloader import load_scene
from tests.dataloader.scene_exports import (
    random_capture,
    transforms,
    write_colmap,
    write_transforms,
)
from utils.images import write_image


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


def test_pictures_that_hold_several_are_named(tmp_path):
    write_transforms(tmp_path, random_capture())
    image = Image.open(tmp_path / "images" / "2.png")
    other = image.transpose(Image.Transpose.ROTATE_180)
    image.save(tmp_path / "images" / "2.png", save_all=True, append_images=[other])
    scene = load_scene(tmp_path)
    assert list(scene.skipped) == ["2"] and "2.png holds 2 pictures; expected one" in scene.skipped["2"]

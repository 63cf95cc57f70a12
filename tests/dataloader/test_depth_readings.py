"""Depth maps that hold something else than depth at the photographs' pixels are found, with what they hold."""

import numpy as np
import pytest
from PIL import Image

from dataloader import load_scene
from dataloader.consistency import find_contradiction
from dataloader.synthesis import PictureOptions, RoomOptions, write_room
from dataloader.verification import verify_scan
from tests.analysis.box_room import INTRINSICS, SIZE
from tests.dataloader.test_consistency import write


def rewrite(folder, change):
    for path in (folder / "depth").iterdir():
        changed = change(np.asarray(Image.open(path)).astype(np.float64))
        Image.fromarray(changed.round().clip(0, 65535).astype(np.uint16)).save(path)
    return folder


def stretch():
    """Distance along the ray of depth one, at each pixel."""
    (fx, _, cx), (_, fy, cy), _ = INTRINSICS.tolist()
    v, u = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return np.sqrt(1 + ((u - cx) / fx) ** 2 + ((v - cy) / fy) ** 2)


@pytest.mark.parametrize("change, text, remedy", [
    (lambda depth: depth * stretch(), "hold distances along the rays, and depth along the optical axis is expected",
     "each pixel divided by sqrt(1 + ((u - cx) / fx)^2 + ((v - cy) / fy)^2)"),
    (lambda depth: depth[:, ::-1], "hold mirrored pictures", "mirrored from left to right"),
    (lambda depth: depth[::-1], "hold mirrored pictures", "mirrored from top to bottom"),
    (lambda depth: depth[::-1, ::-1], "hold pictures that are upside down", "turned by 180 degrees"),
])  # fmt: skip
def test_what_depth_maps_hold_is_named(tmp_path, change, text, remedy):
    folder = rewrite(write(tmp_path / "room"), change)
    found = find_contradiction(load_scene(folder))
    assert text in found.text and remedy in found.remedy
    assert [text in finding.text for finding in verify_scan(folder) if finding.broken] == [True]


@pytest.mark.parametrize("change", [
    lambda depth: depth.astype(np.uint16).byteswap(), lambda depth: 2e6 / depth,
    lambda depth: np.random.default_rng(int(depth.sum())).uniform(500, 5000, depth.shape),
])  # fmt: skip
def test_depth_that_agrees_with_nothing_is_told(tmp_path, change):
    """Bytes in the other order, disparities, noise: a note, since nothing is known that would make them agree."""
    folder = rewrite(write(tmp_path / "room"), change)
    found = find_contradiction(load_scene(folder))
    assert "contradict each other" in found.text and found.remedy is None
    findings = [finding for finding in verify_scan(folder) if "contradict each other" in finding.text]
    assert [finding.broken for finding in findings] == [False] and "nothing that was tried" in findings[0].text


def test_depth_along_the_axis_of_a_fisheye(tmp_path):
    """There distances are expected; what is beside or behind the camera has no depth along the axis."""
    folder = tmp_path / "room"
    write_room(folder, 3, 0, RoomOptions(types=("bathroom",), edge=0.15),
               PictureOptions((48, 64), 16, 150.0, noise=0.0, lens="fisheye"))  # fmt: skip
    scene = load_scene(folder)
    assert find_contradiction(scene) is None
    (fx, _, cx), (_, fy, cy), _ = scene.intrinsics.tolist()
    v, u = np.mgrid[:48, :64] + 0.5
    cosine = np.cos(np.hypot((u - cx) / fx, (v - cy) / fy)).clip(0)  # equidistant, without distortion
    found = find_contradiction(load_scene(rewrite(folder, lambda depth: depth * cosine)))
    assert "hold depth along the optical axis, and distances along the rays is expected" in found.text

"""Depth maps under the names of their neighbours are found, by how many frames and which way; sound scenes are not."""

import math
from dataclasses import replace

import pytest
import torch

from dataloader import load_scene
from dataloader.consistency import find_contradiction
from dataloader.verification import verify_scan
from tests.dataloader.test_consistency import HOLOLENS, opengl, poses, write


def misname(folder, shift: int) -> None:
    """Frame N gets the depth map of frame N + shift; what then has none is lost."""
    maps = {int(path.stem): path.read_bytes() for path in (folder / "depth").iterdir()}
    for number in maps:
        (folder / "depth" / f"{number}.png").unlink()
    for number, content in maps.items():
        if number - shift in maps:
            (folder / "depth" / f"{number - shift}.png").write_bytes(content)


def shaken(count: int, degrees: float):
    """The walk of ``poses`` in so many frames, in a hand that turns the camera anew every few frames."""
    generator = torch.Generator().manual_seed(1)
    window = torch.exp(-torch.linspace(-2, 2, 9, dtype=torch.float64) ** 2)
    turns = torch.randn(3, 1, count, generator=generator, dtype=torch.float64)
    turns = torch.nn.functional.conv1d(turns, window[None, None] / window.norm(), padding=4)[:, 0]
    x, y, z = turns * math.radians(degrees)
    zero = torch.zeros_like(x)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=1).view(-1, 3, 3)
    cameras = poses(count).clone()
    cameras[:, :3, :3] = cameras[:, :3, :3] @ torch.linalg.matrix_exp(skew)
    return cameras


@pytest.mark.parametrize("shift, expected", [
    (1, "one frame off: the depth of frame 15 agrees with the pose of frame 16, and"),
    (-1, "one frame off: the depth of frame 16 agrees with the pose of frame 15, and"),
    (2, "2 frames off: the depth of frame 15 agrees with the pose of frame 17, and"),
])  # fmt: skip
def test_depth_of_neighbours_is_named(tmp_path, shift, expected):
    folder = write(tmp_path / "room")
    misname(folder, shift)
    found = find_contradiction(load_scene(folder))
    assert expected in found.text and f"depth/{15 + (shift < 0)}.png" in found.remedy
    assert [expected in finding.text for finding in verify_scan(folder) if finding.broken] == [True]


def test_a_slow_walk_in_a_shaking_hand(tmp_path):
    """Neighbours are so near that nearly all points agree as they are, within the tolerance of units and axes."""
    folder = write(tmp_path / "room", cameras=shaken(200, 1.0))
    assert find_contradiction(load_scene(folder)) is None
    misname(folder, 1)
    assert "the depth of frame 100 agrees with the pose of frame 101" in find_contradiction(load_scene(folder)).text


def test_a_camera_that_moves_evenly_or_not_at_all_is_not_suspected(tmp_path):
    """There the poses of neighbours fit as well, and which is right makes no difference."""
    for name, cameras in (("even", poses(200)), ("still", poses(1).expand(12, 4, 4))):
        folder = write(tmp_path / name, cameras=cameras)
        misname(folder, 1)
        assert find_contradiction(load_scene(folder)) is None


def test_imprecise_poses_and_other_mistakes_are_no_shift(tmp_path):
    scene = load_scene(write(tmp_path / "room"))
    generator = torch.Generator().manual_seed(0)
    for error in (0.01, 0.03, 0.1):
        positions = scene.camera_to_world.clone()
        positions[:, :3, 3] += error * torch.randn(len(scene), 3, generator=generator, dtype=torch.float64)
        assert find_contradiction(replace(scene, camera_to_world=positions)) is None
    assert "OpenGL" in find_contradiction(load_scene(write(tmp_path / "axes", opengl))).remedy


@pytest.mark.skipif(not HOLOLENS.exists(), reason="needs the reference data")
@pytest.mark.parametrize("shift", [1, -2])
def test_a_real_capture_with_its_depth_misnamed(shift):
    scene = load_scene(HOLOLENS)
    count = len(scene)
    maps = [scene.depth_paths[at + shift] if 0 <= at + shift < count else None for at in range(count)]
    found = find_contradiction(replace(scene, depth_paths=maps))
    names = ("79", "80") if shift == 1 else ("81", "79")
    assert "the depth of frame {} agrees with the pose of frame {},".format(*names) in found.text

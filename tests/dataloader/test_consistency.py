"""Depth, poses and mesh that contradict each other are found, with what would make them agree; sound scenes are not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import load_mesh, load_scene
from dataloader.consistency import find_contradiction
from dataloader.synthesis.scene_folder import write_ply
from dataloader.verification import verify_scan
from tests.analysis.box_room import INTRINSICS, SIZE, mesh, ray_cast
from utils.cameras import look_at

HOLOLENS = Path(__file__).resolve().parents[3] / "shared" / "data" / "hololens_room"


def opengl(pose):
    return pose @ np.diag([1, -1, -1, 1])


def millimetres(pose):
    return np.block([[pose[:3, :3], 1000 * pose[:3, 3:]], [np.array([[0, 0, 0, 1]])]])


def poses(count=30):
    """A walk through the room that looks around."""
    along = torch.linspace(0, 1, count, dtype=torch.float64)
    eyes = torch.stack((0.8 + 3.2 * along, 3.0 - 1.5 * along, 1.2 + 0.4 * along), dim=1)
    angle = 1.5 + 2.5 * along
    return look_at(eyes, eyes + torch.stack((angle.cos(), angle.sin(), torch.full_like(angle, -0.4)), dim=1))


def write(folder, change=lambda pose: pose, depth_scale=1.0, mesh_scale=1.0, with_depth=True, cameras=None):
    """A scan in ScanNet's layout; depth and mesh are exact, then multiplied."""
    cameras = poses() if cameras is None else cameras
    room = mesh()
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    for number, (depth, pose) in enumerate(zip(ray_cast(cameras)[1].numpy(), cameras.numpy(), strict=True)):
        Image.new("RGB", (SIZE[1], SIZE[0])).save(folder / "color" / f"{number}.jpg")
        stored = (depth * 1000 * depth_scale).clip(0, 65535).astype(np.uint16)
        Image.fromarray(stored).save(folder / "depth" / f"{number}.png")
        np.savetxt(folder / "pose" / f"{number}.txt", change(pose))
    camera = np.eye(4)
    camera[:3, :3] = INTRINSICS.numpy()
    for name in ("color", "depth"):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{name}.txt", camera)
    vertices, labels = room.vertices.numpy() * mesh_scale, room.labels.numpy().astype(np.uint16)
    for suffix in ("_vh_clean_2.labels.ply", "_vh_clean_2.ply"):
        black = np.zeros((len(vertices), 3), np.uint8)
        write_ply(folder / f"{folder.name}{suffix}", vertices, black, room.faces.numpy(), labels)
    if not with_depth:
        shutil.rmtree(folder / "depth")
    return folder


def contradiction(folder, with_mesh=True):
    scene = load_scene(folder)
    return find_contradiction(scene, load_mesh(scene.label_mesh_path, require_labels=True) if with_mesh else None)


@pytest.mark.parametrize("with_mesh", [True, False])
@pytest.mark.parametrize("with_depth", [True, False])
def test_a_sound_scene_is_not_suspected(tmp_path, with_mesh, with_depth):
    assert contradiction(write(tmp_path / "room", with_depth=with_depth), with_mesh) is None


@pytest.mark.parametrize(
    "change, depth_scale, remedy",
    [
        (np.linalg.inv, 1, "the poses are inverted: the files hold world-to-camera"),
        (opengl, 1, "the poses are with y and z axes reversed: the files have OpenGL's axes"),
        (lambda pose: np.linalg.inv(opengl(pose)), 1, "the files hold OpenGL's world-to-camera"),
        (millimetres, 1, "the positions of the poses are divided by 1000 (they are millimetres)"),
        (lambda pose: pose, 5, "depth is multiplied by 0.2 (files hold 5000 steps a metre instead of 1000)"),
        (lambda pose: pose, 0.25, "depth is multiplied by 4 (files hold 250 steps a metre instead of 1000)"),
        (lambda pose: np.linalg.inv(millimetres(pose)), 1, "inverted: the files hold world-to-camera"),
    ],
)  # fmt: skip
def test_the_usual_mistakes_are_named(tmp_path, change, depth_scale, remedy):
    found = contradiction(write(tmp_path / "room", change, depth_scale))
    assert "contradict each other" in found.text and remedy in found.remedy


def test_without_a_mesh_either_unit_may_be_the_wrong_one(tmp_path):
    """Rooms of 10 m are as possible as poses in fifths of a metre: `fit` must not name one where `verify` names the
    other."""
    found = contradiction(write(tmp_path / "room", depth_scale=5), with_mesh=False)
    assert "depth is multiplied by 0.2" in found.remedy and "poses are divided by 0.2" in found.remedy


def test_depth_that_nothing_can_be_compared_with_is_of_another_unit(tmp_path):
    """Whole metres, read as thousandths: no camera sees what another saw, with whatever poses."""
    folder = write(tmp_path / "metres", depth_scale=0.001)
    found = contradiction(folder)
    assert "half of what they measure is at most 0.002 m, and 0% of the points" in found.text
    assert "expected 1000 steps a metre" in found.remedy and "depth/0.png" in found.remedy
    assert [finding.broken for finding in verify_scan(folder) if "another unit" in finding.text] == [True]


@pytest.mark.parametrize("cameras", [poses(30)[:2], poses(4), poses(1).expand(12, 4, 4)])
def test_too_little_to_say_is_no_contradiction(tmp_path, cameras):
    """Two frames, four far apart, and a camera that stands still: nothing is suspected, right or wrong."""
    assert contradiction(write(tmp_path / "right", cameras=cameras)) is None
    found = contradiction(write(tmp_path / "turned", opengl, cameras=cameras), with_mesh=False)
    assert found is None or "OpenGL" in found.remedy


def test_a_camera_that_only_turns_says_nothing_of_lengths(tmp_path):
    angles = torch.linspace(0, 3, 24, dtype=torch.float64)
    eyes = torch.tensor([[2.0, 3.2, 1.3]]).double().expand(24, 3)
    turning = look_at(eyes, eyes + torch.stack((angles.cos(), angles.sin(), -0.3 + 0 * angles), dim=1))
    assert contradiction(write(tmp_path / "a", depth_scale=5, cameras=turning), with_mesh=False) is None


def test_a_mesh_elsewhere_is_found(tmp_path):
    found = contradiction(write(tmp_path / "millimetres", mesh_scale=1000))
    assert "agree with each other" in found.text and found.remedy == "the mesh is in millimetres"
    mirrored = contradiction(write(tmp_path / "mirrored", mesh_scale=-1))
    assert "0% of their points" in mirrored.text and mirrored.remedy is None
    assert "nothing that was tried" in str(mirrored)


def test_without_depth_cameras_far_off_the_mesh_are_found(tmp_path):
    found = contradiction(write(tmp_path / "room", millimetres, with_depth=False))
    assert "within or near" in found.text and "millimetres" in found.remedy


def test_verify_calls_it_broken(tmp_path):
    broken = [finding for finding in verify_scan(write(tmp_path / "room", opengl)) if finding.broken]
    assert len(broken) == 1 and "OpenGL's axes" in broken[0].text
    assert not [finding for finding in verify_scan(write(tmp_path / "sound")) if finding.broken]


@pytest.mark.skipif(not HOLOLENS.exists(), reason="needs the reference data")
def test_a_real_capture_is_not_suspected():
    assert contradiction(HOLOLENS) is None and contradiction(HOLOLENS, with_mesh=False) is None

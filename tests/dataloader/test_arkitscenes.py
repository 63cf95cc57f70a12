"""Scenes of ARKitScenes: poses between those of the trajectory, cameras of single frames, depth and its confidence."""

import logging
import random

import gin
import pytest
import torch

from dataloader import load_scene
from dataloader.arkitscenes import read_pincam, read_trajectory
from dataloader.label_mesh import has_labels, load_label_mesh
from dataloader.task_verify import verify
from dataloader.verification import verify_scan
from tests.dataloader.layout_fixtures import (
    COUNT,
    SIZE,
    START,
    STEP,
    VIDEO,
    arkit_intrinsics,
    arkit_pose,
    write_arkitscenes,
    write_trajectory,
)
from tests.dataloader.scannet_fixture import trace_room
from utils.cameras import look_at
from utils.errors import UserError
from utils.identity import scan_inputs
from utils.images import write_image


@pytest.fixture
def folder(tmp_path):
    return write_arkitscenes(tmp_path)


def choose(**options):
    with gin.unlock_config():
        for name, value in options.items():
            gin.bind_parameter(f"SensorOptions.{name}", value)


def file_of(number, suffix="png"):
    return f"{VIDEO}_{START + STEP * number:.3f}.{suffix}"


@pytest.mark.parametrize("frames", [False, True])
def test_poses_are_where_the_camera_was(tmp_path, frames):
    """Every second photograph lies between two poses; the camera walks straight on and turns evenly."""
    scene = load_scene(write_arkitscenes(tmp_path, frames))
    assert scene.layout == "ARKitScenes" and scene.metric and not scene.skipped and len(scene) == COUNT
    expected = torch.stack([arkit_pose(START + STEP * number) for number in range(COUNT)])
    torch.testing.assert_close(scene.camera_to_world, expected, atol=1e-9, rtol=0)
    assert scene.mesh_path == tmp_path / VIDEO / f"{VIDEO}_3dod_mesh.ply" and scene.mesh_path.is_file()


def test_a_line_of_the_trajectory_takes_the_world_to_the_camera(tmp_path):
    """A camera at (1, 2, 3) that looks along +x with z up sees (3, 2, 3) two metres ahead, and +z above."""
    path = tmp_path / "lowres_wide.traj"
    # Rows of world-to-camera: right = -y, down = -z, ahead = +x; a third of a turn about (1, -1, 1).
    third = 2 * torch.pi / 3 / 3**0.5
    rotation = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]).double()
    moved = -rotation @ torch.tensor([1.0, 2, 3]).double()
    path.write_text(f"5.0 {third} {-third} {third} " + " ".join(map(str, moved.tolist())) + "\n")
    pose = read_trajectory(path).camera_to_world[0]
    torch.testing.assert_close(pose, look_at(torch.tensor([1.0, 2, 3]).double(), torch.tensor([2.0, 2, 3]).double()))
    point = torch.linalg.inv(pose) @ torch.tensor([3.0, 2, 3, 1]).double()
    torch.testing.assert_close(point, torch.tensor([0.0, 0, 2, 1]).double(), atol=1e-12, rtol=0)


def test_photographs_have_their_own_cameras(folder):
    scene = load_scene(folder)
    for number in (0, 1, 5):
        exact, measured = trace_room(arkit_pose(START + STEP * number), scene.intrinsics, scene.image_size)
        same = (scene.read_color(number).int() - exact.int()).abs().amax(0) < 8
        assert same.double().mean() > 0.7  # all but the borders between patches, where pixels are averaged
        depth = scene.read_depth(number, scene.image_size)  # of the nearest pixel, twice
        error = (depth - measured).abs()[depth > 0]
        assert error.mean() < 0.03 and error.max() < 0.09 and (depth > 0).double().mean() > 0.8
    camera = read_pincam(folder / "lowres_wide_intrinsics" / file_of(0, "pincam"))
    assert camera.size == SIZE and torch.equal(camera.intrinsics, arkit_intrinsics(0))


def test_depth_is_in_metres_where_it_is_sure(folder):
    choose(least_confidence=0)
    whole = load_scene(folder).read_depth(0)
    _, exact = trace_room(arkit_pose(START), arkit_intrinsics(0), SIZE)
    torch.testing.assert_close(whole, exact.float(), atol=6e-4, rtol=0)
    for least, first in ((1, 4), (2, 8)):
        choose(least_confidence=least)
        depth = load_scene(folder).read_depth(0)
        assert not depth[:, :first].any() and torch.equal(depth[:, first:], whole[:, first:])
    seen = load_scene(folder).read_depth(0, SIZE)
    assert not seen[2:-2, 1:7].any() and seen[2:-2, 10:-2].all()


def test_confidence_is_part_of_what_a_fit_is_made_from(folder):
    inputs = {}
    for least in (0, 1, 2):
        choose(least_confidence=least)
        inputs[least] = scan_inputs(load_scene(folder))["cameras"]
    assert len(set(inputs.values())) == 3
    choose(least_confidence=1)
    before = scan_inputs(load_scene(folder))["confidence_maps"]
    assert set(before.files) == {f"{VIDEO}_{START + STEP * number:.3f}" for number in range(COUNT)}


def test_confidence_of_another_size_or_none_is_told(folder):
    write_image(folder / "confidence" / file_of(0), torch.zeros(3, 4, dtype=torch.uint8))
    with pytest.raises(UserError, match=rf"{file_of(0)} is \[3, 4\]; expected one whole number"):
        load_scene(folder).read_depth(0)
    (folder / "confidence" / file_of(0)).unlink()
    scene = load_scene(folder)
    assert scene.read_depth(0).all() and not scene.read_depth(1).all()
    assert "1 depth maps have no confidence map, and are read whole" in scene.remarks


def test_frames_without_poses_near_them_are_left_out_with_the_reason(folder):
    """Poses at 0, 0.1, 0.35 and 0.45 s: nothing is read between the second and the third."""
    write_trajectory(folder, [START, START + 0.1, START + 0.35, START + 0.45])
    scene = load_scene(folder)
    without = [f"{VIDEO}_{START + STEP * number:.3f}" for number in (3, 4, 5, 6)]
    assert list(scene.skipped) == without and len(scene) + len(without) == COUNT
    assert scene.skipped[without[0]] == "without poses within 0.1 s before and after it in lowres_wide.traj"
    torch.testing.assert_close(scene.camera_to_world[-2], arkit_pose(START + 0.4), atol=1e-9, rtol=0)
    choose(largest_gap=0.25)
    wide = load_scene(folder)
    assert not wide.skipped
    torch.testing.assert_close(wide.camera_to_world[4], arkit_pose(START + 0.2), atol=1e-9, rtol=0)
    write_trajectory(folder, [START + 0.1, START + 0.2])  # nothing before and behind
    choose(largest_gap=10.0)
    assert len(load_scene(folder)) == 3


def test_what_else_is_wrong_with_a_frame_costs_it_alone(folder):
    (folder / "lowres_wide_intrinsics" / file_of(2, "pincam")).unlink()
    (folder / "lowres_wide_intrinsics" / file_of(4, "pincam")).write_text("32 24 25.6 25.2 15.7\n")
    (folder / "lowres_depth" / file_of(6)).unlink()
    (folder / "lowres_wide" / file_of(8)).write_bytes(b"no picture")
    (folder / "lowres_wide" / file_of(9)).rename(folder / "lowres_wide" / "last.png")
    scene = load_scene(folder)
    reasons = [scene.skipped[name.removesuffix(".png")] for name in (file_of(2), file_of(4), file_of(8), "last.png")]
    assert reasons[0] == "without intrinsics of its time (.pincam)" and len(scene.skipped) == 4
    assert file_of(4, "pincam") in reasons[1] and "5 numbers; expected width, height" in reasons[1]
    assert "cannot be read" in reasons[2] and reasons[3] == "whose name does not end in a time (VIDEO_SECONDS)"
    assert "1 of 6 photographs have no depth map of their time" in scene.remarks
    broken = [finding.text for finding in verify_scan(folder) if finding.broken]
    assert len(broken) == 2 and any(".pincam" in text for text in broken)


def test_the_sky_is_told_and_not_turned(folder):
    assert not any("sky" in remark for remark in load_scene(folder).remarks)
    lines = []
    for line in (folder / "lowres_wide.traj").read_text().splitlines():
        time = float(line.split()[0])
        pose = arkit_pose(time)
        right, down, ahead = pose[:3, :3].unbind(1)
        pose[:3, :3] = torch.stack((-down, right, ahead), 1)  # the picture's right is up
        inverse = torch.linalg.inv(pose)
        from scipy.spatial.transform import Rotation

        numbers = [*Rotation.from_matrix(inverse[:3, :3].numpy()).as_rotvec(), *inverse[:3, 3].tolist()]
        lines.append(f"{time} " + " ".join(map(str, numbers)))
    (folder / "lowres_wide.traj").write_text("\n".join(lines) + "\n")
    scene = load_scene(folder)
    assert any("the sky is to the right: they are read as they are stored" in remark for remark in scene.remarks)
    choose(least_confidence=0)
    assert scene.image_size[1] > scene.image_size[0]


def test_verify_says_that_boxes_are_no_labels(folder, caplog):
    scene = load_scene(folder)
    assert not has_labels(scene)
    with pytest.raises(UserError, match="it has no labels: ARKitScenes has boxes"):
        load_label_mesh(scene)
    with caplog.at_level(logging.INFO):
        assert verify(str(folder.parent))["broken"] == 0
    assert "the scene has no labels: ARKitScenes' boxes" in caplog.text


def test_what_is_absent_is_named(folder):
    choose(arkitscenes="vga_wide")
    with pytest.raises(UserError, match="vga_wide holds no photographs; SensorOptions.arkitscenes = 'vga_wide'"):
        load_scene(folder)
    choose(arkitscenes="lowres_wide")
    (folder / "lowres_wide.traj").unlink()
    with pytest.raises(UserError, match="lowres_wide.traj does not exist; a scene's poses stand there"):
        load_scene(folder)
    choose(largest_gap=float("nan"))
    with pytest.raises(UserError, match="SensorOptions.largest_gap = nan"):
        load_scene(folder)


@pytest.mark.parametrize("name", [
    "lowres_wide.traj", f"lowres_wide_intrinsics/{VIDEO}_{START:.3f}.pincam", f"lowres_depth/{VIDEO}_{START:.3f}.png",
    f"confidence/{VIDEO}_{START:.3f}.png",
])  # fmt: skip
def test_garbage_is_refused_by_name_or_costs_its_frame(folder, name):
    path, draw = folder / name, random.Random(name)
    sound = path.read_bytes()
    told = 0
    for content in [b"", b"\0" * 40, b"1 2 3\n", b"nan " * 7 + b"\n", b"1e400 " * 7, b"\xff\xfe" * 9,
                    sound[: len(sound) // 2], *(mutated(sound, draw) for _ in range(12))]:  # fmt: skip
        path.write_bytes(content)
        try:
            scene = load_scene(folder)
            scene.read_depth(0)
            told += bool(scene.skipped) or any(path.name in remark for remark in scene.remarks)
        except UserError as error:
            told += 1
            assert path.name in str(error) or "no usable frame" in str(error)
    assert told >= 5


def mutated(content, draw):
    changed = bytearray(content)
    for _ in range(5):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)

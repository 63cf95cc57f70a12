"""Generated rooms through a fisheye lens: distances against every face of the mesh; poses are a pinhole's."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.fisheye import nearest_faces
from dataloader import load_mesh, load_scene
from dataloader.consistency import find_contradiction
from dataloader.synthesis import PictureOptions, RoomOptions, write_room
from dataloader.synthesis.scene_folder import room_inputs
from dataloader.verification import verify_scan
from dataloader.view_agreement import agreement, choose_pairs
from tests.dataloader.fisheye_fixture import ROOM, SIZE, write_fisheye_room, write_pinhole_twin
from utils.cameras import pixel_grid
from utils.errors import UserError


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return write_fisheye_room(tmp_path_factory.mktemp("scans") / "scene9000_00", frames=6)


def ray_of(uv, focal, center, radial):
    """The direction of one pixel, by bisection for its angle: nothing of the code that is tested."""
    x, y = ((value - c) / f for value, c, f in zip(uv, center, focal, strict=True))
    length = math.hypot(x, y)
    low, high = 0.0, math.pi
    for _ in range(80):
        theta = (low + high) / 2
        shown = theta * (1 + sum(k * theta ** (2 * n) for n, k in enumerate(radial, start=1)))
        low, high = (theta, high) if shown < length else (low, theta)
    return [math.sin(theta) * x / length, math.sin(theta) * y / length, math.cos(theta)], theta


def test_depth_is_the_distance_to_the_first_face_on_each_pixels_own_ray(room):
    content = json.loads((room / "transforms.json").read_text())
    focal, center = (content["fl_x"], content["fl_y"]), (content["cx"], content["cy"])
    radial = [content[f"k{n}"] for n in range(1, 5)]
    mesh, scene = load_mesh(room / f"{room.name}_vh_clean_2.ply"), load_scene(room)
    corners = mesh.vertices.double()[mesh.faces.long()].numpy()
    pixels = pixel_grid(*SIZE, torch.float64).reshape(-1, 2)[::23]
    rays = [ray_of(uv, focal, center, radial) for uv in pixels.tolist()]
    inside = np.array([theta < math.radians(80) - 1e-6 for _, theta in rays])
    for frame in (0, 4):
        pose = scene.camera_to_world[frame].numpy()
        directions = np.array([direction for direction, _ in rays]) @ pose[:3, :3].T
        face, distance = nearest_faces(corners, pose[:3, 3], directions)
        depth = scene.read_depth(frame).reshape(-1)[::23].numpy()
        assert (depth[~inside] == 0).all() and 0.05 < (~inside).mean() < 0.4
        assert (face[inside] >= 0).all()
        error = np.abs(depth - distance)[inside]
        assert np.quantile(error, 0.99) < 6e-4  # millimetres; a ray along an edge may hit either of two faces
        picture = scene.read_color(frame).reshape(3, -1)[:, ::23].numpy()
        black = np.array([theta > math.radians(83) for _, theta in rays])
        assert picture[:, black].max() < 12 and picture[:, inside].mean() > 40


def test_the_twin_has_the_same_poses(room, tmp_path):
    twin = load_scene(write_pinhole_twin(tmp_path / room.name, frames=6))
    scene = load_scene(room)
    torch.testing.assert_close(scene.camera_to_world, twin.camera_to_world, rtol=0, atol=1e-7)
    assert scene.lens.is_fisheye and twin.lens is None and scene.frames == twin.frames


def test_pictures_of_a_pinhole_are_made_from_what_they_were_made_from():
    assert "lens" not in room_inputs(0, 0, ROOM, PictureOptions())["pictures"]
    assert room_inputs(0, 0, ROOM, PictureOptions(lens="fisheye"))["pictures"]["lens"] == "fisheye"


def test_lost_frames_and_refusals(tmp_path):
    pictures = PictureOptions(SIZE, 8, 200.0, lost_share=0.4, lens="fisheye")
    write_room(tmp_path / "room", 3, 0, RoomOptions(types=("bathroom",), edge=0.3), pictures)
    scene = load_scene(tmp_path / "room")
    assert 0 < len(scene.skipped) < 8 and len(scene) + len(scene.skipped) == 8
    with pytest.raises(UserError, match="PictureOptions.lens"):
        PictureOptions(lens="mirror")
    with pytest.raises(UserError, match=r"field_of_view in 10\.\.140"):
        PictureOptions(field_of_view=200.0)


def test_nothing_is_wrong_with_it(room):
    """Depth maps and poses agree only where rays go through the lens."""
    scene = load_scene(room)
    assert find_contradiction(scene) is None
    pairs = choose_pairs(scene)
    agreeing = agreement(pairs, scene.camera_to_world, np.ones(1))[0]
    straight = choose_pairs(replace(scene, lens=None))
    assert agreeing > 0.9 and agreement(straight, scene.camera_to_world, np.ones(1))[0] < 0.7
    assert not [finding.text for finding in verify_scan(room) if finding.broken]

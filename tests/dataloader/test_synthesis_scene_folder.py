"""Generated rooms on disk: same bytes, resumable, readable as ScanNet, labels where they belong."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader import load_mesh, load_scannet_scene
from dataloader.synthesis import PictureOptions, RoomOptions, room_name, write_room
from dataloader.task_synthesize import synthesize
from lib.raster import rasterize
from utils.cameras import project, rigid_inverse
from utils.errors import UserError

ROOM = RoomOptions(types=("bathroom",), edge=0.12)
PICTURES = PictureOptions(size=(48, 64), frames=5)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def bathroom(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans") / room_name(0)
    assert write_room(folder, 3, 0, ROOM, PICTURES)
    return folder


def test_bytes_do_not_depend_on_threads(bathroom, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        write_room(tmp_path / bathroom.name, 3, 0, ROOM, PICTURES)
    finally:
        torch.set_num_threads(before)
    assert _bytes(tmp_path / bathroom.name) == _bytes(bathroom)


def test_a_finished_room_is_left_alone_and_other_settings_are_refused(bathroom):
    before = (bathroom / "color" / "0.jpg").stat().st_mtime_ns
    assert not write_room(bathroom, 3, 0, ROOM, PICTURES)
    assert (bathroom / "color" / "0.jpg").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="seed"):
        write_room(bathroom, 4, 0, ROOM, PICTURES)


def test_an_interrupted_room_is_completed_with_the_same_bytes(bathroom, tmp_path, resume, monkeypatch):
    from dataloader.synthesis import scene_folder

    take, taken = scene_folder.take_picture, []

    def take_three(*arguments):
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append(1)
        return take(*arguments)

    target = tmp_path / bathroom.name
    monkeypatch.setattr(scene_folder, "take_picture", take_three)
    with pytest.raises(KeyboardInterrupt):
        write_room(target, 3, 0, ROOM, PICTURES)
    assert not target.exists()
    count = []
    monkeypatch.setattr(scene_folder, "take_picture", lambda *arguments: (count.append(1), take(*arguments))[1])
    write_room(target, 3, 0, ROOM, PICTURES)
    assert len(count) == PICTURES.frames - 3
    assert _bytes(target) == _bytes(bathroom)


def test_the_folder_reads_as_a_scannet_scene(bathroom):
    scene = load_scannet_scene(bathroom)
    assert scene.name == "scene9000_00"
    assert list(scene.frames) == ["0", "1", "2", "3", "4"]
    assert tuple(scene.image_size) == PICTURES.size
    assert np.allclose(np.asarray(scene.intrinsics)[:3, :3], PICTURES.intrinsics())
    assert tuple(scene.read_color(0).shape) == (3, 48, 64)
    depth = scene.read_depth(0)
    assert 0.3 < float(depth.min()) and float(depth.max()) < 5


def test_vertices_project_onto_pixels_of_their_own_label(bathroom):
    scene = load_scannet_scene(bathroom)
    mesh = load_mesh(scene.label_mesh_path)
    poses, intrinsics = (torch.as_tensor(x).double() for x in (scene.camera_to_world, scene.intrinsics))
    checked = agreed = 0
    for frame in range(PICTURES.frames):
        size = (480, 640)
        fine = intrinsics * torch.tensor([[10.0], [10.0], [1.0]], dtype=torch.float64)
        seen = rasterize(mesh.vertices, mesh.faces, rigid_inverse(poses[frame])[None], fine[None], *size)
        painted = mesh.labels[mesh.faces[seen.face[0].long()][..., 0].long()]
        uv, depth = project(mesh.vertices.double(), fine, poses[frame])
        inside = (depth > 0.1) & (uv > 0).all(-1) & (uv[:, 0] < size[1]) & (uv[:, 1] < size[0])
        column, row = uv[inside].floor().long().T
        visible = (seen.depth[0, row, column] - depth[inside]).abs() < 0.003
        checked += int(visible.sum())
        agreed += int((painted[row, column] == mesh.labels[inside])[visible].sum())
    assert checked > 1000
    assert agreed / checked > 0.97  # vertices on the border of two parts may fall to either


def test_stored_depth_is_the_meshs_in_millimetres(bathroom):
    scene = load_scannet_scene(bathroom)
    mesh = load_mesh(scene.mesh_path)
    seen = rasterize(mesh.vertices, mesh.faces, rigid_inverse(torch.as_tensor(scene.camera_to_world[2]))[None],
                     torch.as_tensor(scene.intrinsics)[None], *PICTURES.size)
    error = (seen.depth[0] - scene.read_depth(2)).abs()
    assert float(error.median()) <= 0.0006  # half a millimetre of rounding
    assert float((error < 0.002).float().mean()) > 0.99  # poses are written with nine digits


def test_lost_frames_are_written_with_infinite_poses_and_skipped_by_the_reader(tmp_path):
    options = dataclasses.replace(PICTURES, frames=8, lost_share=0.5)
    write_room(tmp_path / "scene9000_00", 3, 0, ROOM, options)
    lost = [k for k in range(8) if "-inf" in (tmp_path / "scene9000_00" / "pose" / f"{k}.txt").read_text()]
    scene = load_scannet_scene(tmp_path / "scene9000_00")
    assert 0 < len(lost) < 8
    assert set(map(str, scene.skipped)) == set(map(str, lost))
    assert len(scene.frames) == 8 - len(lost)


def test_the_task_names_rooms_and_counts_what_it_wrote(tmp_path, monkeypatch):
    import dataloader.task_synthesize as task_module

    monkeypatch.setattr(task_module, "RoomOptions", lambda: ROOM)
    monkeypatch.setattr(task_module, "PictureOptions", lambda: dataclasses.replace(PICTURES, frames=1))
    assert synthesize(str(tmp_path), rooms=2, first=4) == {"rooms": 2, "written": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene9004_00", "scene9005_00"]
    assert synthesize(str(tmp_path), rooms=2, first=4) == {"rooms": 2, "written": 0}
    with pytest.raises(UserError, match="rooms"):
        synthesize(str(tmp_path), rooms=0)

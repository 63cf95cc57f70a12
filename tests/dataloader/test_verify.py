"""``verify``: sound data passes; every kind of damage is found, told, and makes the command fail."""

import io
import json
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import add_channel, save_perfception_scene
from dataloader.mesh import load_mesh
from dataloader.scene_transform import SceneTransform
from dataloader.synthesis.scene_folder import write_ply
from dataloader.task_verify import verify
from dataloader.verification import verify_scan
from tests.dataloader.scannet_fixture import write_room_mesh, write_scannet_scene
from tests.dataloader.scene_exports import random_capture, write_colmap, write_nsvf, write_transforms
from tests.dataloader.test_view_store import write_store
from utils.errors import UserError


@pytest.fixture
def data(tmp_path):
    """scans, fields and views of one scene each, all sound."""
    write_scannet_scene(tmp_path / "scans" / "scene0000_00", (24, 32), num_frames=24, lost_frames=())
    save_perfception_scene(tmp_path / "fields" / "plenoxel_scannet_scene0000_00", (4, 4, 4), torch.arange(8),
                           torch.ones(8), torch.rand(8, 27), SceneTransform.identity())  # fmt: skip
    write_store(tmp_path / "views" / "scene0000_00")
    add_channel(tmp_path / "views" / "scene0000_00", "label", lambda array: array.fill(1))
    return tmp_path


def run_verify(data, **options):
    return verify(str(data / "scans"), str(data / "fields"), str(data / "views"), **options)


def test_sound_data_passes(data):
    assert run_verify(data) == {"scans": 1, "fields": 1, "views": 1, "broken": 0, "notes": 0}


def test_notes_do_not_fail(data, caplog):
    scan = data / "scans" / "scene0000_00"
    (scan / "pose" / "5.txt").write_text("-inf " * 16)
    shutil.rmtree(scan / "depth")
    (data / "views" / "scene0000_00.partial").mkdir()
    with caplog.at_level(logging.INFO):
        counts = run_verify(data, min_frames=100)
    assert counts["broken"] == 0 and counts["notes"] == 4
    for text in ("frame 5 is left out", "only 23 usable frames", "no depth images", "scene0000_00.partial is"):
        assert text in caplog.text


def test_nothing_in_a_folder_ends_it(data, caplog, monkeypatch):
    monkeypatch.setattr("dataloader.verification.load_scene", lambda path: [][1])
    (data / "fields" / "plenoxel_scannet_pipe").mkdir()
    os.mkfifo(data / "fields" / "plenoxel_scannet_pipe" / "config.gin")
    (data / "views" / "loop").symlink_to(data / "views" / "loop")
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match="2 problems in 1 scans, 2 fields, 1 views"):
        run_verify(data)
    assert "scene0000_00 cannot be checked (IndexError" in caplog.text and "holds no last.ckpt" in caplog.text


def test_numbers_that_are_not_finite_are_found_in_stores(data, caplog):
    path = data / "views" / "scene0000_00"
    sh = np.zeros((4, 27, 6, 8), np.float16)
    sh[3, 2, 1, 0] = np.inf
    np.save(path / "sh.npy", sh)
    meta = json.loads((path / "meta.json").read_text())
    meta["channels"]["sh"]["dtype"] = "float16"
    (path / "meta.json").write_text(json.dumps(meta))
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match="1 problems"):
        run_verify(data)
    assert "sh.npy: view 3 holds NaN or infinity" in caplog.text


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: _truncate(data / "scans/scene0000_00/color/3.png"), "3.png ends before its picture does"),
        (lambda data: _truncate(data / "scans/scene0000_00/depth/3.png"), "3.png"),
        (lambda data: (data / "scans/scene0000_00/intrinsic/intrinsic_color.txt").unlink(), "intrinsic_color.txt"),
        (lambda data: _truncate(data / "scans/scene0000_00/scene0000_00_vh_clean_2.ply"), "clean_2.ply"),
        (lambda data: write_room_mesh(data / "scans/scene0000_00/scene0000_00_vh_clean_2.labels.ply", False),
         "no 'label' per vertex"),
        (lambda data: _truncate(data / "fields/plenoxel_scannet_scene0000_00/last.ckpt"), "truncated"),
        (lambda data: (data / "fields/plenoxel_scannet_scene0000_00/trans_info.npz").unlink(), "trans_info.npz"),
        (lambda data: (data / "fields/plenoxel_scannet_scene0000_00/capture.npz").write_bytes(b"PK"), "capture.npz"),
        (lambda data: (data / "fields/plenoxel_scannet_scene0000_00/held_out.json").write_text("{}"), "held_out.json"),
        (lambda data: _truncate(data / "views/scene0000_00/sh.npy"), "sh.npy"),
        (lambda data: (data / "views/scene0000_00/meta.json").unlink(), "meta.json"),
        (lambda data: (data / "views/scene0000_00/cameras.json").write_text("{}"), "cameras.json"),
        (lambda data: np.save(data / "views/scene0000_00/label.npy", np.full((4, 6, 8), 40, np.uint8)), "class 40"),
    ],
)  # fmt: skip
def test_damage_is_found_and_told(data, caplog, damage, message):
    damage(data)
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match="1 problems in 1 scans, 1 fields, 1 views"):
        run_verify(data)
    assert "BROKEN" in caplog.text and message in caplog.text


def test_a_mesh_is_missed_only_where_it_is_needed(data, caplog):
    (data / "scans/scene0000_00/scene0000_00_vh_clean_2.ply").unlink()
    with caplog.at_level(logging.INFO):
        assert run_verify(data)["notes"] == 1
    assert "scene0000_00_vh_clean_2.ply is absent" in caplog.text
    shutil.rmtree(data / "scans/scene0000_00/depth")
    with pytest.raises(UserError, match="1 problems"):
        run_verify(data)


def test_one_picture_of_each_kind_is_decoded_at_least(data):
    whole = (data / "scans/scene0000_00/color/9.png").read_bytes()
    middle = whole.index(b"IDAT") + 40  # sound to its end mark, but not within
    damaged = whole[:middle] + b"\0" * 8 + whole[middle + 8 :]
    (data / "scans/scene0000_00/color/9.png").write_bytes(damaged)
    assert verify(str(data / "scans"), read_images=False)["broken"] == 0  # the first PNG is sound
    picture = Image.open(io.BytesIO(whole)).convert("L")
    picture.save(data / "scans/scene0000_00/color/9.png")
    grey = (data / "scans/scene0000_00/color/9.png").read_bytes()
    middle = grey.index(b"IDAT") + 40
    (data / "scans/scene0000_00/color/9.png").write_bytes(grey[:middle] + b"\0" * 8 + grey[middle + 8 :])
    with pytest.raises(UserError, match="1 problems"):  # the only grey one
        verify(str(data / "scans"), read_images=False)


def test_an_empty_folder_is_said_and_stops_nothing(data):
    shutil.rmtree(data / "fields" / "plenoxel_scannet_scene0000_00")
    (data / "fields" / "run").mkdir()  # an interrupted stage leaves its records only
    assert run_verify(data) == {"scans": 1, "fields": 0, "views": 1, "broken": 0, "notes": 0}
    plan = verify.plan(str(data / "scans"), str(data / "fields"), str(data / "views"))
    assert f"{data / 'fields'}: no fields to check" in plan.notes
    shutil.rmtree(data / "scans" / "scene0000_00")
    with pytest.raises(UserError, match="no scenes found"):
        run_verify(data)


@pytest.mark.parametrize("write", [write_nsvf, write_transforms, write_colmap])
def test_folders_without_depth_are_sound(write, tmp_path, caplog):
    write(tmp_path / "scans" / "bench", random_capture(count=24))
    with caplog.at_level(logging.INFO):
        assert verify(str(tmp_path / "scans")) == {"scans": 1, "broken": 0, "notes": 1}
    start = "20 sparse points" if write is write_colmap else "all space that cameras see"
    assert f"no depth images; fitting starts from {start}" in caplog.text


@pytest.mark.parametrize(
    ("write", "damage", "message"),
    [
        (write_nsvf, lambda scan: _truncate(scan / "rgb" / "3.png"), "rgb/3.png"),
        (write_nsvf, lambda scan: (scan / "intrinsics.txt").write_text("x"), "intrinsics.txt cannot be read"),
        (write_transforms, lambda scan: (scan / "transforms.json").write_text("{"), "cannot be read as valid"),
        (write_colmap, lambda scan: _truncate(scan / "sparse" / "0" / "images.bin"), "images.bin cannot be read"),
        (write_colmap, lambda scan: shutil.rmtree(scan / "sparse"), "is in no known layout; looked for"),
    ],
)
def test_damage_without_depth_is_found_and_told(write, damage, message, tmp_path, caplog):
    scan = write(tmp_path / "scans" / "bench", random_capture(count=24))
    damage(scan)
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match="1 problems in 1 scans"):
        verify(str(tmp_path / "scans"))
    assert "BROKEN" in caplog.text and message in caplog.text


@pytest.mark.parametrize("scale", [0.01, 20.0])
def test_units_that_stored_depth_does_not_suit_are_noted(scale, tmp_path, caplog):
    capture = random_capture(count=24)
    capture.poses[:, :3, 3] *= scale
    write_nsvf(tmp_path / "scans" / "bench", capture)
    with caplog.at_level(logging.INFO):
        assert verify(str(tmp_path / "scans"))["notes"] == 2
    assert "rendered depth is stored in thousandths" in caplog.text


def test_nothing_to_check(tmp_path):
    with pytest.raises(UserError, match="nothing to check"):
        verify(None, str(tmp_path / "fields"), str(tmp_path / "views"))
    with pytest.raises(UserError, match="is not a folder"):
        verify(str(tmp_path / "scans"))


def test_real_capture_is_sound(shared_dir):
    assert verify(str(shared_dir), scenes=["hololens_room"], read_images=False)["broken"] == 0


def test_depth_maps_of_nothing_and_labels_of_another_mesh_are_noted(data):
    scan = data / "scans" / "scene0000_00"
    for path in (scan / "depth").iterdir():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    labelled = next(scan.glob("*labels.ply"))
    vertices = len(load_mesh(labelled).vertices)
    _without_a_vertex(next(scan.glob("*_vh_clean_2.ply")))
    notes = [finding.text for finding in verify_scan(scan) if not finding.broken]
    assert len(notes) == 2 and "none of its depth maps (24 were read) holds a measurement" in notes[0]
    assert f"{vertices} vertices" in notes[1] and f"{vertices - 1}; ScanNet's have the same" in notes[1]


def _without_a_vertex(path):
    """The mesh without its last vertex, and the faces that have it."""
    mesh = load_mesh(path)
    faces = mesh.faces[(mesh.faces < len(mesh.vertices) - 1).all(1)]
    vertices = mesh.vertices[:-1].numpy()
    write_ply(path, vertices, np.zeros((len(vertices), 3), np.uint8), faces.numpy())

"""ScanNet folders: order, bad poses, sizes, calibration, and every mistake told in one sentence."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import load_scannet_scene, load_scene
from tests.dataloader.scannet_fixture import fixture_intrinsics, fixture_poses, write_scannet_scene
from utils.cameras import scale_intrinsics
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write_scannet_scene(tmp_path / "scene0000_00", size=(24, 32))


def test_frames_are_in_numeric_order_and_paired_by_number(folder):
    # As text, 10 and 11 come before 2; and one frame has only a pose, another only an image.
    (folder / "color" / "4.png").unlink()
    (folder / "pose" / "7.txt").unlink()
    scene = load_scannet_scene(folder)
    assert scene.frames == ["0", "1", "2", "5", "6", "8", "9", "10", "11"]
    poses = fixture_poses(12)
    for index, name in enumerate(scene.frames):
        assert (scene.color_paths[index].stem, scene.depth_paths[index].stem) == (name, name)
        torch.testing.assert_close(scene.camera_to_world[index], poses[int(name)], rtol=0, atol=1e-8)
    assert scene.cameras(frames=[7]).names == ["10"]


def test_bad_poses_are_skipped_counted_and_logged_once(folder, caplog):
    (folder / "pose" / "0.txt").write_text("nan " * 16)
    (folder / "pose" / "1.txt").write_text("1 2 3")
    (folder / "pose" / "2.txt").write_text("not a matrix")
    np.savetxt(folder / "pose" / "5.txt", np.diag([2.0, 2, 1, 1]))
    np.savetxt(folder / "pose" / "6.txt", np.diag([1.0, 1, -1, 1]))
    scene = load_scannet_scene(folder)
    assert scene.frames == ["4", "7", "8", "9", "10", "11"]
    assert set(scene.skipped) == {"0", "1", "2", "3", "5", "6"}
    assert "lost" in scene.skipped["3"] and "lost" in scene.skipped["0"]
    assert "unreadable" in scene.skipped["1"] and "mirrored" in scene.skipped["6"]
    assert [record.getMessage() for record in caplog.records] == [
        "scene0000_00: 6 of 12 frames left out: 2 with a lost pose (inf or NaN), 2 with an unreadable pose (expected "
        "4x4 numbers), 1 with a pose that is not rigid, 1 with a pose that is mirrored (left-handed axes)"
    ]


@pytest.mark.parametrize("size", [(968, 1296), (480, 640), (360, 540)])
def test_image_size_is_read_from_the_images(tmp_path, size):
    scene = load_scannet_scene(write_scannet_scene(tmp_path / "s", size, (24, 32), num_frames=2, lost_frames=()))
    assert scene.image_size == size and scene.depth_size == (24, 32)
    torch.testing.assert_close(scene.intrinsics, fixture_intrinsics(size))
    torch.testing.assert_close(scene.depth_intrinsics, fixture_intrinsics((24, 32)))


def test_intrinsics_as_3x3_and_scaled_row_by_row(folder):
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", fixture_intrinsics((24, 32)).numpy())
    scene = load_scannet_scene(folder)
    torch.testing.assert_close(scene.intrinsics, fixture_intrinsics((24, 32)))
    squeezed = scene.cameras(size=(16, 16))
    torch.testing.assert_close(squeezed.intrinsics[0], scale_intrinsics(scene.intrinsics, (24, 32), (16, 16)))
    assert squeezed.intrinsics[0, 0, 0] == pytest.approx(0.8 * 16) and squeezed.image_size == (16, 16)


def test_intrinsics_of_another_size_are_refused_or_scaled_when_told(folder):
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", fixture_intrinsics((48, 64)).numpy())
    with pytest.raises(UserError, match="images of about 63x50, but the images are 32x24"):
        load_scannet_scene(folder)
    scene = load_scannet_scene(folder, intrinsics_size=(48, 64))
    torch.testing.assert_close(scene.intrinsics, fixture_intrinsics((24, 32)))


def test_color_extrinsics_move_the_camera(folder):
    extrinsic = torch.eye(4, dtype=torch.float64)
    extrinsic[0, 3] = 0.05
    np.savetxt(folder / "intrinsic" / "extrinsic_color.txt", extrinsic.numpy())
    scene = load_scannet_scene(folder)
    expected = fixture_poses(12)[0] @ extrinsic
    torch.testing.assert_close(scene.camera_to_world[0], expected, rtol=0, atol=1e-8)


def test_the_layout_of_scannet_frames_25k(folder):
    """Six digits, the camera matrices in the scene's folder, and labels beside the photographs."""
    expected = load_scannet_scene(folder)
    for camera in ("color", "depth"):
        (folder / "intrinsic" / f"intrinsic_{camera}.txt").rename(folder / f"intrinsics_{camera}.txt")
    shutil.rmtree(folder / "intrinsic")
    for part in ("color", "depth", "pose"):
        for path in list((folder / part).iterdir()):
            path.rename(path.with_stem(f"{int(path.stem):06d}"))
    (folder / "label").mkdir()
    scene = load_scannet_scene(folder)
    assert scene.frames == [f"{int(name):06d}" for name in expected.frames]
    assert torch.equal(scene.intrinsics, expected.intrinsics)
    assert torch.equal(scene.depth_intrinsics, expected.depth_intrinsics)
    assert torch.equal(scene.camera_to_world, expected.camera_to_world)


def flat(folder, info=True, shift=1000):
    """The scene as SensReader writes it: all files in one folder, cameras in ``_info.txt``."""
    matrices = {}
    for part, kind in (("color", "color"), ("depth", "depth"), ("pose", "pose")):
        for path in list((folder / part).iterdir()):
            path.rename(folder / f"frame-{int(path.stem):06d}.{kind}{path.suffix}")
        (folder / part).rmdir()
    for path in (folder / "intrinsic").iterdir():
        matrices[path.stem] = " ".join(path.read_text().split())
    shutil.rmtree(folder / "intrinsic")
    if info:
        lines = ["m_versionNumber = 4", f"m_depthShift = {shift}"]
        for camera in ("color", "depth"):
            lines.append(f"m_calibration{camera.title()}Intrinsic = {matrices[f'intrinsic_{camera}']}")
            lines.append(f"m_calibration{camera.title()}Extrinsic = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")
        (folder / "_info.txt").write_text("\n".join(lines) + "\n")
    return matrices


@pytest.mark.parametrize("shift, scale", [(1000, 1), (5000, 0.2)])
def test_sensreaders_files_in_one_folder(folder, shift, scale):
    shutil.rmtree(folder / "intrinsic" / "none", ignore_errors=True)
    for name in ("extrinsic_color.txt", "extrinsic_depth.txt"):
        (folder / "intrinsic" / name).unlink(missing_ok=True)
    expected = load_scannet_scene(folder)
    depths = [expected.read_depth(index) for index in range(len(expected))]
    flat(folder, shift=shift)
    scene = load_scene(folder)
    assert [int(name) for name in scene.frames] == [int(name) for name in expected.frames]
    for name in ("intrinsics", "depth_intrinsics", "camera_to_world", "depth_to_color"):
        assert torch.equal(getattr(scene, name), getattr(expected, name)), name
    for index, depth in enumerate(depths):
        torch.testing.assert_close(scene.read_depth(index), depth * scale)


def test_seven_scenes_need_a_camera_that_is_written_down(folder):
    matrices = flat(folder, info=False)
    with pytest.raises(UserError, match=r"no _info.txt and no intrinsics_color.txt; .*585 0 320"):
        load_scene(folder)
    (folder / "intrinsics_color.txt").write_text(matrices["intrinsic_color"])
    scene = load_scene(folder)
    assert len(scene) > 5 and scene.depth_size is not None
    first = scene.depth_paths[0]
    write_depth_units(first, np.array([[1000, 65535]], np.uint16).repeat(scene.depth_size[0], 0)
                      .repeat(scene.depth_size[1] // 2, 1))
    assert scene.read_depth(0).unique().tolist() == [0, 1]  # 65535 is "no measurement"


@pytest.mark.parametrize(
    "line, message",
    [("m_depthShift = none", "_info.txt"), ("m_depthShift = 0", "_info.txt"),
     ("m_calibrationColorIntrinsic = 1 2 3", r"_info.txt \(m_calibrationColorIntrinsic\) holds 3 values")],
)  # fmt: skip
def test_a_damaged_info_is_named(folder, line, message):
    flat(folder)
    key, info = line.partition(" =")[0], folder / "_info.txt"
    kept = [old for old in info.read_text().splitlines() if not old.startswith(key)]
    info.write_text("\n".join([*kept, line]))
    with pytest.raises(UserError, match=message):
        load_scene(folder)


def write_depth_units(path, units):
    Image.fromarray(units).save(path)


def test_without_depth(folder):
    shutil.rmtree(folder / "depth")
    scene = load_scannet_scene(folder)
    assert scene.depth_size is None and scene.read_depth(0) is None


def test_jpeg_and_same_frame_twice(tmp_path):
    folder = write_scannet_scene(tmp_path / "s", (24, 32), num_frames=3, lost_frames=(), image_format="jpg")
    assert load_scannet_scene(folder).read_color(0).shape == (3, 24, 32)
    shutil.copy(folder / "color" / "0.jpg", folder / "color" / "0.png")
    with pytest.raises(UserError, match=r"both 0.jpg and 0.png"):
        load_scannet_scene(folder)


def test_renamed_folder_keeps_its_meshes(folder):
    renamed = folder.rename(folder.with_name("kitchen"))
    scene = load_scannet_scene(renamed)
    assert scene.mesh_path.name == "scene0000_00_vh_clean_2.ply" and scene.mesh_path.exists()
    assert scene.label_mesh_path.name == "scene0000_00_vh_clean_2.labels.ply"


@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_truncated_and_headless_images_are_skipped_and_counted(tmp_path, caplog, image_format):
    folder = write_scannet_scene(tmp_path / "s", (24, 32), num_frames=6, lost_frames=(), image_format=image_format)
    path = folder / "color" / f"0.{image_format}"
    path.write_bytes(path.read_bytes()[:-100])
    (folder / "color" / f"1.{image_format}").write_bytes(b"")
    padded = folder / "color" / f"2.{image_format}"
    padded.write_bytes(padded.read_bytes() + bytes(64))
    scene = load_scannet_scene(folder)
    assert scene.frames == ["2", "3", "4", "5"] and scene.read_color(0).shape == (3, 24, 32)
    assert "2 of 6 frames left out: 2 with a colour image that cannot be read" in caplog.text


def test_mixed_sizes_are_refused(folder):
    Image.new("RGB", (16, 12)).save(folder / "color" / "5.png")
    with pytest.raises(UserError, match=r"several sizes: 32x24 \(10, such as frame 0\), 16x12 \(1, such as frame 5\)"):
        load_scannet_scene(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "intrinsic" / "intrinsic_color.txt").unlink(), "intrinsic_color.txt does not exist"),
        (lambda folder: (folder / "intrinsic" / "intrinsic_color.txt").write_text("1 2"), "holds 2 values"),
        *((lambda folder, name=name, text=text: (folder / "intrinsic" / f"{name}.txt").write_text(text), message)
          for name, text, message in (
              ("intrinsic_color", "nan " * 16, "finite numbers"), ("intrinsic_color", "\0", "text that is not numbers"),
              ("intrinsic_color", "1e308 0 16 0 1e308 12 0 0 1", "finite numbers"),
              ("intrinsic_color", "1e-9 0 16 0 1e-9 12 0 0 1", "focal lengths are 1e-09"),
              ("intrinsic_color", "1e9 0 16 0 1e9 12 0 0 1", "focal lengths are 1e\\+09"),
              ("intrinsic_color", "30 1e9 16 0 30 12 0 0 1", "is no camera matrix"),
              ("intrinsic_color", "30 0 16 0 30 12 5 5 5", "is no camera matrix"),
              ("extrinsic_color", "0 " * 16, "extrinsic_color.txt: .* is not a rotation"),
              ("extrinsic_depth", "2 0 0 0 2 0 0 0 2", "extrinsic_depth.txt: .* is not a rotation"),
              ("extrinsic_depth", "1e200 " * 16, "finite numbers"),
          )),
        (lambda folder: shutil.rmtree(folder / "color"), "color holds no images"),
        (lambda folder: shutil.rmtree(folder / "pose"), "pose holds no poses"),
        (lambda folder: [(folder / "pose" / f"{i}.txt").write_text("-inf " * 16) for i in range(12)],
         "no usable frame: 12 with a lost pose"),
        (lambda folder: shutil.rmtree(folder), "is not a folder"),
        (lambda folder: [shutil.rmtree(path) for path in folder.iterdir() if path.is_dir()], "color holds no images"),
    ],
)  # fmt: skip
def test_mistakes_get_one_sentence(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_scannet_scene(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_real_capture(shared_dir):
    scene = load_scannet_scene(shared_dir / "hololens_room")
    assert len(scene) == 158 and scene.frames[-1] == "157" and scene.image_size == (360, 540)
    assert scene.mesh_path.exists() and not scene.skipped
    assert torch.equal(scene.read_depth(5, size=(360, 540)), scene.read_depth(5))  # one calibration: nothing moves


def test_scaled_axes_are_divided_out_and_told(folder):
    plain = load_scannet_scene(folder)
    for path in (folder / "pose").iterdir():
        pose = np.loadtxt(path)
        pose[:3, :3] *= 2.5
        np.savetxt(path, pose)
    scene = load_scannet_scene(folder)
    torch.testing.assert_close(scene.camera_to_world, plain.camera_to_world, atol=1e-6, rtol=0)
    assert len(scene.remarks) == 1 and "11 poses have axes of length 2.5 instead of 1" in scene.remarks[0]


def test_poses_as_other_programs_print_them(folder):
    plain = load_scannet_scene(folder)
    ways = [
        lambda rows: b"\xef\xbb\xbf" + "\r\n".join(rows).encode(), lambda rows: "\n".join(rows).encode("utf-16"),
        lambda rows: "\n".join(rows).encode("utf-16-le"), lambda rows: "\n".join(rows[:3]).encode(),
        lambda rows: ("[" + ";\n".join(f"[{row}]" for row in rows) + "]").encode(),
        lambda rows: ("\n\n" + "\n".join(rows).replace(" ", ", ")).encode(),
    ]
    files = sorted((folder / "pose").iterdir())
    for index, path in enumerate(files):
        path.write_bytes(ways[index % len(ways)](path.read_text().splitlines()))
    scene = load_scannet_scene(folder)
    assert scene.frames == plain.frames and torch.equal(scene.camera_to_world, plain.camera_to_world)


def test_what_systems_leave_behind_is_no_frame(folder):
    plain = load_scannet_scene(folder)
    for part, suffix in (("color", "png"), ("depth", "png"), ("pose", "txt")):
        (folder / part / "@eaDir" / f"0.{suffix}").mkdir(parents=True)
        for name in (f"._0.{suffix}", ".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / part / name).write_bytes(b"\0\5\x16\7")
    (folder / f"._{folder.name}_vh_clean_2.ply").write_bytes(b"\0")
    renamed = folder.rename(folder.with_name("another_name"))
    scene = load_scannet_scene(renamed)
    assert scene.frames == plain.frames and scene.skipped == plain.skipped
    assert scene.mesh_path.name == "scene0000_00_vh_clean_2.ply"


def test_frames_whose_numbers_are_padded_otherwise(folder):
    plain = load_scannet_scene(folder)
    for path in list((folder / "color").iterdir()):
        path.rename(path.with_name(f"{int(path.stem):06d}.PNG"))
    scene = load_scannet_scene(folder)
    assert scene.frames == [f"{int(name):06d}" for name in plain.frames]
    assert torch.equal(scene.camera_to_world, plain.camera_to_world)
    assert scene.depth_paths == plain.depth_paths


@pytest.mark.parametrize("way", ["tiff", "tif16", "pgm", "pgm_short", "npy", "npy16"])
def test_depth_in_other_files(folder, way):
    plain = load_scannet_scene(folder)
    expected = [plain.read_depth(index) for index in range(len(plain))]
    for path in list((folder / "depth").iterdir()):
        units = np.asarray(Image.open(path)).astype(np.uint16)
        metres = units.astype(np.float32) / 1000
        path.unlink()
        if way in ("tiff", "tif16"):
            suffix = ".TIF" if way == "tif16" else ".tiff"
            Image.fromarray(metres if way == "tiff" else units).save(path.with_suffix(suffix))
        elif way.startswith("pgm"):  # a largest number that is not 65535 must not stretch the others
            head = f"P5\n{units.shape[1]} {units.shape[0]}\n{65535 if way == 'pgm' else 7001}\n".encode()
            path.with_suffix(".pgm").write_bytes(head + units.astype(">u2").tobytes())
        else:
            values = np.where(metres == 0, np.nan, metres) if way == "npy" else units[..., None]
            np.save(path.with_suffix(".npy"), values)
    scene = load_scannet_scene(folder)
    assert scene.depth_size == plain.depth_size and not scene.remarks
    for index, depth in enumerate(expected):
        torch.testing.assert_close(scene.read_depth(index), depth, atol=1e-6, rtol=0)


def test_a_depth_folder_without_a_readable_kind_is_told(folder):
    for path in list((folder / "depth").iterdir()):
        path.rename(path.with_suffix(".exr"))
    assert "depth/ holds 12 files (such as 0.exr) and none that is read" in load_scannet_scene(folder).remarks[0]


def test_a_scene_without_color_is_still_scannets(folder):
    """Folders `pose` are NSVF's too, whose photographs nobody should look for here."""
    shutil.rmtree(folder / "color")
    with pytest.raises(UserError, match=r"color holds no images; expected color/N.jpg or N.png: extract the"):
        load_scene(folder)
    (folder / "color").mkdir()
    (folder / "color" / "0.heic").write_bytes(b"1")
    with pytest.raises(UserError, match=r"and found 0.heic, which is not read"):
        load_scene(folder)


def test_a_folder_that_is_no_scene_says_what_it_may_be(folder, tmp_path):
    with pytest.raises(UserError, match=r"scene0000_00/depth is in no known layout.*00 has color and is probably a"):
        load_scene(folder / "depth")
    for name, hint in (("a.sens", r"'extract' task"), ("images/0.jpg", "no poses yet: COLMAP")):
        file = tmp_path / "scans" / name[0] / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"1")
        with pytest.raises(UserError, match=hint):
            load_scene(tmp_path / "scans" / name[0])

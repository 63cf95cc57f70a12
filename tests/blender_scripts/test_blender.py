"""Blender's cameras and renders agree with ours. What needs Blender runs in the interpreter that SSIR_BLENDER_PYTHON
names, one with the package ``bpy``; ``scripts/test.sh --blender`` makes it. Without it those tests skip."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import gin
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_scripts.build_extension import build
from blender_scripts.camera_file import Cameras, read_cameras, write_cameras
from blender_scripts.camera_geometry import (
    dome_poses,
    from_blender,
    intrinsics_from_settings,
    look_at,
    settings_from_intrinsics,
    to_blender,
)
from blender_scripts.class_colors import class_colors, find_table, load_table, object_ids
from blender_scripts.scene_folder import image_size, read_matrix, read_poses, write_pose
from dataloader import CameraList
from dataloader.label_mesh import load_label_mesh
from dataloader.synthesis.scene_folder import write_ply
from tests.dataloader.scannet_fixture import write_scannet_scene
from utils import cameras
from utils.images import read_image
from utils.labels import read_label_set

ROOT = Path(__file__).resolve().parent.parent.parent
INTRINSICS = np.array([[110.0, 0.0, 70.0], [0.0, 90.0, 41.0], [0.0, 0.0, 1.0]])
HEIGHT, WIDTH = 96, 128


def pose(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    result = np.eye(4)
    result[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    result[:3, 3] = random.normal(size=3)
    return result


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_pose_round_trip(seed):
    np.testing.assert_allclose(from_blender(to_blender(pose(seed)) @ np.diag([2, 2, 2, 1])), pose(seed), atol=1e-12)


@pytest.mark.parametrize("fx, fy", [(110.0, 90.0), (90.0, 110.0), (100.0, 100.0)])
def test_intrinsics_round_trip(fx, fy):
    intrinsics = INTRINSICS.copy()
    intrinsics[0, 0], intrinsics[1, 1] = fx, fy
    settings = settings_from_intrinsics(intrinsics, HEIGHT, WIDTH)
    assert min(settings.pixel_aspect_x, settings.pixel_aspect_y) == 1, "Blender clamps smaller aspects"
    np.testing.assert_allclose(intrinsics_from_settings(settings, HEIGHT, WIDTH), intrinsics)


def test_look_at_and_dome_agree_with_the_project():
    eye, target = np.array([1.0, 2.0, 3.0]), np.array([0.5, -1.0, 0.0])
    expected = cameras.look_at(torch.from_numpy(eye), torch.from_numpy(target)).numpy()
    np.testing.assert_allclose(look_at(eye, target), expected, atol=1e-12)
    dome = dome_poses(target, 1.5, azimuths=5)
    np.testing.assert_allclose(np.linalg.norm(dome[:, :3, 3] - target, axis=1), 1.5)
    assert (dome[:, 2, 3] > target[2]).all()


def test_scene_folder_text_files(tmp_path):
    write_pose(tmp_path / "pose" / "10.txt", pose(1))
    write_pose(tmp_path / "pose" / "9.txt", pose(2))
    (tmp_path / "pose" / "11.txt").write_text("-inf " * 16)
    poses, lost = read_poses(tmp_path / "pose")
    assert list(poses) == ["9", "10"] and lost == ["11"]
    np.testing.assert_allclose(poses["10"], pose(1), rtol=1e-8, atol=1e-8)
    with pytest.raises(FileNotFoundError, match="gone.txt does not exist"):
        read_matrix(tmp_path / "gone.txt")


@pytest.mark.parametrize("name", ["scannet20.tsv", "nyu40.tsv", "scannet200.tsv", "scannetpp100.tsv", "own.tsv"])
def test_colours_are_those_of_the_chosen_table(tmp_path, name):
    """Rows that are trained as another class have its colour, and ids that are no class are black."""
    (tmp_path / "own.tsv").write_text("# ids: nyu40\nid\tname\tcolor\tclass\n5\tseat\t#102030\t\n"
                                      "6\tsofa\t#ffffff\tseat\n13\tblinds\t#405060\t-\n")
    own = name == "own.tsv"
    path = find_table(tmp_path / name if own else name)
    chosen = read_label_set(path)
    ids = np.array([0, 65535, *chosen.known_ids.values()])
    colors = class_colors(load_table(path)[1], ids)
    np.testing.assert_array_equal(colors[:, :3], (chosen.colors[chosen.class_of_id[ids]] / 255).astype(np.float32))
    if own:
        seat, none = [16, 32, 48], [0, 0, 0]
        assert (255 * colors[:, :3]).round().astype(int).tolist() == [none, none, seat, seat, none]
    assert (colors[:, 3] == 1).all()


def test_a_table_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match="nyu41.tsv does not exist; expected .*nyu40.tsv, scannet20.tsv"):
        find_table("nyu41.tsv")
    (tmp_path / "bad.tsv").write_text("id\tname\n")
    with pytest.raises(ValueError, match="bad.tsv is no table of labels: line 1"):
        load_table(tmp_path / "bad.tsv")


def annotated_scan(folder):
    """A scan of six vertices: a microwave of segments 7 and 9, within it a chair, a floor, one vertex of nothing."""
    folder.mkdir(parents=True)
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [2, 1, 0], [2, 2, 0]], np.float32)
    write_ply(folder / f"{folder.name}_vh_clean_2.ply", vertices, np.zeros((6, 3), np.uint8),
              np.array([[0, 1, 2], [3, 4, 5]], np.int32))
    objects = [("chair", [9]), ("round microwave", [7, 9]), ("floor", [4])]
    groups = [{"objectId": number, "label": label, "segments": parts} for number, (label, parts) in enumerate(objects)]
    (folder / f"{folder.name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
    (folder / f"{folder.name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": [7, 7, 9, 4, 4, 5]}))
    (folder.parent / "scannetv2-labels.combined.tsv").write_text(
        "id\traw_category\n2\tchair\n59\tround microwave\n3\tfloor\n")
    return folder


def test_objects_have_the_ids_that_annotation_takes(tmp_path):
    folder = annotated_scan(tmp_path / "scans" / "scene0000_00")
    scene = SimpleNamespace(path=folder, name=folder.name, mesh_path=folder / f"{folder.name}_vh_clean_2.ply",
                            label_mesh_path=folder / "none.ply", layout="ScanNet")  # fmt: skip
    for table, expected in (("scannet200.tsv", [59, 59, 2, 3, 3, 0]), ("scannetpp100.tsv", [0, 0, 10, 3, 3, 0])):
        system, rows = load_table(find_table(table))
        assert object_ids(folder, system, rows, 6).tolist() == expected
        with gin.unlock_config():
            gin.bind_parameter("label_set.table", f"configs/labels/{table}")
        try:
            assert load_label_mesh(scene).labels.tolist() == expected
        finally:
            gin.clear_config()
    with pytest.raises(ValueError, match="segs.json has 6 segments; the mesh has 7 vertices"):
        object_ids(folder, system, rows, 7)
    (folder.parent / "scannetv2-labels.combined.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="combined.tsv is not in"):
        object_ids(folder, "scannet", rows, 6)


def camera_list(tmp_path, focal=((110.0, 90.0), (55.0, 45.0))):
    names, size = ["near", "far"], (HEIGHT, WIDTH)
    intrinsics = [[[fx, 0.0, 70.0], [0.0, fy, 41.0], [0.0, 0.0, 1.0]] for fx, fy in focal]
    listed = CameraList("room", names, np.stack([pose(1), pose(2)]), np.array(intrinsics), size)
    listed.save(tmp_path / "room.json")
    return listed


def test_camera_lists_are_the_projects(tmp_path):
    listed = camera_list(tmp_path)
    cameras = read_cameras(tmp_path / "room.json")
    assert (cameras.scene, cameras.height, cameras.width) == ("room", HEIGHT, WIDTH)
    write_cameras(tmp_path / "again" / "room.json", cameras)
    again = CameraList.load(tmp_path / "again" / "room.json")
    assert again.names == listed.names and again.image_size == listed.image_size and bool(again.accepted().all())
    assert torch.equal(again.camera_to_world, listed.camera_to_world)
    assert torch.equal(again.intrinsics, listed.intrinsics)


@pytest.mark.parametrize("content, message", [
    ("[]", "is no camera list"), ("{", "is no camera list"),
    (json.dumps({"scene": "a", "image_size": [2, 2], "cameras": []}), "0 cameras"),
    (json.dumps({"scene": "a", "image_size": [2, 2], "cameras": [
        {"name": "x", "camera_to_world": [[1]], "intrinsics": np.eye(3).tolist()}]}), "4x4 finite numbers"),
])  # fmt: skip
def test_what_is_no_camera_list_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_cameras(tmp_path / "a.json")


def test_names_that_no_view_could_have_are_refused(tmp_path):
    cameras = Cameras("room", 2, 2, {"a/b": np.eye(4)}, {"a/b": np.eye(3)})
    with pytest.raises(ValueError, match="'a/b' cannot be a name"):
        write_cameras(tmp_path / "room.json", cameras)


def test_the_extension_needs_nothing_of_the_project(tmp_path):
    archive = zipfile.ZipFile(build(tmp_path))
    manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert manifest["version"] == project["version"] and manifest["blender_version_min"] == "4.2.0"
    archive.extractall(tmp_path / "site" / "extension")
    for name in (name for name in archive.namelist() if name.endswith(".py")):
        assert not re.search(r"^\s*from (blender_scripts|utils)", archive.read(name).decode(), re.MULTILINE), name
    check = "import sys; sys.path.insert(0, sys.argv[1]); import extension, extension.camera_file, " \
            "extension.camera_geometry; from extension.class_colors import find_table, load_table; " \
            "assert len(load_table(find_table('scannet200.tsv'))[1]) == 200"  # fmt: skip
    subprocess.run([sys.executable, "-I", "-c", check, str(tmp_path / "site")], cwd=tmp_path, check=True)


@pytest.fixture
def blender() -> str:
    """The interpreter that has bpy."""
    python = os.environ.get("SSIR_BLENDER_PYTHON")
    if not python:
        pytest.skip("SSIR_BLENDER_PYTHON is not set; scripts/test.sh --blender installs Blender's bpy and sets it")
    return python


CAMERAS_IN_BLENDER = """
import json, sys
import bpy, numpy as np
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector
from blender_scripts.scene_objects import add_camera, camera_intrinsics, camera_pose
job = json.loads(sys.argv[1])
bpy.ops.wm.read_factory_settings(use_empty=True)
results = []
for pose, point in zip(job["poses"], job["points"]):
    camera = add_camera("camera", np.array(pose), np.array(job["intrinsics"]), job["height"], job["width"])
    bpy.context.view_layer.update()
    view = world_to_camera_view(bpy.context.scene, camera, Vector(point))
    results.append([camera_pose(camera).tolist(), camera_intrinsics(camera).tolist(), [view.x, 1 - view.y]])
print("RESULT" + json.dumps(results))
"""


def test_blender_camera_round_trip_within_1e5(blender):
    poses = [pose(seed) for seed in range(5)]
    points = [matrix[:3, :3] @ np.array([0.3, -0.2, 2.0]) + matrix[:3, 3] for matrix in poses]
    job = {
        "poses": [matrix.tolist() for matrix in poses], "points": [point.tolist() for point in points],
        "intrinsics": INTRINSICS.tolist(), "height": HEIGHT, "width": WIDTH,
    }
    result = subprocess.run(
        [blender, "-c", CAMERAS_IN_BLENDER, json.dumps(job)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    answers = json.loads(result.stdout.split("RESULT")[1])
    for matrix, point, (back, intrinsics, (u, v)) in zip(poses, points, answers, strict=True):
        np.testing.assert_allclose(back, matrix, atol=1e-5)
        np.testing.assert_allclose(intrinsics, INTRINSICS, rtol=1e-5)
        expected, _ = cameras.project(*map(torch.from_numpy, (point, INTRINSICS, matrix)))
        assert (u * WIDTH, v * HEIGHT) == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("table", ["scannet20.tsv", "nyu40.tsv"])
def test_blender_render_overlays_our_annotation(tmp_path, blender, table):
    from dataloader import load_mesh, load_scannet_scene
    from lib.raster import rasterize

    folder = write_scannet_scene(tmp_path / "scene0000_00")
    scene = load_scannet_scene(folder)
    command = [blender, str(ROOT / "blender_scripts" / "open_scene.py"), "--", "--scene", str(folder),
               "--labels", table]  # fmt: skip
    picture = tmp_path / "render.png"
    subprocess.run([*command, "--frame", scene.frames[0], "--render", str(picture)], check=True, timeout=300)
    mesh = load_mesh(scene.label_mesh_path)
    height, width = image_size(folder / "color")
    fragments = rasterize(
        mesh.vertices, mesh.faces,
        cameras.rigid_inverse(torch.as_tensor(scene.camera_to_world[:1])).float(),
        torch.as_tensor(scene.intrinsics).float()[None], height, width,
    )
    chosen = read_label_set(find_table(table))
    vertex_class = torch.from_numpy(chosen.class_of_id)[mesh.labels.long()].long()
    corners = vertex_class[mesh.faces[fragments.face[0].clamp(min=0).long()].long()]
    uniform = (fragments.face[0] >= 0) & (corners == corners[..., :1]).all(-1)
    expected = torch.from_numpy(chosen.colors)[corners[..., 0]].movedim(-1, 0).int()
    render = read_image(picture).int()
    window = torch.nn.functional.unfold(
        torch.nn.functional.pad(render.float()[None], (1, 1, 1, 1), mode="replicate"), 3
    ).reshape(3, 9, height, width)
    distance = (window - expected[:, None]).abs().amax(0).amin(0)  # the nearest colour within one pixel
    assert uniform.float().mean() > 0.5
    assert (distance[uniform] <= 2).float().mean() > 0.999


COLOURS_IN_BLENDER = """
import json, sys
from pathlib import Path
import bpy, numpy as np
from blender_scripts.scene_objects import COLOR_ATTRIBUTE, import_scan
for table in sys.argv[2:]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    mesh = import_scan(Path(sys.argv[1]), table).data
    values = np.empty((len(mesh.vertices), 4), np.float32)
    mesh.color_attributes[COLOR_ATTRIBUTE].data.foreach_get("color_srgb", values.ravel())
    print("RESULT" + json.dumps((255 * values[:, :3]).round().astype(int).tolist()))
"""


def test_blender_shows_objects_in_the_tables_colours(tmp_path, blender):
    folder = annotated_scan(tmp_path / "scans" / "scene0000_00")
    tables = {"scannet200.tsv": [59, 59, 2, 3, 3, 0], "scannetpp100.tsv": [0, 0, 10, 3, 3, 0]}
    result = subprocess.run([blender, "-c", COLOURS_IN_BLENDER, str(folder), *tables], cwd=ROOT, capture_output=True,
                            text=True, check=True, timeout=300)
    shown = [json.loads(line[len("RESULT") :]) for line in result.stdout.splitlines() if line.startswith("RESULT")]
    for (table, ids), colors in zip(tables.items(), shown, strict=True):
        chosen = read_label_set(find_table(table))
        assert colors == chosen.colors[chosen.class_of_id[ids]].tolist(), table


LISTS_IN_BLENDER = """
import sys
import bpy
from extension.addon import register
from extension.open_scene import open_cameras
register()
source, target, dome = sys.argv[1:]
bpy.ops.wm.read_factory_settings(use_empty=True)
assert bpy.ops.scannet.open_cameras(filepath=source) == {"FINISHED"}
assert bpy.ops.scannet.export_cameras(filepath=target) == {"FINISHED"}
bpy.context.scene.cursor.location = (1, 2, 3)
for camera in list(bpy.context.scene.objects):
    camera.select_set(False)
assert bpy.ops.scannet.build_dome(radius=2.0, azimuths=4) == {"FINISHED"}
for camera in bpy.context.scene.objects:
    camera.select_set(camera.name.startswith("dome"))
assert bpy.ops.scannet.export_cameras(filepath=dome, selected=True) == {"FINISHED"}
"""


def test_lists_and_domes_of_the_extension_are_what_render_reads(tmp_path, blender):
    listed = camera_list(tmp_path)
    zipfile.ZipFile(build(tmp_path)).extractall(tmp_path / "extension")
    command = [blender, "-c", LISTS_IN_BLENDER, str(tmp_path / "room.json"), str(tmp_path / "out" / "room.json"),
               str(tmp_path / "dome" / "room.json")]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    again = CameraList.load(tmp_path / "out" / "room.json")
    assert sorted(again.names) == sorted(listed.names)
    for name in listed.names:
        here, there = listed.names.index(name), again.names.index(name)
        torch.testing.assert_close(again.camera_to_world[there], listed.camera_to_world[here], atol=1e-5, rtol=0)
        torch.testing.assert_close(again.intrinsics[there], listed.intrinsics[here], atol=1e-3, rtol=1e-5)
    dome = CameraList.load(tmp_path / "dome" / "room.json")
    assert len(dome) == 12 and dome.image_size == (HEIGHT, WIDTH)
    distance = (dome.camera_to_world[:, :3, 3] - torch.tensor([1.0, 2, 3], dtype=torch.float64)).norm(dim=1)
    torch.testing.assert_close(distance, torch.full_like(distance, 2.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("arguments, message", [
    (["--scene", "DIR"], "put -- before --scene"), ([], "put -- --scene DIR"),
])  # fmt: skip
def test_arguments_that_blender_would_take_for_its_own_are_refused(blender, arguments, message):
    script = str(ROOT / "blender_scripts" / "open_scene.py")
    result = subprocess.run([blender, script, *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 2 and result.stderr.strip().splitlines()[-1].startswith(f"error: {message}")

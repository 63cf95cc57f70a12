"""The task: a scan is fitted, exported in every form, and what was exported is fitted again."""

import shutil

import gin
import pytest
import torch

import run as entry
from dataloader import CameraList, ViewStore, load_mesh, load_scene
from dataloader.hold_out import load_held_out
from dataloader.ply import read_ply
from dataloader.verification import inspect_field
from model import RadianceField
from tests.dataloader.fisheye_fixture import write_fisheye_room
from tests.dataloader.scannet_fixture import ROOM, write_scannet_scene
from tests.dataloader.test_fisheye_scenes import fisheye_capture
from utils.files import read_json

TINY = ["FitGrid.resolutions = (24,)", "FitOptimization.steps = (40,)", "FitOptimization.rays_per_step = (400,)",
        "FitPoses.rounds = 0", "FitData.holdout_every = 4", "DEVICE = 'cpu'", "SIZE = (24, 32)",
        "MeshOptions.least_faces = 20"]  # fmt: skip


def call(work, task, *bindings):
    gin.clear_config()
    lines = [f"DATA = '{work}/data'", f"WORK = '{work}/work'", *TINY, *bindings]
    return entry.main([task, *(word for line in lines for word in ("--ginb", line))])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_scannet_scene(folder / "data" / "scans" / "room", num_frames=10, lost_frames=(3,))
    assert call(folder, "fit") == 0 and call(folder, "render") == 0
    return folder


def test_all_forms_of_a_fitted_scan(work, capsys):
    pytest.importorskip("skimage", reason="needs the extra mesh")
    forms = "export_scene.forms = ('mesh', 'points', 'nerfstudio')"
    assert call(work, "export_scene", forms) == 0
    exports = work / "work" / "exports"
    figures = read_json(exports / "run" / "metrics.json")["scenes"]["room"]
    mesh = load_mesh(exports / "mesh" / "room" / "mesh.ply")
    assert figures["mesh"]["faces"] == len(mesh.faces) > 500
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    margin = 3 * 4.5 / 24  # voxels: walls are as thick
    assert (low > -margin).all() and (high < torch.tensor(ROOM) + margin).all()
    columns = read_ply(exports / "points" / "room" / "points.ply")["vertex"]
    assert figures["points"]["points"] == len(columns["x"]) > 200
    assert figures["nerfstudio"]["views"] == figures["nerfstudio"]["depth_maps"] == 9
    assert figures["nerfstudio"]["points"] == figures["points"]["points"]
    before = (exports / "mesh" / "room" / "mesh.ply").stat().st_mtime_ns
    capsys.readouterr()
    assert call(work, "export_scene", forms) == 0
    assert (exports / "mesh" / "room" / "mesh.ply").stat().st_mtime_ns == before
    assert call(work, "export_scene", forms, "MeshOptions.opacity = 0.4") == 2
    assert "mesh.opacity = 0.3 there, 0.4 now" in capsys.readouterr().err


def test_a_scene_without_a_surface_is_named(work, capsys):
    pytest.importorskip("skimage", reason="needs the extra mesh")
    nothing = ["export_scene.forms = ('mesh',)", "export_scene.colors = 'field'", "MeshOptions.least_faces = 1000000"]
    assert call(work, "export_scene", f"EXPORTS = '{work}/empty'", *nothing) == 2
    assert "room: all " in capsys.readouterr().err and not (work / "empty" / "mesh" / "room").exists()


def test_a_nerfstudio_data_set_is_fitted_like_the_scan(work):
    assert call(work, "export_scene", "export_scene.forms = ('nerfstudio',)", f"EXPORTS = '{work}/again'") == 0
    scan, copy = load_scene(work / "data/scans/room"), load_scene(work / "again/nerfstudio/room")
    assert copy.frames == scan.frames and torch.equal(copy.camera_to_world, scan.camera_to_world)
    torch.testing.assert_close(copy.intrinsics, scan.intrinsics)
    for index in range(len(scan)):
        assert torch.equal(copy.read_color(index), scan.read_color(index))
        torch.testing.assert_close(copy.read_depth(index), scan.read_depth(index), atol=0.0005001, rtol=0)
    assert call(work, "fit", f"SCANS = '{work}/again/nerfstudio'", f"FIELDS = '{work}/again/fields'") == 0
    first, second = (folder / "plenoxel_scannet_room" for folder in (work / "work/fields", work / "again/fields"))
    assert load_held_out(first) == load_held_out(second) == ["0", "5", "9"]
    results = [read_json(folder / "results.json") for folder in (first, second)]
    assert results[1]["training_frames"] == results[0]["training_frames"] == 6


def test_rendered_views_as_a_data_set(work):
    views = f"export_scene.views_dir = '{work}/work/views/original'"
    out = f"EXPORTS = '{work}/rendered'"
    assert call(work, "export_scene", "export_scene.forms = ('nerfstudio',)", views, out) == 0
    store, scene = ViewStore(work / "work/views/original/room"), load_scene(work / "rendered/nerfstudio/room")
    cameras: CameraList = store.cameras
    assert scene.frames == cameras.names and scene.image_size == (24, 32)
    assert torch.equal(scene.camera_to_world, cameras.camera_to_world)
    torch.testing.assert_close(scene.intrinsics, cameras.intrinsics[0])
    assert torch.equal(scene.read_color(2), store.read_stored("rgb", 2))
    alpha = store.read("alpha", 2)
    sure = alpha > 0.6
    expected = (store.read("depth", 2) / alpha.clamp(min=0.5))[sure]
    assert sure.sum() > 100
    torch.testing.assert_close(scene.read_depth(2)[sure], expected, atol=0.0005001, rtol=0)


def test_captures_without_a_field_become_a_data_set(work):
    nowhere = [f"FIELDS = '{work}/nowhere'", f"EXPORTS = '{work}/captures'"]
    assert call(work, "export_scene", "export_scene.forms = ('nerfstudio',)", *nowhere) == 0
    content = read_json(work / "captures/nerfstudio/room/transforms.json")
    assert "ply_file_path" not in content and content["test_filenames"] == ["images/0.png", "images/9.png"]


def test_a_field_on_one_grid_says_what_it_lost(work):
    """Of the same number of cells it is the same field, and a coarser one renders worse; the loss is in its results."""
    out, form = f"EXPORTS = '{work}/single'", "export_scene.forms = ('perfception',)"
    field = work / "work/fields/plenoxel_scannet_room"
    assert call(work, "export_scene", form, out, "GridOptions.resolution = 24") == 0
    figures = read_json(work / "single/run/metrics.json")["scenes"]["room"]["perfception"]
    copy = work / "single/perfception/plenoxel_scannet_room"
    assert (figures["measured"], figures["photographs"]) == ("held-out", 3)
    assert figures["psnr_after"] == pytest.approx(figures["psnr_before"], abs=0.2)
    assert load_held_out(copy) == load_held_out(field) == ["0", "5", "9"]
    facts = inspect_field(copy)[1]
    assert facts.psnr == figures["psnr_after"] and facts.resolution == (24,) * 3
    assert facts.voxels == (figures["voxels"],) and (copy / "capture.npz").is_file()
    before, after = RadianceField.load(field), RadianceField.load(copy)
    torch.testing.assert_close(before.transform.T, after.transform.T)
    coarse = [form, f"EXPORTS = '{work}/coarse'", "GridOptions.resolution = 8"]
    assert call(work, "export_scene", *coarse) == 0
    worse = read_json(work / "coarse/run/metrics.json")["scenes"]["room"]["perfception"]
    assert worse["psnr_after"] < figures["psnr_after"] - 1 and worse["psnr_before"] == figures["psnr_before"]


REFUSED = {
    "an unknown form": (["export_scene.forms = ('obj',)"], "export_scene.forms = 'obj' is unknown"),
    "no form": (["export_scene.forms = ()"], "export_scene.forms = () is empty, and nothing would be written"),
    "a mesh's colours without cameras": (["export_scene.forms = ('mesh',)", "export_scene.scans_dir = ''"],
        "set export_scene.scans_dir or views_dir, or set colors = 'field' and MeshOptions.weight = 0"),
    "points without cameras": (["export_scene.forms = ('points',)", "export_scene.scans_dir = ''"],
        "form 'points' needs the recorded cameras; set export_scene.scans_dir or views_dir, or leave the form out"),
    "no field": (["SCENES = ['hall']", "export_scene.forms = ('points',)"], "plenoxel_scannet_hall holds no field"),
    "a folder that is not there": (["export_scene.fused_dir = '/nowhere'"], "export_scene.fused_dir = '/nowhere' is"),
    "an opacity beyond": (["MeshOptions.opacity = 1.0"], "MeshOptions.opacity = 1.0: expected"),
    "no weight": (["PointOptions.weight = 0.0"], "PointOptions.weight = 0.0: expected"),
    "no pixels": (["export_scene.image_side = 2"], "export_scene.image_side = 2: expected"),
}  # fmt: skip


@pytest.mark.parametrize("bindings, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exported_is_refused_before_work(work, capsys, bindings, message):
    assert call(work, "export_scene", f"EXPORTS = '{work}/none'", *bindings) == 2
    assert message in capsys.readouterr().err and not (work / "none").exists()


def test_a_fisheye_capture_as_a_data_set(tmp_path):
    scan = write_fisheye_room(tmp_path / "data" / "scans" / "hall", frames=6)
    assert call(tmp_path, "export_scene", "export_scene.forms = ('nerfstudio',)") == 0
    room, copy = load_scene(scan), load_scene(tmp_path / "work/exports/nerfstudio/hall")
    assert copy.lens.coefficients == room.lens.coefficients
    assert copy.lens.reach == pytest.approx(room.lens.reach, abs=1e-9)
    assert torch.equal(copy.intrinsics, room.intrinsics) and copy.resampled_from is None
    for index in range(6):
        assert torch.equal(copy.read_color(index), room.read_color(index))
        assert torch.equal(copy.camera_to_world[index], room.camera_to_world[index])
        distance = room.read_depth(index, room.image_size)
        torch.testing.assert_close(copy.read_depth(index, room.image_size), distance, atol=0.0005001, rtol=0)
        assert (distance > 0).float().mean() > 0.5


def test_a_lens_that_the_format_cannot_say_is_refused_before_work(work, tmp_path, capsys):
    """Not after its mesh and points were made."""
    fisheye_capture(tmp_path / "data" / "scans" / "prism", "THIN_PRISM_FISHEYE")
    fields = tmp_path / "work" / "fields"
    shutil.copytree(work / "work/fields/plenoxel_scannet_room", fields / "plenoxel_scannet_prism")
    assert call(tmp_path, "export_scene", "export_scene.forms = ('mesh', 'nerfstudio')") == 2
    said = capsys.readouterr().err
    assert "prism: its views are of a fisheye lens" in said and "LensOptions.keep = 'none'" in said
    assert not (tmp_path / "work" / "exports").exists()

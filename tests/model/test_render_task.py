"""View stores from fields: the same bytes again, resumable, aligned with the camera's pictures, camera lists."""


import gin
import pytest
import torch

from dataloader import CameraList, SceneTransform, ViewStore, load_scannet_scene
from model import RadianceField, RenderOptions, radiance_field, view_rendering
from model.task_render import render
from model.view_rendering import sh_range
from tests.dataloader.scannet_fixture import ROOM, write_scannet_scene
from tests.dataloader.scene_exports import Capture, write_colmap, write_nsvf, write_transforms
from tests.model.grid_fixture import filled, voxel_centers
from utils.errors import UserError
from utils.files import write_json
from utils.records import METRICS_FILE

SIZE = (31, 40)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A scene, and a field of its walls with random coefficients (nothing is fitted)."""
    folder = tmp_path_factory.mktemp("work")
    write_scannet_scene(folder / "scans" / "scene0000_00", num_frames=7)
    room = torch.tensor(ROOM, dtype=torch.float64)
    transform = SceneTransform(torch.eye(4), room / 2, 0.45)
    voxels = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"), -1)
    world = transform.points_from_grid(voxel_centers(voxels, 24))
    wall = torch.minimum(world, room.float() - world).amin(-1)
    grid = filled(wall.abs() < 0.2, density=200.0)
    grid.sh[:] = torch.randn(grid.sh.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    grid.save(folder / "fields" / "plenoxel_scannet_scene0000_00", transform)
    return folder


def call(work, views, **options):
    return render(str(work / "scans"), str(work / "fields"), str(views), **{"size": SIZE, "device": "cpu", **options})


def render_and_record(work, views):
    """As ``run.py`` does: what the task returns becomes its metrics.json."""
    metrics = call(work, views)
    write_json(views / "run" / METRICS_FILE, metrics)
    return metrics


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_stores_render_bit_identically(work, tmp_path, monkeypatch):
    metrics = call(work, tmp_path / "one")
    monkeypatch.setattr(radiance_field, "RAYS_AT_ONCE", 3 * SIZE[0] * SIZE[1])  # other batches, the same bits
    call(work, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert metrics["views"] == 6  # frame 3 is lost


@pytest.mark.parametrize("write", [write_nsvf, write_transforms, write_colmap])
def test_trajectories_of_other_layouts_render_the_same_views(write, work, tmp_path):
    scene = load_scannet_scene(work / "scans" / "scene0000_00")
    pictures = [scene.read_color(index) for index in range(len(scene))]
    write(tmp_path / "scans" / "scene0000_00", Capture(pictures, scene.camera_to_world, scene.intrinsics))
    call(work, tmp_path / "one")
    render(str(tmp_path / "scans"), str(work / "fields"), str(tmp_path / "two"), size=SIZE, device="cpu")
    one, other = (ViewStore.open(tmp_path / name / "scene0000_00") for name in ("one", "two"))
    torch.testing.assert_close(one.cameras.camera_to_world, other.cameras.camera_to_world, rtol=0, atol=1e-8)
    torch.testing.assert_close(one.cameras.intrinsics, other.cameras.intrinsics, rtol=0, atol=1e-8)
    assert torch.equal(one.tensor("photo"), other.tensor("photo"))
    assert (one.tensor("rgb").int() - other.tensor("rgb").int()).abs().max() <= 1


def test_what_a_store_holds(work, tmp_path):
    call(work, tmp_path)
    store = ViewStore.open(tmp_path / "scene0000_00")
    scene = load_scannet_scene(work / "scans" / "scene0000_00")
    field = RadianceField.load(work / "fields" / "plenoxel_scannet_scene0000_00")
    cameras = scene.cameras(SIZE)
    assert store.size == SIZE and len(store) == 6 and store.cameras.names == ["0", "1", "2", "4", "5", "6"]
    for index in (0, 5):
        view = field.render_view(cameras.camera_to_world[index], cameras.intrinsics[index], SIZE)
        assert (store.read("rgb", index) - view.rgb.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
        assert (store.read("depth", index) - view.depth).abs().max() <= 0.5e-3 + 1e-6
        step = (store.sh_range[:, 1] - store.sh_range[:, 0]) / 510
        low, high = store.sh_range[:, 0, None, None], store.sh_range[:, 1, None, None]
        assert ((store.read("sh", index) - view.sh.clamp(low, high)).abs() <= step[:, None, None] + 1e-5).all()
        assert torch.equal((store.read("photo", index) * 255).round().byte(), scene.read_color(index, SIZE))


def test_finished_stores_are_left_alone_and_other_settings_refused(work, tmp_path, monkeypatch):
    call(work, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "scene0000_00").iterdir()}
    call(work, tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "scene0000_00").iterdir()}
    gin.bind_parameter("RenderOptions.step_size", 0.25)
    with pytest.raises(UserError, match=r"other settings \(options.step_size = 0.5 there, 0.25 now\)"):
        call(work, tmp_path)
    with pytest.raises(UserError, match=r"other settings \(size = \[31, 40\] there, \[20, 30\] now\)"):
        call(work, tmp_path, size=(20, 30))
    gin.bind_parameter("RenderOptions.step_size", 0.5)
    monkeypatch.setattr(view_rendering, "RENDERER_VERSIONS", {"cpu": 3})
    with pytest.raises(UserError, match=r"other settings \(renderer = 2 there, 3 now\)"):
        call(work, tmp_path)


def test_a_run_with_nothing_to_do_keeps_the_measured_rate(work, tmp_path):
    rate = render_and_record(work, tmp_path)["scenes"]["scene0000_00"]["views_per_second"]
    assert rate > 0
    for _ in range(2):
        assert render_and_record(work, tmp_path)["scenes"]["scene0000_00"]["views_per_second"] == rate


def test_an_interrupted_store_is_continued(work, tmp_path, resume, monkeypatch):
    call(work, tmp_path / "whole")
    monkeypatch.setattr(radiance_field, "RAYS_AT_ONCE", 2 * SIZE[0] * SIZE[1])
    original, rendered = RadianceField.render_views, []

    def render_two_batches(self, pose, *arguments):
        if len(rendered) == 2:
            raise KeyboardInterrupt
        rendered.append(len(pose))
        return original(self, pose, *arguments)

    monkeypatch.setattr(RadianceField, "render_views", render_two_batches)
    with pytest.raises(KeyboardInterrupt):
        call(work, tmp_path / "parts")
    rendered.clear()
    call(work, tmp_path / "parts")
    assert rendered == [2]  # of 6 views, 4 were there
    assert contents(tmp_path / "whole" / "scene0000_00") == contents(tmp_path / "parts" / "scene0000_00")


def test_accepted_cameras_of_a_list(work, tmp_path):
    scene = load_scannet_scene(work / "scans" / "scene0000_00")
    cameras = scene.cameras((62, 80))
    cameras.info = [{"accepted": index != 1} for index in range(len(cameras))]
    cameras.save(tmp_path / "domes" / "scene0000_00.json")
    metrics = call(work, tmp_path / "views", cameras=str(tmp_path / "domes"))
    store = ViewStore.open(tmp_path / "views" / "scene0000_00")
    assert metrics["views"] == 5 and store.cameras.names == ["0", "2", "4", "5", "6"]
    assert "photo" not in store.channels and store.size == SIZE
    call(work, tmp_path / "trajectory")
    original = ViewStore.open(tmp_path / "trajectory" / "scene0000_00")
    assert torch.equal(store.tensor("sh")[1], original.tensor("sh")[2])


def test_half_precision_has_no_range(work, tmp_path):
    call(work, tmp_path, sh_dtype="float16", every=3)
    store = ViewStore.open(tmp_path / "scene0000_00")
    assert store.sh_range is None and store.tensor("sh").dtype == torch.float16 and store.cameras.names == ["0", "4"]


def test_range_of_sh_counts_voxels_by_opacity():
    occupied = torch.ones(10, 10, 10, dtype=torch.bool)
    grid = filled(occupied, density=100.0)
    grid.sh[:] = torch.linspace(-0.5, 1.0, 1000)[:, None]
    grid.sh[0], grid.density[0] = 50.0, 0.0  # an invisible voxel
    limits = sh_range(grid)
    assert limits.shape == (27, 2)
    assert torch.allclose(limits[:, 0], torch.tensor(-0.5), atol=0.01)
    assert torch.allclose(limits[:, 1], torch.tensor(1.0), atol=0.01)
    grid.sh[:] = 0.3  # 0 is always in the range: an empty ray has no coefficients
    assert torch.allclose(sh_range(grid), torch.tensor([0.0, 0.3]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sh_dtype": "int4"}, "sh_dtype"),
        ({"every": 0}, "every"),
        ({"cameras": "/nowhere"}, "no folder"),
        ({"scenes": ["scene0009_00"]}, "scene0009_00"),
    ],
)
def test_bad_requests_are_refused(work, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        call(work, tmp_path, **options)


def test_no_accepted_camera_is_said_and_stops_nothing(work, tmp_path):
    cameras = CameraList("scene0000_00", ["a"], torch.eye(4)[None], torch.eye(3), SIZE, [{"accepted": False}])
    cameras.save(tmp_path / "scene0000_00.json")
    assert call(work, tmp_path / "views", cameras=str(tmp_path))["views"] == 0
    plan = render.plan(str(work / "scans"), str(work / "fields"), str(tmp_path / "views"), cameras=str(tmp_path))
    assert ["has an accepted camera" in note for note in plan.notes] == [True] and not plan.items


def test_options_reach_the_renderer(work, tmp_path):
    gin.bind_parameter("RenderOptions.near_clip", 10.0)
    with pytest.raises(UserError, match="the field is transparent in every pixel of all 1 views"):
        call(work, tmp_path, every=6)
    assert RenderOptions().near_clip == 10.0

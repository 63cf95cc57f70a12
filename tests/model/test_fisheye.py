"""Fields and annotation through a fisheye lens: rays one by one, every face of the mesh, and the tasks end to end."""

import json

import gin
import numpy as np
import pytest
import torch

from benchmarks.fisheye import nearest_faces
from dataloader import CameraList, Mesh, ViewStore, load_mesh, load_scene
from lib.raster import RayTree
from model import PlenoxelGrid, RadianceField, RenderOptions, fuse_views, render_rays
from model.annotation import annotate_views, face_labels, vertex_labels
from model.fitting.carving import project_cells
from model.fitting.evaluation import mean_measurements, render_held_out
from model.fitting.exposure import ExposureEstimate
from model.fitting.fitter import FitOptions
from model.fitting.frames import Frames, load_training_frames, split_frames
from model.fitting.options import FitData, FitGrid, FitOptimization, FitPoses, FitRegularization
from model.fitting.poses import PoseRefinement, _motion_jacobian, _rigid_motion
from model.fitting.preparation import prepare_fitter
from model.fitting.ray_sampler import RaySampler
from model.fitting.scene_fit import FitSettings, fit_scene
from model.task_annotate import annotate
from model.task_render import render
from model.view_rays import grid_rays
from tests.dataloader.fisheye_fixture import SIZE, write_fisheye_room, write_pinhole_twin
from utils.cameras import camera_rays, pixel_grid, project, seen_pixels, unproject
from utils.errors import UserError
from utils.lenses import FISHEYE, Lens
from utils.rotations import axis_angle_to_matrix, matrix_to_axis_angle

CPU = torch.device("cpu")
DATA = FitData(holdout_every=6)
OPTIONS = FitOptions(
    FitGrid(resolutions=(40,)), FitOptimization(steps=(96,), rays_per_step=(2048,)),
    FitRegularization(depth=1.0, free_space=0.1), poses=FitPoses(rounds=2, tracked_only=False),
)  # fmt: skip
NAME = "scene9000_00"
FISH = Lens(FISHEYE, (-0.02, 0.004, -0.001, 1e-4), limit=1.4)
THIN = Lens(FISHEYE, (-0.02, 0.004, 0.0, 0.0), (1e-3, -2e-3), (3e-3, 1e-3), 1.4)
BARREL = Lens(radial=(-0.2, 0.05, 0.0, 0.0), tangential=(2e-3, -1e-3))
K = torch.tensor([[16.0, 0, 21], [0, 17, 15], [0, 0, 1]], dtype=torch.float64)
EYE = torch.eye(4, dtype=torch.float64)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """scans/, fields/ and views/ of one room, as the tasks make them."""
    folder = tmp_path_factory.mktemp("fisheye")
    write_fisheye_room(folder / "scans" / NAME)
    fit_scene(folder / "scans" / NAME, folder / "fields" / f"plenoxel_scannet_{NAME}", FitSettings(DATA, OPTIONS), CPU)
    render(str(folder / "scans"), str(folder / "fields"), str(folder / "views"), size=SIZE, device="cpu")
    annotate(str(folder / "scans"), str(folder / "views"), with_depth=True, device="cpu")
    return folder


@pytest.fixture(scope="module")
def scene(folder):
    return load_scene(folder / "scans" / NAME)


@pytest.fixture(scope="module")
def field(folder):
    return RadianceField.load(folder / "fields" / f"plenoxel_scannet_{NAME}")


@pytest.fixture(scope="module")
def store(folder):
    return ViewStore(folder / "views" / NAME)


@pytest.fixture(scope="module")
def seen(scene):
    return seen_pixels(scene.intrinsics, SIZE, scene.lens)


def small_grid(device="cpu"):
    """A cube of fog with a colour, in a grid of 12^3."""
    mask = torch.zeros(12, 12, 12, dtype=torch.bool)
    mask[3:9, 3:9, 3:9] = True
    generator = torch.Generator().manual_seed(0)
    return PlenoxelGrid.from_mask(mask, 3 * torch.rand(216, generator=generator),
                                  torch.rand(216, 27, generator=generator)).to(device)  # fmt: skip


def test_the_fit_says_how_good_it_is_through_the_lens(folder):
    results = json.loads((folder / "fields" / f"plenoxel_scannet_{NAME}" / "results.json").read_text())
    assert results["psnr"] > 26 and results["image_size"] == list(SIZE)  # 13.4 where rays ignore the lens


def test_its_field_is_as_good_at_pinhole_cameras_as_that_of_the_pinhole_twin(field, tmp_path):
    twin = load_scene(write_pinhole_twin(tmp_path / "twin"))
    frames = load_training_frames(twin, DATA, CPU)
    fitter, placement = prepare_fitter(twin, frames, DATA, OPTIONS)
    fitter.run()
    fields = {"twin": RadianceField(fitter.grid, placement.transform(), fitter.capture()), "fisheye": field}
    _, held_out = split_frames(twin.frames, DATA)
    psnr = {name: mean_measurements([view.measurements() for view in render_held_out(
        each, twin, held_out, SIZE, RenderOptions())])["psnr_given_pose"] for name, each in fields.items()}  # fmt: skip
    assert psnr["fisheye"] > psnr["twin"] - 0.5 and psnr["fisheye"] > 26, psnr


def test_stores_record_the_lens_and_hold_nothing_beyond_it(scene, store, seen):
    assert store.cameras.lens == scene.lens
    assert 0.05 < (~seen).double().mean() < 0.4
    for channel in ("rgb", "sh", "depth", "alpha", "label", "depth_mesh"):
        views = torch.stack([store.read(channel, view) for view in range(len(store))])
        # Coefficients are stored in steps of their range, of which none need be 0.
        step = (store.sh_range[:, 1] - store.sh_range[:, 0]).max() / 255 if channel == "sh" else 0
        assert views[..., ~seen].abs().max() <= step / 2, channel
        assert views[..., seen].any()
    assert torch.stack([store.read("label", view) for view in range(len(store))])[:, seen].bool().double().mean() > 0.5


def test_a_store_is_another_when_its_lens_is(folder, store):
    settings = json.loads((store.path / "settings.json").read_text())
    straight = store.cameras.select(range(len(store)))
    straight.lens = None
    from utils.identity import value_identity

    assert settings["store_cameras"] == value_identity(store.cameras.to_json()) != value_identity(straight.to_json())
    gin.bind_parameter("LensOptions.keep", "none")
    with pytest.raises(UserError, match="other settings"):
        render(str(folder / "scans"), str(folder / "fields"), str(folder / "views"), size=SIZE, device="cpu")


@pytest.mark.parametrize("view", [0, 7])
def test_annotation_is_the_nearest_of_all_faces_on_each_pixels_ray(scene, store, seen, view):
    mesh = load_mesh(scene.label_mesh_path, require_labels=True)
    corners = mesh.vertices.double()[mesh.faces.long()].numpy()
    pose = scene.camera_to_world[view]
    chosen = seen.flatten().nonzero()[::5, 0]
    directions = camera_rays(pose, scene.intrinsics, *SIZE, scene.lens)[1].reshape(-1, 3)[chosen].double().numpy()
    face, distance = nearest_faces(corners, pose[:3, 3].numpy(), directions)
    assert (face >= 0).all()
    table = face_labels(vertex_labels(mesh.labels), mesh.faces).numpy()
    same = table[face] == store.read("label", view).flatten()[chosen].numpy()
    assert same.mean() > 0.997  # a ray along the border of two labels may go to either: these are of float32
    gap = np.abs(store.read("depth_mesh", view).flatten()[chosen].numpy() - distance)
    assert np.median(gap) <= 5e-4 and np.quantile(gap, 0.99) < 1e-3  # stored in millimetres


def test_one_tree_serves_all_views_of_a_scene(scene, store, monkeypatch):
    made, make = [], RayTree.__init__
    monkeypatch.setattr(RayTree, "__init__", lambda self, *arguments: (made.append(1), make(self, *arguments))[1])
    monkeypatch.setattr("model.annotation._PIXELS_PER_CHUNK", 2 * SIZE[0] * SIZE[1])
    mesh = load_mesh(scene.label_mesh_path, require_labels=True)
    for _ in range(2):
        views = annotate_views(mesh, store.cameras)
    assert len(made) == 1
    assert torch.equal(views.label.long(), torch.stack([store.read("label", view) for view in range(len(store))]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lens", [FISH, THIN, BARREL])
def test_a_view_is_its_pixels_rays(lens, device):
    grid = small_grid(device)
    from dataloader import SceneTransform

    transform = SceneTransform(torch.eye(4, dtype=torch.float64), torch.tensor([0.1, -0.2, 0.3]).double(), 0.5, [])
    field = RadianceField(grid, transform)
    pose = EYE.clone()
    pose[:3, 3] = torch.tensor([0.2, -0.1, -2.0])
    view = field.render_view(pose, K, (30, 42), RenderOptions(), lens=lens)
    seen = seen_pixels(K, (30, 42), lens)
    assert all(not values[..., ~seen].any() for values in view if values is not None)
    for row, column in [(15, 21), (3, 20), (22, 30), (14, 9)]:
        uv = torch.tensor([[column + 0.5, row + 0.5]], dtype=torch.float64)
        point = unproject(uv, torch.ones(1, dtype=torch.float64), K, pose, lens)
        direction = torch.nn.functional.normalize(point - pose[:3, 3], dim=-1)
        origin = transform.points_to_grid(pose[None, :3, 3])
        out = render_rays(grid, origin.float().to(device), direction.float().to(device), RenderOptions())
        torch.testing.assert_close(view.rgb[:, row, column], out.rgb[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(view.alpha[row, column], out.alpha[0], rtol=0, atol=1e-5)
        along = 1.0 if lens.is_fisheye else float(direction[0, 2])
        torch.testing.assert_close(view.depth[row, column], out.depth[0] * 2 * along, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_unseen_pixels_count_for_nothing_when_fused(device):
    from dataloader import SceneTransform

    grid = small_grid(device)
    transform = SceneTransform(torch.eye(4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 1.0, [])
    pose = EYE.clone()
    pose[2, 3] = -1.5
    lens = Lens(FISHEYE, limit=0.5)
    seen = seen_pixels(K, (30, 42), lens)
    views = torch.rand(1, 3, 30, 42, generator=torch.Generator().manual_seed(0))
    other = torch.where(seen, views, 1 - views)
    fused = [fuse_views(grid, values, pose[None], K[None], (30, 42), transform, lens=lens) for values in (views, other)]
    in_order = {"rtol": 0, "atol": 0} if device == "cpu" else {}  # a GPU adds in any order
    torch.testing.assert_close(*fused, **in_order)
    assert fused[0].any()
    origins, directions = grid_rays(grid, pose[None], K[None], (30, 42), lens)
    missed = render_rays(grid, origins[0][~seen], directions[0][~seen], RenderOptions(), outputs=("alpha", "sh"))
    assert not missed.alpha.any() and not missed.sh.any()


@pytest.mark.parametrize("lens", [FISH, BARREL])
def test_training_rays_are_the_cameras(lens):
    generator = torch.Generator().manual_seed(0)
    seen = seen_pixels(K, (30, 42), lens)
    frames = Frames(
        [0, 1], torch.randint(256, (2, 30, 42, 3), generator=generator, dtype=torch.uint8),
        torch.randint(1, 3000, (2, 30, 42), generator=generator, dtype=torch.int16), EYE.repeat(2, 1, 1), K,
        valid=seen.expand(2, 30, 42), lens=lens,
    )  # fmt: skip
    poses = EYE.repeat(2, 1, 1)
    poses[1, :3, :3] = axis_angle_to_matrix(torch.tensor([0.1, 0.7, -0.3], dtype=torch.float64))
    poses[:, :3, 3] = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    sampler = RaySampler(frames, poses, 0.25, generator, with_distances=True)
    assert sampler.num_pixels == 2 * int(seen.sum())
    drawn = sampler.pixels(torch.arange(sampler.num_pixels))
    rays = sampler.rays_of(drawn)
    origins, directions = camera_rays(poses, K, 30, 42, lens)
    torch.testing.assert_close(rays.directions, directions.reshape(-1, 3)[drawn], rtol=0, atol=1e-6)
    torch.testing.assert_close(rays.origins, origins.reshape(-1, 3)[drawn])
    local = rays.directions.double() @ poses[0, :3, :3]
    along = 1.0 if lens.is_fisheye else 1 / local[:100, 2]
    expected = frames.depths.reshape(-1)[drawn][:100].double() / 1000 * along * 0.25
    torch.testing.assert_close(rays.distances[:100].double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("lens", [FISH, THIN, BARREL])
def test_cells_project_as_points_do(lens):
    pose = EYE.clone()
    pose[:3, :3] = axis_angle_to_matrix(torch.tensor([0.2, -0.4, 0.3], dtype=torch.float64))
    pose[:3, 3] = torch.tensor([0.1, 0.0, -0.4])
    column, row, depth, inside = next(iter(project_cells(9, K, pose[None], (30, 42), CPU, lens)))
    axis = (torch.arange(9, dtype=torch.float64) + 0.5) * 2 / 9 - 1
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    uv, expected = project(cells, K, pose, lens)
    within = (expected > 0) & (uv >= 0).all(-1) & (uv[..., 0] < 42) & (uv[..., 1] < 30)
    assert torch.equal(inside, within) and 30 < int(within.sum()) < 700
    torch.testing.assert_close(depth[inside].double(), expected[inside], rtol=1e-5, atol=1e-6)
    assert (torch.stack((column, row), -1)[inside] - uv[inside].floor()).abs().sum() <= 1  # float32 at a pixel's border


@pytest.mark.parametrize("lens", [None, FISH, THIN, BARREL])
def test_the_slope_of_a_picture_by_its_cameras_motion(lens):
    """Of a picture that is linear in its pixels, against the difference when the camera has moved."""
    uv = pixel_grid(30, 42, torch.float64)
    depth = 1 + torch.rand(30, 42, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = unproject(uv, depth, K, EYE, lens)
    slope = torch.tensor([0.03, -0.02], dtype=torch.float64)
    image = (uv @ slope).expand(1, 3, 30, 42)
    jacobian = _motion_jacobian(image, points[None], K, lens)[0, :, 0]
    inner = torch.zeros(30, 42, dtype=torch.bool)
    inner[5:25, 8:34] = True
    for number in range(6):
        twist = torch.zeros(1, 6, dtype=torch.float64)
        twist[0, number] = 1e-6
        moved, _ = project(points, K, _rigid_motion(twist)[0], lens)
        change = -((moved - uv) @ slope) / 1e-6
        torch.testing.assert_close(jacobian[number][inner], change[inner], rtol=1e-4, atol=1e-5)


def test_moved_fisheye_cameras_come_back(field, scene, seen):
    field = field.neutral()
    poses = scene.camera_to_world[[1, 4, 8]]
    views = [field.render_view(pose, scene.intrinsics, SIZE, RenderOptions(), ("rgb",), lens=scene.lens).rgb
             for pose in poses]  # fmt: skip
    images = (torch.stack(views).clamp(0, 1) * 255).round().byte().movedim(1, -1).contiguous()
    frames = Frames([1, 4, 8], images, torch.zeros(3, *SIZE, dtype=torch.int16), poses, scene.intrinsics,
                    valid=seen.expand(3, *SIZE), lens=scene.lens)  # fmt: skip
    true = field.transform.to_grid(poses)
    noise = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = true.clone()
    given[:, :3, :3] = axis_angle_to_matrix(noise[:, :3] * 0.006) @ given[:, :3, :3]
    given[:, :3, 3] += noise[:, 3:] * 0.006
    refinement = PoseRefinement(frames, given, FitPoses(translation_sigma=0.1, rotation_sigma=0.1))
    for _ in range(12):
        refinement.update(field.grid, ExposureEstimate(3, CPU, enabled=False), RenderOptions())

    def errors(now):
        turn = matrix_to_axis_angle(now[:, :3, :3] @ true[:, :3, :3].transpose(1, 2))
        return torch.stack(((now - true)[:, :3, 3].norm(dim=1).max(), turn.norm(dim=1).max()))

    assert (errors(refinement.camera_to_grid) < errors(given) / 4).all()


def test_the_frames_depth_lies_on_the_mesh(scene):
    from model.fitting.point_cloud import depth_point_cloud

    frames = load_training_frames(scene, DATA, CPU)
    assert frames.lens == scene.lens and torch.equal(frames.valid[0], frames.valid[3]) and not frames.valid.all()
    points = depth_point_cloud(frames).points
    mesh = load_mesh(scene.label_mesh_path)
    corners = mesh.vertices.double()[mesh.faces.long()]
    chosen = points[:: len(points) // 200].double()
    across = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = torch.nn.functional.normalize(across, dim=-1)
    gap = ((chosen[:, None] - corners[None, :, 0]) * normal).sum(-1).abs()
    near = torch.cdist(chosen, corners.mean(1)) < 0.2
    assert torch.where(near, gap, torch.inf).amin(1).quantile(0.98) < 1e-3


def test_live_training_is_refused(folder):
    from enet.live_options import DataOptions
    from enet.live_scenes import _open_scene

    data = DataOptions("live", folder / "fields", folder / "scans", SIZE, 1, "majority", 0.01, None, "live", 0.0, 1,
                       "refuse")  # fmt: skip
    with pytest.raises(UserError, match="photographed through a lens, and views that are rendered live are pinholes'"):
        _open_scene(NAME, data)


def test_transparent_pictures_through_a_lens_are_refused(tmp_path):
    from tests.dataloader.scene_exports import random_capture, transforms, write_transforms

    capture = random_capture(channels=4)
    content = {**transforms(capture), "camera_model": "OPENCV_FISHEYE"}
    with pytest.raises(UserError, match="transparency, which are carved for pinhole cameras alone"):
        load_training_frames(load_scene(write_transforms(tmp_path, capture, content)), FitData(), CPU)


def test_annotating_a_camera_list_with_a_lens_needs_no_store():
    """A wall two metres ahead: its depth through a fisheye lens is 2 / cos of the pixel's angle."""
    vertices = torch.tensor([[-90.0, -90, 2], [90, -90, 2], [90, 90, 2], [-90, 90, 2]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32), labels=torch.full((4,), 1).int())
    views = annotate_views(mesh, CameraList("wall", ["0"], EYE[None], K, (30, 42), lens=FISH))
    seen = seen_pixels(K, (30, 42), FISH)
    directions = camera_rays(EYE, K, 30, 42, FISH)[1]
    torch.testing.assert_close(views.depth[0][seen], 2 / directions[..., 2][seen], rtol=1e-4, atol=0)
    assert (views.label[0] == seen.to(torch.uint8)).all()

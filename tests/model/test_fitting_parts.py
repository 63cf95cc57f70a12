"""The pieces of a fit: frames, rays, exposure, schedule, placement, carving, starts, pruning."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from dataloader import load_scannet_scene
from model import RenderOptions
from model.fitting.carving import carve, near_cameras
from model.fitting.evaluation import ssim
from model.fitting.exposure import ExposureEstimate
from model.fitting.frames import Frames, fitted_size, load_training_frames, sharpness, split_frames
from model.fitting.options import FitData, FitGrid, FitOptimization
from model.fitting.placement import place
from model.fitting.point_cloud import depth_point_cloud, mesh_point_cloud
from model.fitting.ray_sampler import RaySampler
from model.fitting.refinement import largest_weights, prune
from model.fitting.schedule import level_of, log_linear
from model.fitting.start import opacity_to_density, starting_grid
from tests.dataloader.scannet_fixture import ROOM, write_scannet_scene
from tests.model.grid_fixture import dense, voxel_centers
from utils.cameras import camera_rays
from utils.errors import UserError
from utils.images import write_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return load_scannet_scene(write_scannet_scene(tmp_path_factory.mktemp("fit") / "scene0000_00", num_frames=12))


@pytest.fixture(scope="module")
def frames(scene):
    return load_training_frames(scene, FitData(holdout_every=5), CPU)


def test_structural_similarity_is_that_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    image, other = torch.rand(2, 3, 40, 50, generator=generator)
    for target in (image, other, (image + 0.1 * other).clamp(0, 1), torch.zeros_like(image)):
        expected = structural_similarity_index_measure(image[None], target[None], data_range=1.0)
        assert ssim(image, target) == pytest.approx(float(expected), rel=1e-3)


def test_held_out_frames_are_not_trained_on(scene, frames):
    training, held_out = split_frames(scene.frames, FitData(holdout_every=5))
    assert held_out == [0, 5, 10] and sorted(training + held_out) == list(range(11))
    assert frames.indices == training
    few, _ = split_frames([str(number) for number in range(100)], FitData(holdout_every=0, max_frames=5))
    assert few == [0, 25, 50, 74, 99]


def test_fitted_size_keeps_the_aspect():
    assert fitted_size((968, 1296), 640) == (478, 640)
    assert fitted_size((480, 640), 640) == (480, 640)
    assert fitted_size((100, 50), 20) == (20, 10)


def test_too_few_frames_are_refused(scene):
    with pytest.raises(UserError, match="has 2 usable training frames, a fit needs at least 3"):
        load_training_frames(scene, FitData(max_frames=2), CPU)


def test_why_frames_are_too_few_is_said(tmp_path):
    folder = write_scannet_scene(tmp_path / "scene0001_00", num_frames=5, lost_frames=(4,))
    for name in "012":
        (folder / "depth" / f"{name}.png").unlink()
        Image.new("RGB", (64, 48)).save(folder / "depth" / f"{name}.png")
    with pytest.raises(UserError) as refused:
        load_training_frames(load_scannet_scene(folder), FitData(holdout_every=0), CPU)
    said = str(refused.value)
    assert "has 1 usable training frames" in said and "left out: 1 with a lost pose" in said
    assert "3 frames could not be read" in said


def test_damaged_pictures_are_left_out(tmp_path, caplog):
    folder = write_scannet_scene(tmp_path / "scene0001_00", num_frames=9, lost_frames=())
    data = (folder / "color" / "4.png").read_bytes()
    (folder / "color" / "4.png").write_bytes(data[: len(data) // 2] + data[-12:])  # begins and ends well
    frames = load_training_frames(load_scannet_scene(folder), FitData(holdout_every=0), CPU)
    assert frames.indices == [0, 1, 2, 3, 5, 6, 7, 8]
    assert "4.png" in caplog.text


def test_blurry_pictures_are_left_out(tmp_path):
    folder = write_scannet_scene(tmp_path / "scene0002_00", num_frames=10, lost_frames=())
    scene = load_scannet_scene(folder)
    image = scene.read_color(6)
    blurred = torch.nn.functional.avg_pool2d(image[None].float(), 9, 1, 4)[0].round().to(torch.uint8)
    write_image(folder / "color" / "6.png", blurred)
    assert sharpness(blurred) < 0.2 * sharpness(image)
    frames = load_training_frames(scene, FitData(holdout_every=0, blurry_share=0.1), CPU)
    assert frames.indices == [0, 1, 2, 3, 4, 5, 7, 8, 9]


def test_rays_of_pixels_are_the_cameras_rays(scene, frames):
    transform = place(torch.rand(100, 3) * 4, frames.camera_to_world[:, :3, 3]).transform()
    poses = transform.to_grid(frames.camera_to_world)
    sampler = RaySampler(frames, poses, transform.scene_scale, torch.Generator().manual_seed(0), with_distances=True)
    height, width = frames.size
    batch = sampler.draw(500)
    origins, directions = camera_rays(poses, frames.intrinsics, height, width)
    # Find each drawn ray's pixel again by its direction.
    for ray in range(0, 500, 25):
        frame = int(batch.frames[ray])
        match = (directions[frame] @ batch.directions[ray]).flatten()
        pixel = int(match.argmax())
        row, column = pixel // width, pixel % width
        assert torch.allclose(directions[frame, row, column], batch.directions[ray], atol=1e-6)
        assert torch.allclose(origins[frame, row, column], batch.origins[ray], atol=1e-6)
        assert torch.equal(batch.colors[ray], scene.read_color(frames.indices[frame])[:, row, column] / 255)
        point = batch.origins[ray] + batch.distances[ray] * batch.directions[ray]
        world = transform.points_from_grid(point)
        room = torch.tensor(ROOM)
        to_surface = torch.minimum(world.abs(), (world - room).abs()).min()
        assert to_surface < 2e-3  # the depth is stored in millimetres
    again = RaySampler(frames, poses, 1.0, torch.Generator().manual_seed(0)).draw(500)
    assert torch.equal(again.colors, batch.colors) and again.distances is None


@pytest.mark.parametrize(
    "size, depth_size", [((36, 54), (21, 32)), ((36, 54), (36, 54)), ((20, 31), (40, 62)), ((7, 9), (3, 4))]
)
def test_depth_is_that_of_the_pixel_in_which_a_ray_starts(size, depth_size):
    """Each depth pixel holds its own number; a photograph's pixel centre lies in the one it must read."""
    numbers = torch.arange(depth_size[0] * depth_size[1], dtype=torch.int16).reshape(1, *depth_size) + 1
    frames = Frames([0], torch.zeros(1, *size, 3, dtype=torch.uint8), numbers, torch.eye(4).double()[None],
                    torch.tensor([[50.0, 0, 3], [0, 50.0, 2], [0, 0, 1]]).double())  # fmt: skip
    sampler = RaySampler(frames, frames.camera_to_world, 1.0, torch.Generator(), with_distances=True)
    batch = sampler.rays_of(torch.arange(size[0] * size[1]))
    along_axis = (batch.distances * batch.directions[:, 2] * 1000).round().reshape(size)
    rows = [int((row + 0.5) * depth_size[0] / size[0]) for row in range(size[0])]
    columns = [int((column + 0.5) * depth_size[1] / size[1]) for column in range(size[1])]
    assert torch.equal(along_axis, numbers[0][rows][:, columns].float())


def test_exposure_is_found_from_rays():
    generator = torch.Generator().manual_seed(0)
    gain = torch.tensor([[0.7], [1.0], [1.0 / 0.7]]) * torch.ones(3, 3)
    offset = torch.tensor([[0.05], [0.0], [-0.05]]) * torch.ones(3, 3)
    estimate = ExposureEstimate(3, CPU)
    for _ in range(30):
        frames = torch.randint(3, (3000,), generator=generator)
        field = torch.rand(3000, 3, generator=generator)
        photos = field * gain[frames] + offset[frames]
        photos[(photos < 0) | (photos > 1)] = 1.0  # clipped values must not bend the fit
        estimate.observe(field, photos.clamp(0, 1), frames)
        estimate.update()
    assert torch.allclose(estimate.gain, gain, atol=0.05)
    assert torch.allclose(estimate.offset, offset, atol=0.02)
    assert torch.allclose(estimate.gain.log().mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(estimate.to_field(photos, frames)[photos < 1], field[photos < 1], atol=0.05)
    other = ExposureEstimate(3, CPU)
    other.load_state_dict(estimate.state_dict())
    assert torch.equal(other.gain, estimate.gain)


def test_exposure_that_is_switched_off_changes_nothing():
    estimate = ExposureEstimate(2, CPU, enabled=False)
    colors, frames = torch.rand(4, 3), torch.tensor([0, 1, 1, 0])
    estimate.observe(colors * 2, colors, frames)
    estimate.update()
    assert torch.equal(estimate.to_field(colors, frames), colors)


def test_unmeasured_space_beside_cameras_does_not_start():
    near = near_cameras(torch.eye(4, dtype=torch.float64)[None], 0.5, 8)
    middles = (torch.arange(8) + 0.5) / 4 - 1
    distance = (middles[:, None, None] ** 2 + middles[None, :, None] ** 2 + middles[None, None, :] ** 2) ** 0.5
    assert torch.equal(near, distance < 0.5) and 0 < near.sum() < near.numel()


def test_log_linear_schedule():
    assert log_linear(30.0, 0.3, 0.0) == pytest.approx(30.0)
    assert log_linear(30.0, 0.3, 0.5) == pytest.approx(3.0)
    assert log_linear(30.0, 0.3, 2.0) == pytest.approx(0.3)
    # svox2's delay: a sine from the factor to 1.
    assert log_linear(1.0, 1.0, 0.0, delay_progress=0.0, delay_factor=0.01) == pytest.approx(0.01)
    assert log_linear(1.0, 1.0, 0.0, delay_progress=1 / 3, delay_factor=0.0) == pytest.approx(0.5)
    assert [level_of(step, (2, 3)) for step in range(6)] == [0, 0, 1, 1, 1, 1]


def test_placement_holds_everything_but_outliers():
    points = torch.rand(10_000, 3) * torch.tensor([8.0, 4.0, 2.0])
    points[:5] = 400.0
    placement = place(points, torch.tensor([[4.0, 2.0, 2.3]]))
    transform = placement.transform()
    inside = transform.points_to_grid(points[5:]).abs()
    assert inside.max() < 1 and 0.9 < inside.max()
    assert placement.scale == pytest.approx(0.96 / 4, rel=0.02)
    mask = placement.box_mask(50)
    # The box fills the cube along x only: half along y, and 2.4 of 8 m along z.
    assert mask[:, 25, 25].float().mean() > 0.95
    assert 0.5 <= mask[25, :, 25].float().mean() < 0.6
    assert 0.28 <= mask[25, 25, :].float().mean() < 0.42


def test_carving(frames):
    placement = place(depth_point_cloud(frames).points, frames.camera_to_world[:, :3, 3])
    transform = placement.transform()
    poses = transform.to_grid(frames.camera_to_world)
    space = carve(frames, poses, transform.scene_scale, 24)
    axis = (torch.arange(24) + 0.5) * 2 / 24 - 1
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    world = transform.points_from_grid(centers)
    depth_inside = torch.minimum(world, torch.tensor(ROOM) - world).amin(-1)
    assert not (space.free & (depth_inside < 0.05)).any()  # nothing at or behind a wall is called empty
    assert not space.unmeasured.any()  # every pixel has depth
    assert space.free.sum() > 0.1 * (depth_inside > 0.5).sum()
    blind = replace(frames, depths=torch.zeros_like(frames.depths))
    space = carve(blind, poses, transform.scene_scale, 24)
    assert not space.free.any() and 0 < space.unmeasured.sum() < space.seen.sum()


def test_starting_surfaces(frames):
    cloud = depth_point_cloud(frames)
    placement = place(cloud.points, frames.camera_to_world[:, :3, 3])
    grid = starting_grid(32, FitGrid(thicken=1), cloud, frames, placement)
    cells = grid.occupied.nonzero()
    world = placement.transform().points_from_grid(voxel_centers(cells, grid.resolution[0]))
    room = torch.tensor(ROOM)
    to_wall = torch.minimum(world.abs(), (world - room).abs()).amin(-1)
    voxel = grid.voxel_size[0] / placement.scale
    assert to_wall.max() < 1.8 * voxel
    assert torch.allclose(1 - torch.exp(-grid.density * grid.voxel_size[0]), torch.tensor(0.3), atol=1e-5)
    dense = starting_grid(32, FitGrid(start="dense"), None, frames, placement)
    assert dense.occupied[16, 16, 16] == grid.occupied[16, 16, 16]
    assert (grid.sh[:, ::9] * 0.2820948 + 0.5).amin() > -1e-3


def test_opacity_to_density():
    density = opacity_to_density(0.5, 64)
    assert 1 - math.exp(-density * 2 / 64) == pytest.approx(0.5)


def test_mesh_points_leave_no_gap():
    vertices = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
    cloud = mesh_point_cloud(vertices, torch.tensor([[0, 1, 2]]), None, spacing=0.1)
    first = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).sort(-1).values
    inside = torch.stack((first[:, 0], 1 - first[:, 1], torch.zeros(200)), -1)
    assert torch.cdist(inside, cloud.points).amin(-1).max() < 0.1
    assert torch.allclose(cloud.colors, torch.tensor(0.5))


def test_pruning_keeps_what_shows(frames):
    placement = place(depth_point_cloud(frames).points, frames.camera_to_world[:, :3, 3])
    transform = placement.transform()
    sampler = RaySampler(frames, transform.to_grid(frames.camera_to_world), 1.0, torch.Generator())
    grid = starting_grid(32, FitGrid(thicken=2, surface_opacity=0.9), depth_point_cloud(frames), frames, placement)
    weights = largest_weights(grid, sampler, RenderOptions())
    assert weights.min() >= 0 and weights.max() <= 1 and (weights > 0.4).any()
    pruned = prune(grid, FitGrid(weight_threshold=0.05), sampler, RenderOptions())
    assert 0 < pruned.num_voxels < grid.num_voxels
    view = [dense(one)[0][grid.occupied & ~pruned.occupied] for one in (grid, pruned)]
    assert view[0].min() > 0 and view[1].max() == 0
    shown = (weights >= 0.05)[grid.links.clamp(min=0).long()] & grid.occupied
    assert not (shown & ~pruned.occupied).any()
    by_density = prune(grid, FitGrid(prune_by="density", density_threshold=1e9), sampler, RenderOptions())
    assert by_density.num_voxels == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"start": "sfm"}, "start"), ({"prune_by": "age"}, "prune_by"), ({"resolutions": ()}, "resolutions")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        FitGrid(**options)


def test_fog_thickens_slower_than_surfaces():
    options = FitOptimization()
    assert options.density_rate_from("depth") == options.density_rate_from("mesh") == (30.0, 1.0)
    assert options.density_rate_from("points") == options.density_rate_from("dense") == (1.5, 0.3)
    assert FitOptimization(density_rate=(7.0, 1.0)).density_rate_from("dense") == (7.0, 1.0)

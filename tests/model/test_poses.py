"""Pose refinement: perturbed cameras come back, with the field itself as the truth."""

import pytest
import torch
from torch.nn.functional import interpolate

from dataloader import load_scannet_scene
from model import PlenoxelGrid, RadianceField, RenderOptions
from model.capture import CaptureModel
from model.fitting.exposure import ExposureEstimate
from model.fitting.fitter import FitOptions, Fitter
from model.fitting.frames import Frames, load_training_frames
from model.fitting.options import FitData, FitGrid, FitOptimization, FitPoses, FitRegularization
from model.fitting.placement import place
from model.fitting.point_cloud import depth_point_cloud
from model.fitting.poses import PoseRefinement, robust_weights
from model.fitting.scene_fit import FitSettings, fit_scene
from tests.dataloader.scannet_fixture import write_scannet_scene
from utils.cameras import scale_intrinsics
from utils.errors import UserError
from utils.rotations import axis_angle_to_matrix, matrix_to_axis_angle

CPU = torch.device("cpu")
SIZE = (60, 80)
OPTIONS = RenderOptions()


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_scannet_scene(tmp_path_factory.mktemp("scans") / "scene0000_00", size=SIZE, num_frames=24)


@pytest.fixture(scope="module")
def field_and_scene(scan, tmp_path_factory):
    output = tmp_path_factory.mktemp("fields") / "plenoxel_scannet_scene0000_00"
    options = FitOptions(
        FitGrid(resolutions=(48,)), FitOptimization(steps=(96,), rays_per_step=(2048,)),
        FitRegularization(depth=1.0, free_space=0.1), poses=FitPoses(rounds=0),
    )  # fmt: skip
    fit_scene(scan, output, FitSettings(FitData(holdout_every=6), options), CPU)
    return RadianceField.load(output).neutral(), load_scannet_scene(scan)


def frames_of(field, scene, indices):
    """Frames whose photographs are the field's own views."""
    poses = scene.camera_to_world[indices]
    intrinsics = scale_intrinsics(scene.intrinsics, scene.image_size, SIZE)
    views = [field.render_view(pose, intrinsics, SIZE, OPTIONS, ("rgb",)).rgb for pose in poses]
    images = (torch.stack(views).clamp(0, 1) * 255).round().byte().movedim(1, -1).contiguous()
    return Frames(indices, images, torch.zeros(len(indices), *SIZE, dtype=torch.int16), poses.double(), intrinsics)


def errors(now, true):
    """Largest distance of centres and largest angle."""
    turn = matrix_to_axis_angle(now[:, :3, :3] @ true[:, :3, :3].transpose(1, 2))
    return (now - true)[:, :3, 3].norm(dim=1).max().item(), turn.norm(dim=1).max().item()


def test_moved_cameras_come_back(field_and_scene):
    field, scene = field_and_scene
    frames = frames_of(field, scene, [2, 5, 9, 14])
    true = field.transform.to_grid(frames.camera_to_world)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    given = true.clone()
    given[:, :3, :3] = axis_angle_to_matrix(noise[:, :3] * 0.006) @ given[:, :3, :3]
    given[:, :3, 3] += noise[:, 3:] * 0.006
    poses = PoseRefinement(frames, given, FitPoses(translation_sigma=0.1, rotation_sigma=0.1))
    before = errors(given, true)
    for _ in range(12):
        poses.update(field.grid, ExposureEstimate(4, CPU, enabled=False), OPTIONS)
    after = errors(poses.camera_to_grid, true)
    assert after[0] < before[0] / 5 and after[1] < before[1] / 5, (before, after)
    turn, shift = poses.movements()
    assert torch.allclose(axis_angle_to_matrix(turn) @ given[:, :3, :3], poses.camera_to_grid[:, :3, :3], atol=1e-9)
    assert torch.allclose(given[:, :3, 3] + shift, poses.camera_to_grid[:, :3, 3])


def test_a_camera_that_stands_right_stays(field_and_scene):
    field, scene = field_and_scene
    frames = frames_of(field, scene, [3, 8])
    true = field.transform.to_grid(frames.camera_to_world)
    poses = PoseRefinement(frames, true, FitPoses())
    for _ in range(3):
        poses.update(field.grid, ExposureEstimate(2, CPU, enabled=False), OPTIONS)
    assert max(errors(poses.camera_to_grid, true)) < 1e-3  # bytes are rounded; a pixel is 0.017 rad


def test_a_camera_that_sees_nothing_stays(field_and_scene):
    field, scene = field_and_scene
    frames = frames_of(field, scene, [3])
    away = field.transform.to_grid(frames.camera_to_world)
    away[:, :3, 3] += 50
    poses = PoseRefinement(frames, away, FitPoses())
    poses.update(field.grid, ExposureEstimate(1, CPU, enabled=False), OPTIONS)
    assert torch.equal(poses.camera_to_grid, away)


def test_the_prior_holds_cameras(field_and_scene):
    field, scene = field_and_scene
    frames = frames_of(field, scene, [4])
    given = field.transform.to_grid(frames.camera_to_world)
    given[:, :3, 3] += 0.01
    moved = []
    for sigma in (1e-6, 0.1):
        poses = PoseRefinement(frames, given, FitPoses(translation_sigma=sigma, rotation_sigma=sigma))
        for _ in range(5):
            poses.update(field.grid, ExposureEstimate(1, CPU, enabled=False), OPTIONS)
        moved.append(poses.movements()[1].norm().item())
    assert moved[0] < 1e-4 < 5e-3 < moved[1]


def test_rounds_are_spread_over_the_steps():
    options = FitPoses(rounds=3, first=0.2, last=0.8)
    assert [options.due(step, 100) for step in (0, 19, 20, 49, 50, 79, 80, 100)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert FitPoses(rounds=0).due(100, 100) == 0
    assert FitPoses(rounds=1, first=0.5, last=0.5).due(50, 100) == 1
    for wrong in ({"rounds": -1}, {"first": 0.9}, {"last": 1.5}, {"rotation_sigma": 0.0}, {"max_image_side": 1}):
        with pytest.raises(UserError, match="FitPoses"):
            FitPoses(**wrong)


def test_outliers_weigh_little():
    residual = torch.full((1, 3, 8, 8), 0.01)
    residual[0, :, 0, 0] = 0.5
    weights = robust_weights(residual)
    assert weights[0, 0, 0] < 1e-4 and (weights[0, 1:] > 0.5).all()


def test_a_new_camera_moves_as_its_neighbours_did():
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    poses[1, 0, 3] = 5.0
    turn, shift = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    turn[0, 2], shift[0, 1], shift[1, 1] = 0.01, 0.02, -0.5
    model = CaptureModel(poses, torch.ones(2, 3), torch.zeros(2, 3), turn, shift)
    beside = poses[0].clone()
    beside[0, 3] = 0.01
    estimated = model.estimated_pose(beside)
    assert torch.allclose(estimated[:3, 3], torch.tensor([0.01, 0.02, 0.0]).double(), atol=1e-5)
    assert torch.allclose(matrix_to_axis_angle(estimated[:3, :3]), turn[0], atol=1e-5)
    far = poses[0].clone()
    far[2, 3] = 100.0
    assert torch.allclose(model.estimated_pose(far), far) and model.moved


def test_a_fit_with_wrong_poses_gains(field_and_scene):
    """Photographs of a textured field, from poses that are wrong by a pixel: the fit finds field and poses."""
    field, scene = field_and_scene
    generator = torch.Generator().manual_seed(0)
    colors = interpolate(torch.randn(1, 3, 24, 24, 24, generator=generator), size=(48, 48, 48), mode="trilinear")
    grid = PlenoxelGrid(field.grid.links, field.grid.density, torch.zeros_like(field.grid.sh))
    grid.sh[:, ::9] = 1.2 * colors[0].permute(1, 2, 3, 0).reshape(-1, 3)[grid.links_idx]
    frames = frames_of(RadianceField(grid, field.transform), scene, list(range(len(scene.frames))))
    frames.depths = load_training_frames(scene, FitData(holdout_every=0), CPU).depths
    true = frames.camera_to_world.clone()
    wrong = torch.randn(len(frames), 3, generator=generator, dtype=torch.float64) * 0.015
    frames.camera_to_world[:, :3, :3] = axis_angle_to_matrix(wrong) @ true[:, :3, :3]
    cloud = depth_point_cloud(frames)
    placement = place(cloud.points, true[:, :3, 3])
    psnr, turned = {}, {}
    for rounds in (0, 8):
        options = FitOptions(
            FitGrid(resolutions=(48,)), FitOptimization(steps=(160,), rays_per_step=(2048,)), FitRegularization(),
            poses=FitPoses(rounds=rounds, translation_sigma=0.05, rotation_sigma=0.05),
        )  # fmt: skip
        fitter = Fitter(frames, placement, cloud, options)
        fitter.run(stop_at=128)
        fitter.training_psnr()
        fitter.run()
        psnr[rounds] = fitter.training_psnr()
        turned[rounds] = matrix_to_axis_angle(fitter.poses.camera_to_grid[:, :3, :3] @ true[:, :3, :3].transpose(1, 2))
        assert fitter.capture().moved == bool(rounds)
    assert psnr[8] > psnr[0] + 6, psnr
    assert turned[8].norm(dim=1).mean() < 0.8 * turned[0].norm(dim=1).mean()
    shift = fitter.poses.movements()[1] / placement.transform().scene_scale
    assert torch.allclose(fitter.capture().shift, shift)

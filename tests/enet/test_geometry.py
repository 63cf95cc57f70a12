"""Geometry as input: exact on planes at known poses, mirrored with the world, cropped with the view, and trained on."""

from __future__ import annotations

import math
from dataclasses import replace

import gin
import pytest
import torch
from torch import Tensor

from dataloader import ViewStore
from enet.checkpoints import load_checkpoint
from enet.draws import NUM_DRAWS, Draws
from enet.geometry import (
    geometry_images,
    gravity_frame,
    is_measured,
    mirror_signs,
    pixel_to_gravity,
    stored_channels,
)
from enet.inputs import Beside
from enet.module import SegmentationModule
from enet.options import AugmentationOptions, NetworkOptions, ViewOptions
from enet.predictions import CheckpointPredictions
from enet.statistics import compute_statistics
from enet.stored_views import StoredViews
from enet.task_test import test as run_test
from enet.task_train import train
from enet.view_source import Step
from tests.enet.bindings import bind_split
from tests.enet.conftest import SIZE, geometry_values
from utils.cameras import camera_rays, look_at
from utils.errors import UserError

CPU = torch.device("cpu")
KINDS = ("depth", "normal", "height", "alpha")
ONE_VIEW = torch.tensor([[30.0, 0, 14.0], [0, 28.0, 11.0], [0, 0, 1]], dtype=torch.float64)


def poses() -> Tensor:
    """Cameras in a room that look around, with roll."""
    eye = torch.tensor([[0.3, -0.2, 1.5], [1.0, 0.5, 1.2], [-0.5, 0.8, 1.7]], dtype=torch.float64)
    target = torch.tensor([[3.0, 0.4, 0.6], [-2.0, 2.0, 1.0], [0.2, -3.0, 0.1]], dtype=torch.float64)
    pose = look_at(eye, target)
    for number, angle in enumerate((0.0, 0.3, -0.2)):
        turn = torch.eye(3, dtype=torch.float64)
        turn[0, 0] = turn[1, 1] = math.cos(angle)
        turn[1, 0], turn[0, 1] = math.sin(angle), -math.sin(angle)
        pose[number, :3, :3] = pose[number, :3, :3] @ turn
    return pose


def depth_of_plane(pose: Tensor, normal: Tensor, offset: float, size=SIZE, intrinsics=ONE_VIEW) -> Tensor:
    """Depth float32 [B, H, W] along the optical axis of the plane normal . x = offset; 0 where it is not seen."""
    origins, directions = camera_rays(pose, intrinsics, *size)
    distance = (offset - origins.double() @ normal) / (directions.double() @ normal)
    depth = distance * (directions.double() * pose[:, None, None, :3, 2]).sum(-1)
    return torch.where(distance > 0, depth, 0).float()


def images_of(pose: Tensor, depth: Tensor, intrinsics=ONE_VIEW, kinds=KINDS) -> Tensor:
    to_gravity = pixel_to_gravity(pose, intrinsics.expand(len(pose), 3, 3))
    return geometry_images(kinds, depth, torch.ones_like(depth), to_gravity, 0.5)


@pytest.mark.parametrize("normal", [(0.0, 0, 1), (0.0, 0, -1), (0.6, 0.0, 0.8), (-0.6, -0.8, 0.0)])
def test_normals_of_a_plane_are_exact(normal):
    """The plane's own normal, on the camera's side, as components to the right, forward and up of each camera."""
    pose, normal = poses(), torch.tensor(normal, dtype=torch.float64)
    offset = -1.0 if normal[2] <= 0 else -0.5
    depth = depth_of_plane(pose, normal, offset)
    found = images_of(pose, depth)
    for view in range(len(pose)):
        facing = normal if pose[view, :3, 3] @ normal > offset else -normal
        forward = pose[view, :3, 2] * torch.tensor([1.0, 1, 0], dtype=torch.float64)
        forward = forward / forward.norm()
        up = torch.tensor([0.0, 0, 1], dtype=torch.float64)
        expected = torch.stack([facing @ torch.linalg.cross(forward, up), facing @ forward, facing @ up]).float()
        seen, known = depth[view] > 0, found[view, 1:4].norm(dim=0) > 0
        assert (known <= seen).all() and known.sum() >= 0.98 * seen.sum()  # but for corners at the horizon
        normals = found[view, 1:4][:, known]
        torch.testing.assert_close(normals, expected[:, None].expand_as(normals), atol=2e-3, rtol=0)
    assert (depth > 0).any()


def test_height_is_that_of_the_point_above_the_camera():
    pose, floor = poses(), torch.tensor([0.0, 0, 1], dtype=torch.float64)
    depth = depth_of_plane(pose, floor, -0.25)
    images = images_of(pose, depth)
    below = (-0.25 - pose[:, 2, 3]).float()[:, None, None].expand_as(depth)
    seen = depth > 0
    assert seen.any() and not seen.all()
    torch.testing.assert_close(images[:, 4][seen], below[seen], atol=1e-4, rtol=0)
    assert torch.equal(images[:, 0], depth) and (images[:, 4][~seen] == 0).all()


def test_a_camera_on_its_side_still_has_a_level_frame():
    """Its right axis is vertical; what it looks along is forward."""
    ahead, up = torch.tensor([0.6, 0.8, 0.0]).double(), torch.tensor([0.0, 0, 1]).double()
    camera = torch.stack([up, torch.linalg.cross(ahead, up), ahead], dim=1)
    assert torch.linalg.det(camera) == pytest.approx(1)
    frame = gravity_frame(camera)
    torch.testing.assert_close(frame @ torch.tensor([0.0, 0, 1]).double(), torch.tensor([0.0, 1, 0]).double())
    torch.testing.assert_close(frame @ torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.0, 0, 1]).double())
    torch.testing.assert_close(frame @ frame.mT, torch.eye(3).double())


def test_pitch_and_roll_change_no_normal():
    floor = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    images = images_of(poses(), depth_of_plane(poses(), floor, 0.0))
    normals = images[:, 1:4].movedim(1, -1)[images[:, 0] > 0]
    torch.testing.assert_close(normals, torch.tensor([0.0, 0, 1]).expand_as(normals), atol=1e-3, rtol=0)


def test_roll_of_a_camera_that_looks_down_changes_no_direction():
    """Heading is where it looks, not where its right side points: that turns with roll."""
    level = look_at(torch.tensor([1.0, -2, 1.5]).double(), torch.tensor([1.3, 1.0, 0.2]).double())[:3, :3]
    angles = torch.tensor([0.0, 0.3, -1.2, 2.0]).double()
    turns = torch.stack([angles.cos(), -angles.sin(), 0 * angles, angles.sin(), angles.cos(), 0 * angles,
                         0 * angles, 0 * angles, 1 + 0 * angles], dim=-1).reshape(-1, 3, 3)  # fmt: skip
    rolled = level @ turns
    wall = torch.tensor([0.0, -1, 0]).double()
    seen = (gravity_frame(rolled) @ (rolled.mT @ wall)[..., None])[..., 0]
    torch.testing.assert_close(seen, seen[:1].expand_as(seen))
    assert abs(seen[0, 0]) < 0.2 and seen[0, 1] < -0.9


def bumpy(count: int = 3) -> Tensor:
    """Depth with steps and holes."""
    generator = torch.Generator().manual_seed(2)
    depth = 1.5 + torch.rand(count, *SIZE, generator=generator)
    depth[:, :, 13:] += 1
    return torch.where(torch.rand(count, *SIZE, generator=generator) < 0.2, 0, depth)


def test_a_mirrored_view_differs_in_the_sign_of_one_component():
    """The view of the mirrored world by the mirrored camera, computed as any other."""
    pose, depth = poses(), bumpy()
    right = pose[:, :3, 0].clone()
    right[:, 2] = 0
    right = right / right.norm(dim=-1, keepdim=True)
    reflection = torch.eye(3).double() - 2 * right[:, :, None] * right[:, None, :]
    mirrored = pose.clone()
    mirrored[:, :3, :3] = reflection @ pose[:, :3, :3] @ torch.diag(torch.tensor([-1.0, 1, 1]).double())
    intrinsics = ONE_VIEW.clone()
    intrinsics[0, 2] = SIZE[1] - ONE_VIEW[0, 2]
    expected = images_of(mirrored, depth.flip(-1), intrinsics)
    found = images_of(pose, depth).flip(-1) * mirror_signs(KINDS)[:, None, None]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert found[:, 1].abs().max() > 0.5


def test_what_the_field_does_not_cover_is_nothing_and_half_covered_surfaces_are_where_they_are():
    pose, depth = poses()[:1], torch.full((1, *SIZE), 2.0)
    alpha = torch.ones(1, *SIZE)
    alpha[:, :, :9], alpha[:, :, 9:18] = 0.2, 0.8
    to_gravity = pixel_to_gravity(pose, ONE_VIEW[None])
    images = geometry_images(KINDS, depth * alpha, alpha, to_gravity, 0.5)
    assert (images[:, :5, :, :9] == 0).all() and torch.equal(images[:, 5], alpha)
    torch.testing.assert_close(images[:, 0, :, 9:], depth[:, :, 9:])
    lower = geometry_images(KINDS, depth * alpha, alpha, to_gravity, 0.1)
    torch.testing.assert_close(lower[:, 0], depth)
    assert torch.equal(images_of(pose, depth, kinds=("alpha",)), torch.ones(1, 1, *SIZE))


def test_a_pixel_without_neighbours_has_no_normal_and_one_with_few_has():
    depth = torch.zeros(1, *SIZE)
    depth[0, 5, 5] = 2.0
    depth[0, 15:17, 15:17] = 2.0
    normal = images_of(poses()[:1], depth)[:, 1:4].norm(dim=1)[0]
    assert normal[5, 5] == 0
    torch.testing.assert_close(normal[15:17, 15:17], torch.ones(2, 2))
    assert normal.count_nonzero() == 4


def test_kinds_come_in_one_order_and_need_their_channels_only():
    beside = Beside.of(["alpha", "normal", "sh", "depth"])
    assert beside == Beside(True, ("depth", "normal", "alpha"))
    assert beside.channels == 32 and beside.names == ["sh", "depth", "normal", "alpha"]
    assert stored_channels(("alpha",)) == ("alpha",) and stored_channels(()) == ()
    assert stored_channels(("height",)) == ("depth", "alpha")
    assert is_measured(KINDS).tolist() == [True, False, False, False, True, False]
    assert mirror_signs(("normal",)).tolist() == [-1, 1, 1]


# Through stores, training and checkpoints.


def resolved(source: StoredViews, step: Step):
    (batch,) = source.batches([step], CPU)
    return batch.resolve()


@pytest.mark.parametrize("options", [ViewOptions(), ViewOptions(cache=False, workers=0, surface_alpha=0.7)])
def test_batches_hold_the_geometry_of_their_own_views(make_deep_store, options):
    paths = [make_deep_store("a", count=3), make_deep_store("b", count=2)]
    source = StoredViews(paths, options, uses_sh=False, geometry=KINDS)
    batch = resolved(source, Step(torch.tensor([1, 4, 0])))
    for row, (store, view) in enumerate(((0, 1), (1, 1), (0, 0))):
        store = ViewStore(paths[store])
        cameras = store.cameras.select([view])
        expected = geometry_images(
            KINDS, store.read("depth", view)[None], store.read("alpha", view)[None],
            pixel_to_gravity(cameras.camera_to_world, cameras.intrinsics), options.surface_alpha,
        )  # fmt: skip
        torch.testing.assert_close(batch.geometry[row], expected[0])
    assert batch.sh is None and batch.geometry.dtype == torch.float32


def test_mirrored_and_cropped_geometry_is_that_of_the_pixels_shown(make_deep_store):
    """Computed before the crop: the neighbours of a pixel at a crop's border are those it had in the whole view."""
    path, views = make_deep_store("a"), torch.arange(4)
    plain = resolved(StoredViews([path], ViewOptions(), False, geometry=KINDS), Step(views))
    draws = {name: 0.0 for name in Draws.__dataclass_fields__}

    def augmented(**options):
        source = StoredViews([path], ViewOptions(), False, AugmentationOptions(**options), geometry=KINDS)
        return resolved(source, Step(views, torch.tensor([list(draws.values())]).expand(4, NUM_DRAWS)))

    flipped = augmented(mirror=1.0)
    assert torch.equal(flipped.geometry, plain.geometry.flip(-1) * mirror_signs(KINDS)[:, None, None])
    cropped = augmented(smallest_crop=0.5)  # the upper left quarter
    rows, columns = (torch.arange(side) // 2 for side in SIZE)
    shown = plain.geometry[:, :, rows][..., columns]
    same = (cropped.geometry == shown).float().mean()
    assert same > 0.99 or SIZE[1] % 2 and (cropped.geometry[..., :13] == shown[..., :13]).float().mean() > 0.9
    both = augmented(mirror=1.0, smallest_crop=0.5)
    assert not torch.equal(both.geometry, cropped.geometry)


def test_statistics_leave_out_where_nothing_is_and_normals(make_deep_store):
    source = StoredViews([make_deep_store("a")], ViewOptions(), uses_sh=False, geometry=KINDS)
    statistics = compute_statistics(source, 3, CPU)
    images = resolved(source, Step(torch.arange(4))).geometry.double()
    for channel in (0, 4):
        values = images[:, channel][images[:, channel] != 0]
        assert statistics.geometry_mean[channel] == pytest.approx(float(values.mean()), abs=1e-5)
        assert statistics.geometry_std[channel] == pytest.approx(float(values.std(correction=0)), abs=1e-5)
    assert statistics.geometry_mean[[1, 2, 3, 5]].tolist() == [0] * 4
    assert statistics.geometry_std[[1, 2, 3, 5]].tolist() == [1] * 4


def test_nothing_is_nothing_to_the_network_too(make_deep_store):
    module = SegmentationModule({"stem": "conv_sum", "inputs": ("depth",)}).eval()
    module.geometry_mean.fill_(2.0)
    seen = []
    module.network.stem.sh_to_pooled.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    depth = torch.zeros(1, 1, 16, 16)
    depth[..., :8] = 5.0
    module.predict(torch.rand(1, 3, 16, 16), geometry=depth)
    assert seen[0].unique().tolist() == [0.0, 3.0]


@pytest.mark.parametrize("leave_out", ["depth", "alpha"])
def test_stores_without_depth_are_refused_by_name_before_training(make_store, make_deep_store, leave_out, tmp_path):
    values = geometry_values(4)
    del values[leave_out]
    make_deep_store("scene0000_00")
    lacking = make_store("scene0001_00", dtypes={"depth": "uint16"}, **values)
    gin.bind_parameter("NetworkOptions.stem", "conv_sum")
    gin.bind_parameter("NetworkOptions.inputs", ("normal",))
    bind_split(["scene0000_00"], ["scene0001_00"], None)
    with pytest.raises(UserError, match=f"{lacking.name} has no channel '{leave_out}'"):
        train(views=[str(lacking.parent)], runs_dir=str(tmp_path / "runs"), name="run", device="cpu")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("stem", ["concat", "conv_concat", "conv_sum"])
@pytest.mark.parametrize("inputs", [("sh", "normal", "depth"), ("alpha", "height", "normal", "depth")])
def test_trains_and_is_tested_and_predicts_with_geometry(make_deep_store, tmp_path, stem, inputs):
    folder = [make_deep_store(f"scene000{number}_00", seed=number) for number in range(3)][0].parent
    gin.bind_parameter("NetworkOptions.stem", stem)
    gin.bind_parameter("NetworkOptions.inputs", inputs)
    gin.bind_parameter("AugmentationOptions.mirror", 0.5)
    bind_split(["scene0000_00"], ["scene0001_00"], None)
    results = train(views=[str(folder)], runs_dir=str(tmp_path), name="run", epochs=1, batch_size=2, device="cpu")
    gin.clear_config()
    beside = Beside.of(inputs)
    assert results["inputs"] == beside.names and math.isfinite(results["validation"]["mean_iou"])
    checkpoint = tmp_path / "run/training/best.ckpt"
    module = load_checkpoint(checkpoint)
    assert module.network.beside == beside and (module.geometry_std[is_measured(beside.geometry)] != 1).all()
    tested = run_test(
        checkpoint=str(checkpoint), views=[str(folder)], output_dir=str(tmp_path / "test"), scenes=["scene0002_00"],
        device="cpu",
    )  # fmt: skip
    assert math.isfinite(tested["mean_iou"])
    store = ViewStore(folder / "scene0002_00")
    source = StoredViews([store.path], ViewOptions(), beside.uses_sh, geometry=beside.geometry)
    batch = resolved(source, Step(torch.arange(4)))
    expected = module.predict(batch.color, batch.sh, batch.geometry)
    found = torch.cat(list(CheckpointPredictions(module, store, 3)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="depth, normal.* are missing"):
        module.predict(batch.color, batch.sh)
    with pytest.raises(ValueError, match=r"depth, normal.* of shape .* needed"):
        module.predict(batch.color, batch.sh, batch.geometry[:, :2])


def test_sources_without_the_geometry_are_refused(make_deep_store, tmp_path):
    from enet.training import Budget, train_once
    from tests.enet.test_view_source import options

    source = StoredViews([make_deep_store("a")], ViewOptions(), True, weighted=True)
    chosen = replace(options(), network=NetworkOptions(stem="concat", inputs=("sh", "alpha")))
    with pytest.raises(ValueError, match="takes \\('alpha',\\) of the field's geometry, a source of views has"):
        train_once(tmp_path / "run", source, source, chosen, Budget(1, 2, 4), CPU)


def test_networks_without_geometry_are_what_they_were():
    """Names, order and shapes of a checkpoint's values, which older ones have."""
    for stem, count in (("rgb", 351_948), ("conv_sum", 355_836)):
        module = SegmentationModule({"backbone": "enet", "stem": stem, "dropout": (0.01, 0.1)})
        assert sum(values.numel() for values in module.network.parameters()) == count
        buffers = [name for name in module.state_dict() if not name.startswith("network.") and "iou" not in name]
        assert buffers == ["class_weights", "color_mean", "color_std", "sh_mean", "sh_std"]
    stem = SegmentationModule({"stem": "conv_sum", "inputs": ("normal",)}).network.stem
    assert [tuple(stem.get_parameter(f"{name}.weight").shape) for name in ("sh_to_convolved", "sh_to_pooled")] == [
        (13, 3, 3, 3), (3, 3, 3, 3)
    ]  # fmt: skip


def test_refusals():
    with pytest.raises(UserError, match="inputs.*'thickness'.*'height'"):
        NetworkOptions(stem="conv_sum", inputs=("thickness",))
    with pytest.raises(UserError, match="takes colour alone"):
        NetworkOptions(stem="rgb", inputs=("depth",))
    with pytest.raises(UserError, match="empty"):
        NetworkOptions(stem="concat", inputs=())
    with pytest.raises(UserError, match="surface_alpha"):
        ViewOptions(surface_alpha=0.0)
    assert NetworkOptions(stem="rgb").beside == Beside() and NetworkOptions(stem="concat").beside == Beside(True)

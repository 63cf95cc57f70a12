"""Whole views: pixels and depth lie where a rasterizer of the same surface puts them; exposure; bounded memory."""

import numpy as np
import pytest
import torch

from dataloader import CameraList, SceneTransform
from lib.raster import rasterize
from model import RadianceField, RenderOptions, radiance_field
from model.capture import CaptureModel
from tests.model.grid_fixture import filled, voxel_centers
from utils.cameras import look_at, pixel_grid, rigid_inverse, unproject
from utils.errors import UserError

CAPTURED = ("gain", "offset", "turn", "shift")
SIZE = (45, 60)
LOW, HIGH = (20, 24, 28), (44, 40, 36)  # the first and last voxel of a box, whose faces go through their centres
INTRINSICS = torch.tensor([[50.0, 0, 28.0], [0, 48.0, 24.0], [0, 0, 1]], dtype=torch.float64)


@pytest.fixture(scope="module")
def box():
    """An opaque box of voxels in a grid that is turned, moved and scaled in the world, and the same box as a mesh."""
    resolution = 64
    occupied = torch.zeros(resolution, resolution, resolution, dtype=torch.bool)
    occupied[LOW[0] : HIGH[0] + 1, LOW[1] : HIGH[1] + 1, LOW[2] : HIGH[2] + 1] = True
    grid = filled(occupied, density=3000.0)
    angle = torch.tensor(0.6)
    rotation = torch.eye(4, dtype=torch.float64)
    rotation[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    transform = SceneTransform(rotation, torch.tensor([0.5, -0.3, 1.0]), 0.2)
    ends = list(zip(LOW, HIGH, strict=True))
    corners = torch.tensor([[x, y, z] for x in ends[0] for y in ends[1] for z in ends[2]])
    world = transform.points_from_grid(voxel_centers(corners, resolution))
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))], dtype=torch.int32)
    return RadianceField(grid, transform), world, faces


def poses(world):
    middle = world.double().mean(0)
    offsets = torch.tensor([[6.0, 1.0, 2.0], [-3.0, 6.0, -1.0]], dtype=torch.float64)
    return look_at(middle + offsets, middle.expand(2, 3))


def test_views_align_with_the_rasterizer(box):
    field, world, faces = box
    for pose in poses(world):
        view = field.render_view(pose, INTRINSICS, SIZE, RenderOptions(step_size=0.05))
        fragments = rasterize(world, faces, rigid_inverse(pose)[None].float(), INTRINSICS[None].float(), *SIZE)
        hit = fragments.face[0] >= 0
        inner = torch.nn.functional.avg_pool2d(hit[None].float(), 3, 1, 1)[0] > 0.99
        outer = torch.nn.functional.max_pool2d(hit[None].float(), 7, 1, 3)[0] < 0.5  # a voxel is 1.1 pixels wide
        assert inner.sum() > 50
        assert (view.alpha[inner] > 0.999).all() and (view.alpha[outer] < 1e-3).all()
        # Back-projected, every pixel lies on the trilinear surface: within the voxel before the outermost centres.
        points = unproject(pixel_grid(*SIZE)[inner], view.depth[inner], INTRINSICS.float(), pose.float())
        cells = (field.transform.points_to_grid(points) + 1) * 64 / 2 - 0.5
        outside = torch.maximum(torch.tensor(LOW) - cells, cells - torch.tensor(HIGH)).amax(-1)
        assert (outside > 0.5).all() and (outside < 1.01).all()


def test_blocks_of_rows_change_nothing(box, monkeypatch):
    field, world, _ = box
    pose = poses(world)
    intrinsics = INTRINSICS.expand(2, 3, 3)
    whole = field.render_views(pose, intrinsics, SIZE)
    monkeypatch.setattr(radiance_field, "RAYS_AT_ONCE", 7 * SIZE[1])
    blocks = field.render_views(pose, intrinsics, SIZE)
    for values, expected in zip(blocks, whole, strict=True):
        assert torch.equal(values, expected)
    single = field.render_view(pose[1], INTRINSICS, SIZE)
    assert torch.equal(single.sh, whole.sh[1]) and torch.equal(single.depth, whole.depth[1])


def test_render_cameras_in_order(box):
    field, world, _ = box
    cameras = CameraList("box", ["a", "b"], poses(world), INTRINSICS, SIZE)
    ((indices, views),) = field.render_cameras(cameras, [1, 0], outputs=("alpha",))
    assert indices == [1, 0] and views.rgb is None
    assert torch.equal(views.alpha[1], field.render_view(poses(world)[0], INTRINSICS, SIZE).alpha)


def exposure():
    eyes = torch.tensor([[0.0, 0, 0], [2.0, 0, 0]], dtype=torch.float64)
    gain = torch.tensor([[0.8, 0.8, 0.8], [1.25, 1.3, 1.2]])
    still = torch.zeros(2, 3, dtype=torch.float64)
    return CaptureModel(look_at(eyes, eyes.new_tensor([5.0, 0, 0]).expand(2, 3)), gain, (1 - gain) / 4, still, still)


def test_exposure_of_new_cameras():
    model = exposure()
    gain, offset = model.exposure(model.camera_to_world)
    assert torch.allclose(gain, model.gain, atol=1e-6) and torch.allclose(offset, model.offset, atol=1e-6)
    beside = model.camera_to_world[0].clone()
    beside[:3, 3] += 0.02
    assert torch.allclose(model.exposure(beside)[0], model.gain[0], atol=0.01)
    far = model.camera_to_world[0].clone()
    far[:3, 3] += 50
    assert torch.allclose(model.exposure(far)[0], torch.ones(3), atol=1e-6)
    turned = model.camera_to_world[0].clone()
    turned[:3, :3] = turned[:3, :3] @ torch.diag(torch.tensor([-1.0, 1, -1])).double()
    assert (model.exposure(turned)[0] - 1).abs().max() < 0.2 * (model.gain[0] - 1).abs().max()


def test_exposure_is_saved_with_the_field(box, tmp_path):
    field, world, _ = box
    still = torch.zeros(2, 3, dtype=torch.float64)
    model = CaptureModel(poses(world), torch.full((2, 3), 0.5), torch.full((2, 3), 0.1), still, still)
    field.grid.save(tmp_path, field.transform)
    assert RadianceField.load(tmp_path).capture is None
    model.save(tmp_path)
    loaded = RadianceField.load(tmp_path)
    pose = poses(world)[0]
    exposed, neutral = (one.render_view(pose, INTRINSICS, SIZE) for one in (loaded, loaded.neutral()))
    assert torch.allclose(exposed.rgb, neutral.rgb * 0.5 + 0.1, atol=1e-6)
    assert torch.equal(exposed.sh, neutral.sh)
    (tmp_path / "capture.npz").write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match="capture.npz cannot be read"):
        RadianceField.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gain": np.full((2, 3), np.nan)}, "gain is empty or"), ({"offset": np.full((2, 3), np.inf)}, "offset is"),
        ({"camera_to_world": np.full((2, 4, 4), np.nan)}, "camera_to_world is"), ({"near": np.float64(0)}, "near is 0"),
        ({"turn": np.full((2, 3), 1e30)}, "turn is"), ({"near": np.float64("nan")}, "near is empty or holds"),
        ({"camera_to_world": np.zeros((0, 4, 4)), **{name: np.zeros((0, 3)) for name in CAPTURED}}, "is empty"),
        ({"shift": np.zeros((7, 3))}, "ValueError|RuntimeError"), ({"gain": np.array(["a"] * 6)}, "ValueError"),
        ({"near": np.ones(3)}, "RuntimeError"), ({"gain": np.array([object()] * 6)}, "pickled objects"),
    ],
)  # fmt: skip
def test_exposures_that_no_fit_has_are_refused(tmp_path, change, message):
    arrays = {"camera_to_world": np.eye(4)[None].repeat(2, 0), "near": np.float64(0.1)}
    np.savez(tmp_path / "capture.npz", **{**arrays, **dict.fromkeys(CAPTURED, np.ones((2, 3))), **change})
    with pytest.raises(UserError, match=f"capture.npz cannot be read .*{message}"):
        CaptureModel.load(tmp_path)

"""What reads cameras with a lens: against a box room that is cast ray by ray, or one sentence that says no."""

import json
import math

import numpy as np
import pytest
import torch

from analysis.dome_selection import DomeSelector, SelectionOptions, selected_cameras
from analysis.domes import DomeOptions, Trajectory, draw_candidates
from analysis.filtering import FilterOptions, judge_views
from analysis.observers import Observers
from analysis.quality import QualityEstimator, QualityOptions, View, stored_view
from analysis.room_space import RoomSpace, SpaceOptions
from analysis.targets import TargetOptions, find_instances, find_targets
from analysis.viewer.camera_math import view_shape
from analysis.viewer.comparison import compare
from analysis.viewer.live_quality import LiveQuality
from analysis.viewer.mesh_view import mesh_view
from analysis.viewer.pictures import class_picture
from analysis.viewer.scene_state import TRAJECTORY, CameraSource, SceneState
from blender_scripts.camera_file import read_cameras
from dataloader import CameraList, SceneTransform, ViewStoreWriter
from enet.geometry import pixel_to_gravity
from model import PlenoxelGrid, RadianceField, RenderOptions
from model.visibility import was_seen
from tests.analysis.box_room import SIZE, mesh, ray_cast, trajectory
from utils.cameras import look_at, pixel_grid, project, seen_pixels, unproject
from utils.errors import UserError
from utils.labels import class_index
from utils.lenses import FISHEYE, Lens

FISH = Lens(FISHEYE, (-0.02, 0.004, -0.001, 1e-4), limit=1.4)
K = torch.tensor([[22.0, 0.0, 33.0], [0.0, 22.5, 23.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
SEEN = seen_pixels(K, SIZE, FISH)
SINK = class_index("sink")


def fisheye_list(poses, info=None, scene="room"):
    return CameraList(scene, [str(k) for k in range(len(poses))], poses, K, SIZE, info or [], lens=FISH)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    poses = trajectory()
    labels, depth = ray_cast(poses, K, SIZE, FISH)
    channels = {"rgb": ("uint8", (3, *SIZE)), "depth": ("uint16", SIZE), "alpha": ("uint8", SIZE),
                "label": ("uint8", SIZE)}  # fmt: skip
    path = tmp_path_factory.mktemp("views") / "room"
    writer = ViewStoreWriter.create(path, fisheye_list(poses), channels, {"test": True})
    for view in writer.pending():
        writer.write(view, {"rgb": labels[view].expand(3, *SIZE) * 10, "depth": depth[view], "label": labels[view],
                            "alpha": SEEN.float()})  # fmt: skip
    return writer.finish()


def points_of(pose, depth):
    known = depth > 0
    return unproject(pixel_grid(*SIZE, torch.float64)[known], depth[known].double(), K, pose, FISH)


def test_a_view_saw_what_lies_on_its_own_rays():
    pose = trajectory()[0]
    depth = ray_cast(pose[None], K, SIZE, FISH)[1][0]
    points = points_of(pose, depth)
    assert was_seen(points, pose, K, depth, 0.01, FISH).all() and len(points) == int(SEEN.sum())
    assert not was_seen(pose[:3, 3] + 0.8 * (points - pose[:3, 3]), pose, K, depth, 0.01, FISH).any()
    straight = was_seen(points, pose, K, depth, 0.01)
    assert straight.double().mean() < 0.2  # a pinhole of the same focal length
    behind = 2 * pose[:3, 3] - points[(points - pose[:3, 3]) @ pose[:3, 2] > 0.3]
    assert not was_seen(behind, pose, K, depth, 0.01, FISH).any()


def test_a_views_own_support_is_of_the_pixels_that_it_sees(store):
    observers = Observers.from_store(store.path, 1)
    assert observers.lens == FISH
    depth, pose = observers.depth[0], observers.camera_to_world[0]
    share = observers.observed_share(depth, K.float(), pose, 0.35, 0.05, FISH)
    assert share == pytest.approx(1 - math.exp(-1), abs=0.01)


def test_quality_projects_through_the_lens(store):
    estimator = QualityEstimator(Observers.from_store(store.path, 1), QualityOptions(smoothing=1))
    features = estimator.features(stored_view(store, 0))
    inner = SEEN & (store.read("depth", 0) > 0)
    assert (features[3][inner] - math.log1p(1)).abs().median() < 0.01  # log(1 + support)
    assert features[4][inner].median() < 0.02  # the angle to the nearest view, which is itself
    assert not estimator.estimate(stored_view(store, 0))[~SEEN].any()
    view = stored_view(store, 0)
    straight = View(view.color, view.alpha, view.field, view.surface, view.camera_to_world, view.intrinsics)
    assert estimator.features(straight)[4][inner].median() > 0.1


def test_shares_are_of_the_pixels_that_the_lens_sees():
    target = [2.5, 2.0, 0.85]
    pose = look_at(torch.tensor([[3.1, 1.4, 1.3]]).double(), torch.tensor([target]).double())
    labels, depth = ray_cast(pose, K, SIZE, FISH)
    info = [{"target_class": "sink", "target_class_index": SINK, "target_point": target}]
    verdict = judge_views(labels, depth, fisheye_list(pose, info), FilterOptions(min_coverage=0.01))[0]
    assert verdict["hits"] == 1 and SEEN.double().mean() < 0.95
    assert verdict["coverage"] == pytest.approx(float((labels[0][SEEN] == SINK).double().mean()), abs=5e-5)
    assert verdict["unannotated"] == pytest.approx(float((labels[0][SEEN] == 0).double().mean()), abs=5e-5)
    assert verdict["accepted"]
    off_axis = [{**info[0], "target_point": [4.2, 3.2, 0.4]}]  # the table's inside, seen through its side: occluded not
    verdict = judge_views(labels, depth, fisheye_list(pose, off_axis), FilterOptions(min_coverage=0.0))[0]
    uv, distance = project(torch.tensor([4.2, 3.2, 0.4]).double(), K, pose[0], FISH)
    column, row = uv.floor().long().tolist()
    hidden = distance < 0 or (int(labels[0, row, column]) != SINK and float(depth[0, row, column]) < distance - 0.2)
    assert (verdict["reason"] == "occluded") == bool(hidden)


def test_candidates_are_aimed_through_the_lens():
    instance = find_instances(mesh(), [SINK], 0.05, 0.05)[0]
    originals = fisheye_list(trajectory())
    path = Trajectory.of(originals, ray_cast(trajectory(), K, SIZE, FISH)[1], 0.0)
    drawn = draw_candidates(instance, path, DomeOptions(aim_noise=0.8), 200, np.random.default_rng(0))
    uv, depth = project(drawn.points, drawn.intrinsics, drawn.camera_to_world, FISH)
    assert (depth > 0).all() and (uv - drawn.pixels).abs().max() < 1e-6
    assert (uv - K[:2, 2]).norm(dim=1).max() > 15  # pixels from the axis, where lens and pinhole differ


def test_chosen_cameras_have_the_lens_and_see_what_they_say(store):
    room = mesh()
    targets = find_targets(room, store, [SINK], TargetOptions())
    originals = fisheye_list(trajectory())
    space = RoomSpace(room, trajectory()[:, :3, 3].numpy(), SpaceOptions())
    options = SelectionOptions(candidates=128, size=(24, 32))
    selector = DomeSelector(room, originals, Observers.from_store(store.path, 200), space, 0.0, 0, options)
    selection = selector.choose(targets, 4)
    cameras = selected_cameras(selection, [len(poses) for poses in selection.poses], targets, originals)
    assert len(cameras) == 4 and cameras.lens == FISH
    small = cameras.resized((24, 32))
    labels, _ = ray_cast(small.camera_to_world, small.intrinsics[0], (24, 32), FISH)
    own = (labels == SINK).flatten(1).double().mean(1)
    for info, share in zip(cameras.info, own.tolist(), strict=True):
        assert info["target_share"] == pytest.approx(share, abs=0.01) and info["observed"] > 0.25


def test_the_meshs_view_and_the_comparison_go_through_the_lens(store):
    pose = trajectory()[1]
    truth = ray_cast(pose[None], K, SIZE, FISH)
    label, depth = mesh_view(mesh(), pose, K, SIZE, lens=FISH)
    assert (label == truth[0][0]).double().mean() > 0.995 and (depth - truth[1][0]).abs().median() < 1e-4
    grid = PlenoxelGrid.from_sparse((2, 2, 2), torch.arange(8), torch.ones(8), torch.zeros(8, 27))
    estimator = QualityEstimator(Observers.from_store(store.path, max_views=2), QualityOptions())
    state = SceneState("room", RadianceField(grid, SceneTransform.identity()), RenderOptions(), {}, mesh(), {},
                       LiveQuality(estimator, mesh()))  # fmt: skip
    bare = CameraSource(TRAJECTORY, store.cameras)  # nothing is stored of these
    pictures = compare(state, bare, 1).pictures
    expected = class_picture(truth[0][0])
    assert (pictures["annotation"] == expected).double().mean() > 0.99
    assert not pictures["render"][:, ~SEEN].any() and pictures["render"][:, SEEN].any()
    assert set(pictures) == {"annotation", "render", "quality"}


def test_frusta_have_the_lenss_angles_up_to_what_a_pinhole_can_show():
    k = torch.tensor([[32.0, 0, 32], [0, 30, 24], [0, 0, 1]], dtype=torch.float64)
    narrow = CameraList("", ["0"], torch.eye(4)[None], k, SIZE, lens=Lens(FISHEYE))
    fov, aspect = view_shape(narrow, 0)
    assert fov == pytest.approx(2 * 24 / 30) and aspect == pytest.approx(math.tan(1.0) / math.tan(0.8))
    wide = CameraList("", ["0"], torch.eye(4)[None], torch.tensor([[10.0, 0, 32], [0, 10, 24], [0, 0, 1]]), SIZE,
                      lens=Lens(FISHEYE, limit=1.6))  # fmt: skip
    assert view_shape(wide, 0) == pytest.approx((math.radians(140), 1.0))
    barrel = Lens(radial=(-0.1, 0.0, 0.0, 0.0))
    fov, _ = view_shape(CameraList("", ["0"], torch.eye(4)[None], k, SIZE, lens=barrel), 0)
    half = math.tan(fov / 2)
    assert half * (1 - 0.1 * half**2) == pytest.approx(24 / 30, abs=1e-9)


def test_blender_and_geometry_say_no_in_one_sentence(store, tmp_path):
    with pytest.raises(UserError, match="geometry beside its colours, which is computed for pinhole views alone"):
        pixel_to_gravity(store.cameras.camera_to_world, store.cameras.intrinsics, store.cameras.lens)
    store.cameras.save(tmp_path / "room.json")
    assert json.loads((tmp_path / "room.json").read_text())["lens"]["projection"] == "fisheye"
    with pytest.raises(ValueError, match=r"room\.json holds cameras with a lens"):
        read_cameras(tmp_path / "room.json")


def test_networks_with_geometry_are_refused_views_through_a_lens(store):
    from types import SimpleNamespace

    from enet.stored_views import _pixels_of

    class Views(SimpleNamespace):
        def __len__(self):
            return len(store)

    dataset = Views(stores=[store], store_of_view=np.zeros(len(store), int), index_in_store=np.arange(len(store)))
    with pytest.raises(UserError, match="leave geometry out"):
        _pixels_of(dataset)

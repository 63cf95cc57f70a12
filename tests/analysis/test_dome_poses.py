"""Dome poses drawn anew in every epoch: where cameras stand, what they see, and how their pixels are weighted."""

import pickle
from dataclasses import replace

import pytest
import torch

from analysis import dome_poses
from analysis.dome_poses import DomePoses, find_places
from analysis.observers import Observers
from analysis.quality import QualityEstimator, QualityOptions, View
from dataloader import CameraList, SceneTransform, load_scene
from enet.draws import NUM_DRAWS
from enet.fresh_poses import Poses
from enet.live_options import data
from enet.live_scenes import LiveScene
from enet.live_views import LiveViews
from enet.options import ViewOptions
from enet.view_source import Step, TrainingOrder
from model import RadianceField, RenderOptions
from model.annotated_field import AnnotatedField, SceneCameras
from model.annotation import LabelledSurface, vertex_labels
from model.radiance_field import place_views
from tests.analysis.box_room import OBJECTS, ROOM, camera_list, mesh, ray_cast, trajectory, write_scan
from tests.lib.cuda_parity import needs_gpu
from tests.model.grid_fixture import filled, voxel_centers
from utils.cameras import look_at, opaque_depth, project, rigid_inverse
from utils.errors import UserError
from utils.labels import class_index

SIZE = (24, 32)
DOMES = DomePoses(classes=("sink",), share=0.5, places=4, metres=0.1, observers=6)


def surface_distance(points: torch.Tensor) -> torch.Tensor:
    """Metres to the nearest side of the room or an object."""
    distances = []
    for low, high in (ROOM, *(box[1:] for box in OBJECTS)):
        low, high = torch.tensor(low), torch.tensor(high)
        outside = torch.maximum(low - points, points - high)
        distances.append(torch.where((outside <= 0).all(-1), -outside.amax(-1), outside.clamp(min=0).norm(dim=-1)))
    return torch.stack(distances).amin(0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> LiveScene:
    """The box room with a field of its surfaces, and its trajectory as recorded poses."""
    folder = tmp_path_factory.mktemp("domes")
    scan = write_scan(folder / "room")
    transform = SceneTransform(torch.eye(4), torch.tensor(ROOM[1]) / 2, 0.36)
    voxels = torch.stack(torch.meshgrid(*[torch.arange(64.0)] * 3, indexing="ij"), -1)
    world = transform.points_from_grid(voxel_centers(voxels, 64))
    grid = filled(surface_distance(world) < 0.09, density=200.0)
    grid.sh[:] = torch.randn(grid.sh.shape, generator=torch.Generator().manual_seed(0)) * 0.2
    grid.save(folder / "field", transform)
    return LiveScene("room", folder / "field", load_scene(scan), camera_list(trajectory()).resized(SIZE), 10**6)


@pytest.fixture(scope="module")
def places(scene):
    return find_places(DOMES, mesh(), scene.cameras)


def drawn(scene: LiveScene, places, count: int = 200) -> tuple[Poses, torch.Tensor, torch.Tensor]:
    draws = torch.rand(count, DomePoses.num_draws, generator=torch.Generator().manual_seed(0))
    first = scene.cameras.select([0])
    recorded = Poses(first.camera_to_world.expand(count, 4, 4), first.intrinsics.expand(count, 3, 3))
    domes = DOMES.of_scene("room", mesh, scene.cameras)
    poses, new = domes.draw(recorded, draws)
    return poses, new, draws


def test_places_are_in_free_space_and_show_the_object(scene, places):
    assert len(places.poses) == 4
    assert surface_distance(places.poses[:, :3, 3].float()).min() > 0.24  # SpaceOptions.clearance less rounding
    labels, _ = ray_cast(places.poses, places.intrinsics, SIZE)
    shares = (labels == class_index("sink")).flatten(1).float().mean(1)
    assert shares.min() > 0.1


def test_draws_move_and_aim_anew_within_limits(scene, places):
    poses, new, draws = drawn(scene, places)
    assert torch.equal(new, draws[:, 0] < 0.5) and 80 < int(new.sum()) < 120
    assert torch.equal(poses.camera_to_world[~new][0], scene.cameras.camera_to_world[0])
    eyes = poses.camera_to_world[new, :3, 3]
    away = (eyes[:, None] - places.poses[:, :3, 3]).norm(dim=-1).amin(1)
    assert 0.05 < away.max() <= 0.1 + 1e-9
    assert surface_distance(eyes.float()).min() > 0.14
    index = (draws[new, 1].double() * 4).long()
    pixel, depth = project(places.points[index], poses.intrinsics[new], poses.camera_to_world[new])
    centre = poses.intrinsics[new][:, :2, 2]
    reach = torch.tensor([SIZE[1], SIZE[0]]) / 2 * 0.2  # DomeOptions.aim_noise
    assert (depth > 0).all() and ((pixel - centre).abs() <= reach + 1e-6).all()
    assert ((pixel - centre).abs() > reach / 2).any()


def source(*scenes: LiveScene, poses: DomePoses | None = DOMES) -> LiveViews:
    folder = str(scenes[0].field)
    options = data(source="live", fields_dir=folder, scans_dir=folder, size=SIZE)
    return LiveViews(scenes, options, ViewOptions(), True, weighted=poses is not None, poses=poses)


def test_places_are_searched_once_before_training_and_travel_to_other_processes(scene, monkeypatch):
    """Whatever the number of threads; a process that shares the training does not search again."""
    searched = []

    def counted(*arguments):
        searched.append(torch.get_num_threads())
        return find_places(*arguments)

    monkeypatch.setattr(dome_poses, "find_places", counted)
    threads, scenes = torch.get_num_threads(), [replace(scene, name=name) for name in ("one", "two", "three")]
    live = source(*scenes)
    live.prepare()
    assert searched == [1, 1, 1] and torch.get_num_threads() == threads
    steps = live.training_steps(TrainingOrder(epoch_views=12, batch_size=6), 0)
    lazily = source(*scenes)
    for cameras in (pickle.loads(pickle.dumps(live)).cameras, live.cameras):
        for step in steps:
            poses, expected = cameras.of_step(step).poses, lazily.cameras.of_step(step).poses
            assert all(torch.equal(one, other) for one, other in zip(poses, expected, strict=True))
    assert len(searched) == 6  # three of them lazily
    source(scene, poses=None).prepare()
    assert len(searched) == 6


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_drawn_views_are_weighted_by_their_quality_and_recorded_ones_count_in_full(scene, device):
    live = source(scene)
    assert live.has_weight and live.num_draws == NUM_DRAWS + 8
    steps = live.training_steps(TrainingOrder(epoch_views=12, batch_size=6), 0)
    for step, batch in zip(steps, live.batches(steps, torch.device(device)), strict=True):
        views, new = batch.resolve(), step.draws[:, NUM_DRAWS] < DOMES.share
        weight, label = views.weight.cpu(), views.label.cpu()
        assert torch.equal(weight[~new], torch.ones_like(weight[~new])) and 0 < int(new.sum()) < 6
        assert ((weight[new] >= 0) & (weight[new] < 1)).all() and weight[new].amax(dim=(1, 2)).min() > 0.01
        assert (label[new] == class_index("sink")).flatten(1).any(1).all()
    again = pickle.loads(pickle.dumps(live))
    (batch,) = again.batches(steps[1:], torch.device(device))
    assert torch.equal(batch.resolve().weight.cpu(), weight) and torch.equal(batch.resolve().label.cpu(), label)


def test_quality_is_that_of_the_stores_estimate_and_less_where_no_camera_looked(scene):
    """Several views at once on their device, against one by one from all recorded cameras."""
    domes = replace(DOMES, observers=12).of_scene("room", mesh, scene.cameras)
    field, room = RadianceField.load(scene.field), mesh()
    surface = LabelledSurface.of(room, vertex_labels(room.labels), "majority", "cpu")
    unseen = look_at(torch.tensor([2.5, 3.9, 0.2]).double(), torch.tensor([0.1, 3.9, 2.3]).double())
    poses = Poses(torch.stack((scene.cameras.camera_to_world[0], unseen)), scene.cameras.intrinsics[:2])
    cameras = SceneCameras(place_views(field.transform, None, *poses), rigid_inverse(poses.camera_to_world))
    outputs = ("rgb", "depth", "alpha")
    views = AnnotatedField(field, surface).look(cameras, SIZE, RenderOptions(), outputs, 0.01)
    found = domes.quality(views, poses, field)
    recorded = field.render_views(scene.cameras.camera_to_world, scene.cameras.intrinsics, SIZE)
    observers = Observers(scene.cameras.camera_to_world.float(), scene.cameras.intrinsics.float(),
                          opaque_depth(recorded.depth, recorded.alpha))  # fmt: skip
    estimator = QualityEstimator(observers, QualityOptions())
    for number in range(2):
        field_depth = opaque_depth(views.depth[number], views.alpha[number])
        view = View(views.rgb[number], views.alpha[number], field_depth, views.surface[number],
                    poses.camera_to_world[number], poses.intrinsics[number])  # fmt: skip
        torch.testing.assert_close(found[number], estimator.estimate(view), rtol=0, atol=1e-5)
    assert found[0].mean() > found[1].mean() > 0
    assert DOMES.of_scene("room", mesh, scene.cameras)._observers(field).each == 2.0  # 6 of 12


def test_a_scene_without_such_an_object_keeps_its_recorded_poses(scene):
    domes = DomePoses(classes=("bathtub",)).of_scene("room", mesh, scene.cameras)
    recorded = Poses(scene.cameras.camera_to_world, scene.cameras.intrinsics)
    poses, new = domes.draw(recorded, torch.zeros(len(scene.cameras), 8))
    assert not new.any() and torch.equal(poses.camera_to_world, recorded.camera_to_world)


@pytest.mark.parametrize(("change", "message"), [
    ({"metres": 0.25}, "less than SpaceOptions.clearance = 0.25"), ({"share": 1.5}, "DomePoses.share = 1.5"),
    ({"classes": "tail"}, "DomePoses.classes = 'tail' is unknown"),
])  # fmt: skip
def test_options_that_cannot_be_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        DomePoses(**change)
    with pytest.raises(UserError, match="DomePoses.classes"):
        DomePoses(classes=("sofabed",)).class_indices()


def test_draws_beyond_the_augmentations_decide(scene):
    live = source(scene)
    view = torch.tensor([0, 0])
    draws = torch.full((2, live.num_draws), 0.3)
    draws[1, NUM_DRAWS + 2] = 0.8  # another direction of the shift
    (batch,) = live.batches([Step(view, draws)], torch.device("cpu"))
    color = batch.resolve().color
    assert not torch.equal(color[0], color[1])
    assert isinstance(live.cameras.drawer(0).cameras, CameraList)

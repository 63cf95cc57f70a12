"""The train task on live views: the stores' order, exact resuming, hold-out, refusals, scenes that come and go."""

import pickle
import shutil

import gin
import pytest
import torch

from enet.jitter import JitteredPoses
from enet.live_scenes import choose_live
from enet.live_views import LiveViews
from enet.module import SegmentationModule
from enet.options import (
    AugmentationOptions,
    LossOptions,
    NetworkOptions,
    OptimizerOptions,
    SplitOptions,
    ViewOptions,
)
from enet.resident_scenes import ResidentScenes
from enet.scene_order import group_scenes, visiting_steps
from enet.sources import choose_sources
from enet.task_train import train
from enet.training import TrainingOptions
from enet.view_source import TrainingOrder
from tests.enet.bindings import bind_split
from tests.enet.live_fixture import FRAMES, SCENES, SIZE, write_scenes, write_stores
from tests.enet.test_live_views import options
from tests.lib.cuda_parity import needs_gpu
from utils.errors import UserError
from utils.files import read_json

CPU = torch.device("cpu")
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def stores(folder):
    return write_stores(folder)


def bind(folder, **changes) -> None:
    settings = {"source": "live", "fields_dir": str(folder / "fields"), "scans_dir": str(folder / "scans"),
                "size": SIZE, **changes}  # fmt: skip
    for name, value in settings.items():
        gin.bind_parameter(f"data.{name}", value)
    gin.bind_parameter("NetworkOptions.stem", "conv_sum")


def start(runs, name, plan=False, **changes):
    bind_split()
    arguments = {"epochs": 2, "batch_size": 4, "device": "cpu", **changes}
    return (train.plan if plan else train)(runs_dir=str(runs), name=name, **arguments)


def state(runs, name) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(runs / name / "training/last.ckpt", weights_only=True, map_location="cpu")
    return checkpoint["state_dict"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_live_and_stored_trainings_see_the_same(folder, stores, tmp_path):
    gin.bind_parameter("NetworkOptions.stem", "conv_sum")
    gin.bind_parameter("AugmentationOptions.mirror", 0.5)
    stored = start(tmp_path, "stored", views=[str(stores)])
    bind(folder)
    live = start(tmp_path, "live")
    assert (live["training_views"], live["validation_views"]) == (2 * FRAMES, FRAMES)
    assert live["budget"] == stored["budget"]
    found, expected = state(tmp_path, "live"), state(tmp_path, "stored")
    assert torch.equal(found["class_weights"], expected["class_weights"])
    for name in ("color_mean", "color_std", "sh_mean", "sh_std"):
        torch.testing.assert_close(found[name], expected[name], rtol=0.02, atol=2e-3)
    settings = read_json(tmp_path / "live/training/settings.json")["training"]
    assert [scene["scene"] for scene in settings["live"]] == list(SCENES[:2])
    assert settings["live"][0]["field"].startswith("sha256:") and settings["live"][0]["mesh"].startswith("sha256:")
    bind(folder, validation="stored")
    mixed = start(tmp_path, "mixed", views=[str(stores)])
    assert same(state(tmp_path, "mixed"), found), "validation changes nothing that is trained"
    assert mixed["validation_views"] == FRAMES


class Killed(Exception):
    pass


def test_killed_and_resumed_equals_uninterrupted(folder, tmp_path, monkeypatch, resume):
    """With new poses, and scenes that come and go."""
    bind(folder, poses=JitteredPoses(share=0.7), resident=1e-6)
    start(tmp_path, "whole")
    training_step = SegmentationModule.training_step

    def killed_step(self, batch, batch_idx):
        if self.current_epoch == 1 and batch_idx == 1:
            raise Killed
        return training_step(self, batch, batch_idx)

    with monkeypatch.context() as killing:
        killing.setattr(SegmentationModule, "training_step", killed_step)
        with pytest.raises(Killed):
            start(tmp_path, "cut")
    start(tmp_path, "cut")
    assert same(state(tmp_path, "cut"), state(tmp_path, "whole"))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_two_gpus)])
@pytest.mark.parametrize("resident", [0.0, 1e-6])  # all scenes in each process, and scenes of its own in each
def test_two_processes_train(folder, tmp_path, resident, device):
    bind(folder, poses=JitteredPoses(), resident=resident)
    results = start(tmp_path, "two", devices=2, epochs=1, device=device)
    assert results["validation"]["mean_iou"] is not None and results["training_views"] == 2 * FRAMES


@needs_gpu
@pytest.mark.parametrize("resident", [0.0, 1e-6])
def test_training_on_a_gpu_as_one_graph(folder, tmp_path, resident):
    bind(folder, poses=JitteredPoses(), resident=resident)
    results = start(tmp_path, "gpu", device="cuda")
    assert results["epochs"] == 2 and results["validation"]["mean_iou"] is not None


def selection(folder, split, **changes):
    return choose_live(options(folder, **changes), split, seed=0)


def test_frames_held_out_of_the_fields_are_never_trained(folder):
    chosen = selection(folder, SplitOptions(train_scenes=SCENES[:2], val_frames="held_out"))
    for scene in chosen.validation:
        assert scene.cameras.names == ["0", "4"]
    for scene in chosen.training:
        assert scene.cameras.names == ["1", "2", "5", "6"]  # the pose of frame 3 is lost
    with pytest.raises(UserError, match="plenoxel_scannet_scene0000_00: every 2th view is not what was held out"):
        selection(folder, SplitOptions(train_scenes=SCENES[:2], val_every=2))


def test_scenes_of_the_test_and_the_validation_are_not_trained(folder):
    chosen = selection(folder, SplitOptions(train_scenes="all", val_scenes=SCENES[2:3], test_scenes=SCENES[3:]))
    assert [scene.name for scene in chosen.training] == list(SCENES[:2])
    assert [scene.name for scene in chosen.validation] == [SCENES[2]]
    with pytest.raises(UserError, match="the same scene"):
        selection(folder, SplitOptions(train_scenes=SCENES[:2], val_scenes=SCENES[1:2]))


@pytest.fixture
def damaged(folder, tmp_path):
    shutil.copytree(folder / "fields", tmp_path / "fields")
    shutil.copytree(folder / "scans", tmp_path / "scans")
    return tmp_path


@pytest.mark.parametrize(("gone", "message"), [
    ("fields/plenoxel_scannet_scene0001_00", "scene0001_00 has no field: .*plenoxel_scannet_scene0001_00 is absent"),
    ("scans/scene0001_00/scene0001_00_vh_clean_2.labels.ply", "scene0001_00 has no labelled mesh: .*labels.ply"),
    ("scans/scene0001_00", "scene0001_00 has no poses and no mesh"),
])  # fmt: skip
def test_what_is_missing_is_named_before_anything_is_made(damaged, gone, message):
    path = damaged / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    bind(damaged)
    with pytest.raises(UserError, match=f"{message}.*data.on_missing = 'skip'"):
        start(damaged / "runs", "run", plan=True)
    bind(damaged, on_missing="skip")
    plan = start(damaged / "runs", "run", plan=True)
    assert "live: 1 scenes are left out: scene0001_00" in plan.lines()
    assert any(line.startswith(f"live: {FRAMES} recorded poses of 1 scenes at 28x20") for line in plan.lines())
    assert not (damaged / "runs").exists()


def test_the_plan_says_what_is_resident(folder, tmp_path):
    bind(folder)
    (line,) = [line for line in start(tmp_path, "run", plan=True).lines() if "GPU" in line]
    assert line.endswith("GB on a GPU, all resident")
    bind(folder, resident=5e-4)
    (line,) = [line for line in start(tmp_path, "run", plan=True).lines() if "GPU" in line]
    assert "% of it resident (0.0005 GB): scenes are visited in groups" in line


@pytest.mark.parametrize(("binding", "value", "message"), [
    ("data.source", "disk", "data.source"), ("data.every", 0, "data.every = 0"), ("data.near", 0.0, "data.near"),
    ("data.fields_dir", "", "data.fields_dir = '' is no folder"), ("data.size", (0, 4), "data.size"),
    ("data.resident", -1.0, "data.resident = -1"), ("ViewOptions.color", "photo", "live views are renders"),
    ("LossOptions.quality", True, "data.poses = @DomePoses"), ("MixOptions.shares", (1.0,), "MixOptions.shares"),
    ("data.validation", "stored", "needs a folder of stores"),
    ("SelfTrainingOptions.scenes", ("scene0003_00",), "gives stored views predicted labels"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(folder, tmp_path, binding, value, message):
    bind(folder)
    gin.bind_parameter(binding, value)
    if binding.startswith("Self"):
        gin.bind_parameter("SelfTrainingOptions.fused_dir", "fused")
    with pytest.raises(UserError, match=message):
        start(tmp_path, "run", plan=True)


def test_stored_training_needs_stores(tmp_path):
    with pytest.raises(UserError, match="train.views names no folder"):
        start(tmp_path, "run", plan=True)


def test_scenes_come_and_go_and_views_stay_the_same(folder):
    scenes = selection(folder, SplitOptions(train_scenes=SCENES[:3], val_scenes=SCENES[3:])).training
    all_there, few = options(folder), options(folder, resident=1e-9 * 2.5 * scenes[0].nbytes)
    order = TrainingOrder(epoch_views=18, batch_size=3)
    one = LiveViews(scenes, few, ViewOptions(), True)
    steps = one.training_steps(order, 0)
    other = LiveViews(scenes, all_there, ViewOptions(), True)
    for batch, expected in zip(one.batches(steps, CPU), other.batches(steps, CPU), strict=True):
        assert torch.equal(batch.resolve().sh, expected.resolve().sh)
        assert torch.equal(batch.resolve().label, expected.resolve().label)
    assert sorted(view for step in steps for view in step.views.tolist()) == list(range(3 * FRAMES))
    crossing = sum(len(one.cameras.scene[step.views].unique()) > 1 for step in steps)
    assert crossing <= 2, "two groups meet at most twice"


def read_twice(source: LiveViews) -> ResidentScenes:
    for _ in range(2):
        for _ in source.batches(source.ordered_steps(FRAMES), CPU):
            pass
    return source.pool.on(CPU)


def test_a_scene_is_read_once_while_it_fits(folder):
    scenes = selection(folder, SplitOptions(train_scenes=SCENES[:3], val_scenes=SCENES[3:])).training
    everything = read_twice(LiveViews(scenes, options(folder), ViewOptions(), False))
    assert (everything.reads, everything.unpacked, everything.names) == (3, 0, list(SCENES[:3]))
    assert everything.compact_bytes == 0
    size = everything.ready_bytes // 3
    tight = read_twice(LiveViews(scenes, options(folder, resident=2.6e-9 * size), ViewOptions(), False))
    assert (tight.reads, tight.unpacked) == (3, 3), "what had to go was made again without reading it"
    assert tight.names[-1] == SCENES[2] and tight.ready_bytes + tight.compact_bytes <= 2.6 * size
    assert 0 < tight.compact_bytes < 1.3 * size, "three compact scenes take little more than one"
    tiny = read_twice(LiveViews(scenes, options(folder, resident=1e-9), ViewOptions(), False))
    assert (tiny.reads, tiny.unpacked, tiny.names) == (6, 0, [SCENES[2]]), "no room even for compact scenes"


def test_sources_of_a_training_share_their_scenes(folder, monkeypatch):
    """Frames of the same scenes train and validate: each scene is read once."""
    gin.bind_parameter("SplitOptions.train_scenes", SCENES[:2])
    gin.bind_parameter("SplitOptions.val_frames", "held_out")
    chosen = TrainingOptions(
        NetworkOptions(), ViewOptions(), AugmentationOptions(), LossOptions(), OptimizerOptions()
    )  # fmt: skip
    sources = pickle.loads(pickle.dumps(choose_sources((), None, options(folder), chosen, seed=0, device=CPU)))
    assert (len(sources.training), len(sources.validation), sources.epoch_views) == (2 * 4, 2 * 2, 8)
    for source in (sources.training, sources.validation):
        for _ in source.batches(source.ordered_steps(3), CPU):
            pass
    assert sources.training.pool.on(CPU).reads == 2
    freed = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(len(sources.training.pool._on_device)))
    sources.validation.release()
    assert freed == [0], "given back to other processes, after the scenes were dropped"
    assert sources.training.pool.on(CPU).reads == 0


def test_more_than_a_gpu_holds_is_refused_before_anything_is_made(folder, monkeypatch):
    gin.bind_parameter("SplitOptions.val_scenes", SCENES[3:])
    scenes = selection(folder, SplitOptions(val_scenes=SCENES[3:])).training
    need = sum(scene.nbytes for scene in scenes)
    chosen = TrainingOptions(
        NetworkOptions(), ViewOptions(), AugmentationOptions(), LossOptions(), OptimizerOptions()
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, need - 1))
    gpu = torch.device("cuda")
    with pytest.raises(UserError, match="set data.resident to what the network leaves"):
        choose_sources((), None, options(folder), chosen, 0, gpu)
    assert len(choose_sources((), None, options(folder, resident=need / 2e9), chosen, 0, gpu).training) == 3 * FRAMES


def test_groups_fit_or_are_one_scene():
    assert group_scenes([2, 0, 1, 3], [5, 4, 3, 20], most=8) == [[2, 0], [1], [3]]


def test_each_process_visits_its_own_scenes():
    scene = torch.arange(6).repeat_interleave(5)
    nbytes = [3] * 6
    seen = []
    for rank in range(2):
        order = TrainingOrder(epoch_views=28, batch_size=7, seed=2, rank=rank, world_size=2)
        epochs = [visiting_steps(scene, nbytes, 6, order, 4, epoch) for epoch in range(2)]
        again = visiting_steps(scene, nbytes, 6, order, 4, 1)
        for steps in epochs:
            views = torch.cat([step.views for step in steps])
            assert len(steps) == len(order) == 2 and len(views) == len(views.unique()) == 14
            visited = scene[views].unique_consecutive()
            assert len(visited[:2].unique()) <= 2
        assert not torch.equal(epochs[0][0].views, epochs[1][0].views)
        assert torch.equal(again[0].views, epochs[1][0].views) and torch.equal(again[1].draws, epochs[1][1].draws)
        seen.append(set(scene[torch.cat([step.views for steps in epochs for step in steps])].tolist()))
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 6
    with pytest.raises(UserError, match="train.devices = 7"):
        visiting_steps(scene, nbytes, 6, TrainingOrder(28, 2, rank=0, world_size=7), 4, 0)

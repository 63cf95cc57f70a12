"""Views rendered live: what stores hold, in the stores' order, and new poses that seed and epoch alone decide."""

import pytest
import torch

from dataloader import ViewStore
from enet.draws import NUM_DRAWS
from enet.fresh_poses import Poses
from enet.jitter import JitteredPoses
from enet.live_options import data
from enet.live_scenes import choose_live
from enet.live_views import LiveViews
from enet.options import AugmentationOptions, SplitOptions, ViewOptions
from enet.stored_views import StoredViews
from enet.view_source import Step, TrainingOrder, ViewBatch
from tests.enet.live_fixture import FRAMES, SCENES, SIZE, write_scenes, write_stores
from tests.lib.cuda_parity import needs_gpu

CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
GEOMETRY = ("depth", "normal", "height", "alpha")
AUGMENTATION = AugmentationOptions(mirror=0.5, smallest_crop=0.6, brightness=0.2, noise=0.02)
SPLIT = SplitOptions(train_scenes=SCENES[:2], val_scenes=SCENES[2:3], test_scenes=SCENES[3:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def stores(folder):
    made = {}

    def make(device: str):
        if device not in made:
            made[device] = write_stores(folder, device)
        return made[device]

    return make


def options(folder, **changes):
    return data(source="live", fields_dir=str(folder / "fields"), scans_dir=str(folder / "scans"), size=SIZE, **changes)


def live(folder, split=SPLIT, augmentation=None, poses=None, views=None, geometry=GEOMETRY, **changes) -> LiveViews:
    chosen = options(folder, **changes)
    scenes = choose_live(chosen, split, seed=0).training
    return LiveViews(scenes, chosen, views or ViewOptions(), True, augmentation, False, geometry, poses)


def resolve(source, steps, device="cpu") -> list[ViewBatch]:
    return [batch.resolve() for batch in source.batches(steps, torch.device(device))]


def joined(batches: list[ViewBatch]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([getattr(batch, name) for batch in batches]).cpu()
            for name in ("color", "sh", "label", "geometry")}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
def test_recorded_poses_give_what_stores_hold(folder, stores, device):
    paths = [stores(device) / name for name in SCENES[:2]]
    source, stored = live(folder), StoredViews(paths, ViewOptions(), True, geometry=("alpha",))
    assert len(source) == len(stored) == 2 * FRAMES and source.scenes == stored.scenes
    assert [source.describe(view).split(" of ")[0] for view in range(len(source))] == [
        stored.describe(view).split(" of ")[0] for view in range(len(stored))
    ]
    found = joined(resolve(source, source.ordered_steps(5), device))
    expected = joined(resolve(stored, stored.ordered_steps(5), device))
    assert torch.equal(found["label"], expected["label"]) and found["label"].float().std() > 3
    assert (found["color"] - expected["color"]).abs().max() <= 1 / 510 + 1e-6
    assert found["color"].std() > 0.05
    for number, path in enumerate(paths):
        store, rows = ViewStore(path), slice(number * FRAMES, (number + 1) * FRAMES)
        low, high = store.sh_range[:, 0, None, None], store.sh_range[:, 1, None, None]
        clamped = torch.minimum(torch.maximum(found["sh"][rows], low), high)
        assert ((clamped - expected["sh"][rows]).abs() / (high - low)).max() <= 1 / 510 + 1e-5
    assert (found["geometry"][:, 5] - expected["geometry"][:, 0]).abs().max() <= 1 / 510 + 1e-6  # opacity


@pytest.mark.parametrize("device", DEVICES)
def test_depth_is_the_stores_to_half_a_millimetre(folder, stores, device):
    source = live(folder)
    (images,) = (batch.parts[0] for batch in source.batches([Step(torch.arange(len(source)))], torch.device(device)))
    stored = torch.cat([torch.stack([ViewStore(stores(device) / name).read("depth", view) for view in range(FRAMES)])
                        for name in SCENES[:2]])  # fmt: skip
    assert stored.max() > 1 and (images.depth.cpu() - stored).abs().max() <= 0.0005 + 1e-5


@pytest.mark.parametrize("sh_frame", ["grid", "gravity", "camera"])
def test_augmented_views_are_those_of_the_stores(folder, stores, sh_frame):
    """Also where a batch's scenes are mixed: the augmentation is the stored views', to the error of their storage."""
    views = ViewOptions(sh_frame=sh_frame)
    source = live(folder, augmentation=AUGMENTATION, views=views)
    stored = StoredViews([stores("cpu") / name for name in SCENES[:2]], views, True, AUGMENTATION, geometry=GEOMETRY)
    order = TrainingOrder(epoch_views=12, batch_size=6, seed=3)
    steps, theirs = source.training_steps(order, 1), stored.training_steps(order, 1)
    for step, other in zip(steps, theirs, strict=True):
        assert torch.equal(step.views, other.views) and torch.equal(step.draws, other.draws)
        assert 0 < int((step.views < FRAMES).sum()) < 6
    found, expected = joined(resolve(source, steps)), joined(resolve(stored, theirs))
    assert torch.equal(found["label"], expected["label"])
    assert (found["color"] - expected["color"]).abs().max() < 0.01
    assert (found["sh"] - expected["sh"]).abs().mean() < 0.01 < found["sh"].std()
    plain = joined(resolve(source, [Step(step.views) for step in steps]))
    assert not torch.equal(plain["label"], found["label"])


@pytest.mark.parametrize("device", DEVICES)
def test_a_views_bits_do_not_depend_on_its_batch(folder, device):
    source = live(folder)
    together = joined(resolve(source, [Step(torch.tensor([7, 0, 3, 11, 5]))], device))
    for place, view in enumerate([7, 0, 3, 11, 5]):
        alone = joined(resolve(source, [Step(torch.tensor([view]))], device))
        assert all(torch.equal(alone[name][0], together[name][place]) for name in alone)


@pytest.mark.parametrize("device", DEVICES)
def test_jittered_poses_are_a_function_of_seed_and_epoch(folder, device):
    poses = JitteredPoses(metres=0.2, radians=0.3, share=0.5)
    source = live(folder, poses=poses)
    assert source.num_draws == NUM_DRAWS + 7
    order = TrainingOrder(epoch_views=12, batch_size=4, seed=3)
    batches = [joined(resolve(source, source.training_steps(order, epoch), device)) for epoch in (0, 1)]
    again = live(folder, poses=poses)
    last = source.training_steps(order, 1)[2:]
    resumed = joined(resolve(again, last, device))
    assert torch.equal(resumed["color"], batches[1]["color"][8:])
    assert torch.equal(resumed["label"], batches[1]["label"][8:])
    recorded = joined(resolve(source, [Step(step.views) for step in source.training_steps(order, 1)], device))
    moved = (recorded["color"] != batches[1]["color"]).flatten(1).any(1)
    drawn = torch.cat([step.draws[:, NUM_DRAWS] < 0.5 for step in source.training_steps(order, 1)])
    assert torch.equal(moved, drawn) and 0 < int(moved.sum()) < 12


def test_jitter_stays_within_its_limits():
    draws = torch.rand(500, 7, generator=torch.Generator().manual_seed(0))
    recorded = Poses(torch.eye(4, dtype=torch.float64).repeat(500, 1, 1), torch.eye(3).double().repeat(500, 1, 1))
    poses, drawn = JitteredPoses(metres=0.2, radians=0.3).draw(recorded, draws)
    assert drawn.all()
    shift = poses.camera_to_world[:, :3, 3].norm(dim=1)
    turn = poses.camera_to_world[:, :3, :3]
    angle = torch.arccos(((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))
    assert 0.19 < shift.max() <= 0.2 + 1e-9 and 0.28 < angle.max() <= 0.3 + 1e-9
    assert (turn @ turn.mT - torch.eye(3).double()).abs().max() < 1e-12
    assert float((shift < 0.1).double().mean()) == pytest.approx(1 / 8, abs=0.05)  # evenly over the ball


@needs_gpu
@pytest.mark.parametrize("poses", [None, JitteredPoses()])
def test_a_gpu_is_not_waited_for_once_scenes_are_there(folder, poses):
    source = live(folder, augmentation=AUGMENTATION, poses=poses)
    steps = source.training_steps(TrainingOrder(epoch_views=36, batch_size=6), 0)
    batches = source.batches(steps, torch.device("cuda"))
    for _ in range(2):
        next(batches).resolve()  # both scenes are read
    torch.cuda.set_sync_debug_mode("error")
    try:
        rest = [batch.resolve() for batch in batches]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(rest) == 4 and all(batch.color.std() > 0.05 for batch in rest)

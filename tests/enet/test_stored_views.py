"""From stores to batches: the right view in the right place, SH in the right axes, and bad stores named."""

import pickle
from pathlib import Path

import pytest
import torch

from dataloader import StoreViews, ViewDataset, ViewStore
from enet.draws import NUM_DRAWS
from enet.options import AugmentationOptions, ViewOptions
from enet.statistics import compute_statistics
from enet.stored_views import StoredViews
from enet.view_source import Step, TrainingOrder, ViewBatch
from utils.device import exact_device
from utils.errors import UserError
from utils.spherical_harmonics import sh_basis

CPU = torch.device("cpu")
READING = {"cached": ViewOptions(), "from disk": ViewOptions(cache=False, workers=0),
           "by a worker": ViewOptions(cache=False, workers=1)}  # fmt: skip


def load(source: StoredViews, batch_size: int = 3) -> list[ViewBatch]:
    """All views in order, as the network takes them."""
    return [batch.resolve() for batch in source.batches(source.ordered_steps(batch_size), CPU)]


def resolve(source: StoredViews, step: Step) -> ViewBatch:
    (batch,) = source.batches([step], CPU)
    return batch.resolve()


@pytest.mark.parametrize("sh_dtype", ["uint8", "float16"])
@pytest.mark.parametrize("reading", READING)
def test_batches_are_the_stores_views_in_order(make_store, reading, sh_dtype):
    paths = [make_store("a", count=4, sh_dtype=sh_dtype), make_store("b", folder="novel", count=3, sh_dtype=sh_dtype)]
    chosen = [StoreViews(paths[0], (1, 3)), StoreViews(paths[1])]
    source = StoredViews(chosen, READING[reading], uses_sh=True)
    batches = load(source)
    stores = [ViewStore(path) for path in paths]
    expected = [(stores[0], 1), (stores[0], 3), *((stores[1], view) for view in range(3))]
    assert [len(batch.label) for batch in batches] == [3, 2] and len(source) == 5 and source.scenes == ["a", "b"]
    for field, channel in (("color", "rgb"), ("sh", "sh"), ("label", "label")):
        found = torch.cat([getattr(batch, field) for batch in batches])
        assert torch.allclose(found, torch.stack([s.read(channel, v) for s, v in expected]).to(found.dtype))
    assert all(batch.weight is None for batch in batches)


def test_the_cameras_pictures_can_be_the_colour(make_store):
    path = make_store("a", count=2)
    (batch,) = load(StoredViews([path], ViewOptions(color="photo"), uses_sh=False))
    assert torch.equal(batch.color, torch.stack([ViewStore(path).read("photo", view) for view in range(2)]))
    assert batch.sh is None


@pytest.mark.parametrize("reading", READING)
def test_training_batches_hold_the_views_of_their_steps(make_store, reading):
    path = make_store("a", count=5)
    source = StoredViews([path], READING[reading], uses_sh=False, weighted=True)
    steps = source.training_steps(TrainingOrder(epoch_views=5, batch_size=2), epoch=1)
    stored, quality = ViewStore(path).tensor("label"), ViewStore(path).tensor("quality")
    batches = list(source.batches(steps, CPU))
    assert len(batches) == 2
    for batch, step in zip(batches, steps, strict=True):
        views = batch.resolve()
        assert torch.equal(views.label, stored[step.views])
        assert torch.equal(views.weight, quality[step.views].float() / 255)


def test_only_steps_with_random_numbers_are_augmented(make_store):
    source = StoredViews([make_store("a")], ViewOptions(), uses_sh=False, augmentation=AugmentationOptions(mirror=1.0))
    views = torch.arange(4)
    plain, flipped = (resolve(source, Step(views, draws)) for draws in (None, torch.zeros(4, NUM_DRAWS)))
    assert torch.equal(flipped.color, plain.color.flip(-1)) and not torch.equal(flipped.color, plain.color)
    assert torch.equal(flipped.label, plain.label.flip(-1))


def test_a_device_has_one_cache_whatever_it_is_called(make_store, monkeypatch):
    source = StoredViews([make_store("a", count=5)], ViewOptions(), uses_sh=False)
    read = []
    stored_batch = ViewDataset.stored_batch
    monkeypatch.setattr(ViewDataset, "stored_batch", lambda self, views: read.extend(views.tolist())
                        or stored_batch(self, views))  # fmt: skip
    for name in ("cpu", "cpu:0", "cpu"):
        assert len(list(source.batches(source.ordered_steps(2), torch.device(name)))) == 3
    assert read == [0, 1, 2, 3, 4]
    source.release()
    assert len(list(source.batches(source.ordered_steps(5), CPU))) == 1 and read == 2 * [0, 1, 2, 3, 4]
    assert exact_device(torch.device("cpu:0")) == CPU and exact_device(torch.device("meta")) == torch.device("meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_means_its_current_device():
    assert exact_device(torch.device("cuda")) == torch.device("cuda", torch.cuda.current_device())


def test_caches_do_not_travel_to_other_processes(make_store):
    source = StoredViews([make_store("a", count=40)], ViewOptions(), uses_sh=True)
    expected = load(source)
    travelled = pickle.dumps(source)
    assert len(travelled) < 40 * 27 * 24 * 27 / 4  # less than a quarter of the SH images
    for found, batch in zip(load(pickle.loads(travelled)), expected, strict=True):
        assert torch.equal(found.color, batch.color) and torch.equal(found.sh, batch.sh)


@pytest.mark.parametrize("frame", ["grid", "gravity", "camera"])
def test_mirrored_view_shows_the_mirrored_world(make_store, frame):
    """What a ray through the mirrored pixel sees is what the ray's mirror image saw before."""
    path = make_store("a", count=2, sh_dtype="float16")
    options, views = ViewOptions(sh_frame=frame), torch.arange(2)
    plain = resolve(StoredViews([path], options, uses_sh=True), Step(views))
    mirroring = StoredViews([path], options, uses_sh=True, augmentation=AugmentationOptions(mirror=1.0))
    flipped = resolve(mirroring, Step(views, torch.zeros(2, NUM_DRAWS)))
    assert torch.equal(resolve(mirroring, Step(views)).sh, plain.sh)
    camera = torch.nn.functional.normalize(torch.randn(3, generator=torch.Generator().manual_seed(4)), dim=0)
    camera_mirrored = camera * torch.tensor([-1.0, 1, 1])
    store = ViewStore(path)
    world_to_grid = torch.tensor(store.attributes["T"], dtype=torch.float64)[:3, :3]
    for view in range(2):
        to_world = store.cameras.camera_to_world[view][:3, :3]
        to_frame = {"grid": world_to_grid @ to_world, "gravity": to_world, "camera": torch.eye(3).double()}[frame]
        basis, basis_mirrored = (sh_basis((to_frame @ d.double()).float()) for d in (camera, camera_mirrored))
        for channel in range(3):
            block = slice(9 * channel, 9 * channel + 9)
            before = torch.einsum("khw,k->hw", plain.sh[view, block], basis)
            after = torch.einsum("khw,k->hw", flipped.sh[view, block], basis_mirrored)
            assert torch.allclose(after.flip(-1), before, atol=1e-4)
    assert torch.equal(flipped.label, plain.label.flip(-1))


def test_frames_describe_the_same_radiance(make_store):
    path = make_store("a", count=1, sh_dtype="float16")
    decoded = {
        frame: load(StoredViews([path], ViewOptions(sh_frame=frame), uses_sh=True))[0].sh[0, :9]
        for frame in ("grid", "gravity", "camera")
    }
    store = ViewStore(path)
    camera = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    world = store.cameras.camera_to_world[0][:3, :3] @ camera
    grid = torch.tensor(store.attributes["T"], dtype=torch.float64)[:3, :3] @ world
    seen = [
        torch.einsum("khw,k->hw", decoded[frame], sh_basis(direction.float()))
        for frame, direction in (("grid", grid), ("gravity", world), ("camera", camera))
    ]
    assert torch.allclose(seen[0], seen[1], atol=1e-4) and torch.allclose(seen[0], seen[2], atol=1e-4)


def test_statistics_are_those_of_all_pixels(make_store):
    paths = [make_store("a", count=3), make_store("b", count=2)]
    statistics = compute_statistics(StoredViews(paths, ViewOptions(), uses_sh=True), 2, CPU)
    stores = [ViewStore(path) for path in paths]
    for name, mean, std in (
        ("rgb", statistics.color_mean, statistics.color_std), ("sh", statistics.sh_mean, statistics.sh_std)
    ):  # fmt: skip
        pixels = torch.cat([store.read(name, view).flatten(1) for store in stores for view in range(len(store))], 1)
        assert torch.allclose(mean, pixels.mean(1), atol=1e-5)
        assert torch.allclose(std, pixels.std(1, correction=0), atol=1e-5)
    labels = torch.cat([store.tensor("label") for store in stores])
    for index in range(21):
        assert statistics.class_pixels[index] == (labels == index).sum()
        assert statistics.view_pixels[index] == (labels == index).flatten(1).any(1).sum() * labels[0].numel()


def test_bad_stores_are_named(make_store):
    def refused(match: str, path: Path) -> None:
        with pytest.raises(UserError, match=match) as caught:
            load(StoredViews([path], ViewOptions(), uses_sh=True))
        assert path.name in str(caught.value)

    refused("label", make_store("unlabelled", leave_out=["label"]))
    refused("sh", make_store("colour_only", leave_out=["sh"]))
    wrong = torch.full((4, 24, 27), 39, dtype=torch.uint8)
    refused("39.*0..20", make_store("nyu40", label=wrong))
    with pytest.raises(UserError, match="size"):
        StoredViews([make_store("small"), make_store("large", size=(32, 32))], ViewOptions(), uses_sh=True)

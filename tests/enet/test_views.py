"""From stores to batches: the right view in the right place, SH in the right axes, and bad stores named."""

from pathlib import Path

import pytest
import torch

from dataloader import ViewStore
from enet.data_module import Batching, TrainingLoader, ViewDataModule, ViewLoader
from enet.options import AugmentationOptions, ViewOptions
from enet.sampling import EpochSampler, evaluation_batches
from enet.statistics import compute_statistics
from enet.view_decoder import ViewDecoder, sh_matrices
from enet.view_table import CachedViews, StoreViews, ViewTable
from utils.errors import UserError
from utils.spherical_harmonics import sh_basis

CPU = torch.device("cpu")


def load(table: ViewTable, cache: bool = True, batch_size: int = 3):
    return list(ViewLoader(table, CPU, batch_size, cache=CachedViews(table, CPU) if cache else None))


@pytest.mark.parametrize("sh_dtype", ["uint8", "float16"])
@pytest.mark.parametrize("cache", [True, False])
def test_batches_are_the_stores_views_in_order(make_store, cache, sh_dtype):
    paths = [make_store("a", count=4, sh_dtype=sh_dtype), make_store("b", folder="novel", count=3, sh_dtype=sh_dtype)]
    chosen = [StoreViews(paths[0], (1, 3)), StoreViews(paths[1])]
    table = ViewTable(chosen, ViewOptions(color="photo", cache=cache, workers=0), uses_sh=True, quality=True)
    batches = load(table, cache)
    stores = [ViewStore(path) for path in paths]
    expected = [(stores[0], 1), (stores[0], 3), *((stores[1], view) for view in range(3))]
    assert len(table) == 5 and [len(batch.label) for batch in batches] == [3, 2]
    for field, channel in (("color", "photo"), ("sh", "sh"), ("label", "label"), ("quality", "quality")):
        found = torch.cat([getattr(batch, field) for batch in batches])
        assert torch.allclose(found, torch.stack([s.read(channel, v) for s, v in expected]).to(found.dtype))


def test_reading_ahead_in_worker_processes_gives_the_same(make_store):
    table = ViewTable([StoreViews(make_store("a"))], ViewOptions(workers=1), uses_sh=True)
    for cached, read in zip(load(table), load(table, cache=False), strict=True):
        assert torch.equal(cached.sh, read.sh) and torch.equal(cached.label, read.label)


def test_views_without_quality_count_in_full(make_store):
    paths = [make_store("a", count=2, leave_out=["quality"]), make_store("a", folder="novel", count=2)]
    table = ViewTable([StoreViews(path) for path in paths], ViewOptions(), uses_sh=False, quality=True)
    quality = torch.cat([batch.quality for batch in load(table)])
    assert (quality[:2] == 1).all()
    assert torch.equal(quality[2:], torch.stack([ViewStore(paths[1]).read("quality", view) for view in range(2)]))


@pytest.mark.parametrize("frame", ["grid", "gravity", "camera"])
def test_mirrored_view_shows_the_mirrored_world(make_store, frame):
    """What a ray through the mirrored pixel sees is what the ray's mirror image saw before."""
    path = make_store("a", count=2, sh_dtype="float16")
    table = ViewTable([StoreViews(path)], ViewOptions(sh_frame=frame), uses_sh=True)
    options = AugmentationOptions(mirror=1.0)
    values, views = table.read(torch.arange(2)), torch.arange(2)
    draws = torch.zeros(2, 7)
    plain = ViewDecoder(table, CPU)(values, views)
    flipped = ViewDecoder(table, CPU, options)(values, views, draws)
    camera = torch.nn.functional.normalize(torch.randn(3, generator=torch.Generator().manual_seed(4)), dim=0)
    camera_mirrored = camera * torch.tensor([-1.0, 1, 1])
    store = table.dataset.stores[0]
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
    decoded = {}
    for frame in ("grid", "gravity", "camera"):
        table = ViewTable([StoreViews(path)], ViewOptions(sh_frame=frame), uses_sh=True)
        decoded[frame] = ViewDecoder(table, CPU)(table.read(torch.arange(1)), torch.arange(1)).sh[0, :9]
    store = table.dataset.stores[0]
    camera = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    world = store.cameras.camera_to_world[0][:3, :3] @ camera
    grid = torch.tensor(store.attributes["T"], dtype=torch.float64)[:3, :3] @ world
    seen = [
        torch.einsum("khw,k->hw", decoded[frame], sh_basis(direction.float()))
        for frame, direction in (("grid", grid), ("gravity", world), ("camera", camera))
    ]
    assert torch.allclose(seen[0], seen[1], atol=1e-4) and torch.allclose(seen[0], seen[2], atol=1e-4)


def test_no_matrices_where_nothing_turns(make_store):
    table = ViewTable([StoreViews(make_store("a"))], ViewOptions(), uses_sh=True)
    assert sh_matrices(table, mirroring=False) is None


def test_statistics_are_those_of_all_pixels(make_store):
    paths = [make_store("a", count=3), make_store("b", count=2)]
    table = ViewTable([StoreViews(path) for path in paths], ViewOptions(), uses_sh=True)
    statistics = compute_statistics(load(table, batch_size=2))
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


def test_epochs_draw_without_repetition_and_depend_on_seed_and_epoch():
    sampler = EpochSampler(num_views=10, epoch_views=9, batch_size=4, seed=3)
    first, draws = sampler.epoch_batches()
    assert first.shape == (2, 4) and draws.shape == (2, 4, 7) and len(first.unique()) == 8
    sampler.set_epoch(1)
    assert not torch.equal(sampler.epoch_batches()[0], first)
    again = EpochSampler(10, 9, 4, seed=3).epoch_batches()
    assert torch.equal(again[0], first) and torch.equal(again[1], draws)
    assert not torch.equal(EpochSampler(10, 9, 4, seed=4).epoch_batches()[0], first)
    twice = EpochSampler(num_views=10, epoch_views=20, batch_size=20, seed=0).epoch_batches()[0]
    assert twice.flatten().bincount().tolist() == [2] * 10
    assert EpochSampler(3, 3, 160, seed=0).epoch_batches()[0].shape == (1, 3)


def test_processes_share_the_batches_of_one():
    whole = EpochSampler(20, 20, 6, seed=0).epoch_batches()
    parts = [EpochSampler(20, 20, 3, seed=0, rank=rank, world_size=2).epoch_batches() for rank in range(2)]
    assert torch.equal(torch.cat([part[0] for part in parts], 1), whole[0])
    assert torch.equal(torch.cat([part[1] for part in parts], 1), whole[1])
    shares = [evaluation_batches(7, 2, rank, 2) for rank in range(2)]
    assert sorted(int(view) for share in shares for batch in share for view in batch) == list(range(7))


def test_training_loader_follows_the_sampler(make_store):
    table = ViewTable([StoreViews(make_store("a", count=5))], ViewOptions(), uses_sh=False)
    sampler = EpochSampler(5, 5, 2, seed=0)
    loader = TrainingLoader(table, CPU, sampler, AugmentationOptions(), CachedViews(table, CPU))
    views, _ = sampler.epoch_batches()
    labels = ViewStore(table.dataset.stores[0].path).tensor("label")
    assert len(loader) == 2
    for batch, expected in zip(loader, views, strict=True):
        assert torch.equal(batch.views, expected) and torch.equal(batch.decode().label, labels[expected])


def test_caches_do_not_travel_to_other_processes(make_store):
    store = StoreViews(make_store("a"))
    data = ViewDataModule([store], [store], ViewOptions(), AugmentationOptions(), Batching(2, 4, 0), uses_sh=False)
    data.statistics(CPU)
    assert data._caches and not data.__getstate__()["_caches"]


def test_bad_stores_are_named(make_store, tmp_path: Path):
    def refused(match: str, path: Path, uses_sh: bool = True, quality: bool = False) -> None:
        with pytest.raises(UserError, match=match) as caught:
            load(ViewTable([StoreViews(path)], ViewOptions(), uses_sh, quality))
        assert path.name in str(caught.value)

    refused("label", make_store("unlabelled", leave_out=["label"]))
    refused("sh", make_store("colour_only", leave_out=["sh"]))
    refused("quality", make_store("unweighted", leave_out=["quality"]), quality=True)
    wrong = torch.full((4, 24, 27), 39, dtype=torch.uint8)
    refused("39.*0..20", make_store("nyu40", label=wrong))
    with pytest.raises(UserError, match="size"):
        paths = [make_store("small"), make_store("large", size=(32, 32))]
        ViewTable([StoreViews(path) for path in paths], ViewOptions(), uses_sh=False)

"""Batches of views: which views, in which order, from the cache as from disk, over processes as in one."""

import pytest
import torch

from dataloader import BatchDecoding, SegmentationDataModule, StoreViews, ViewStore
from dataloader.view_sampling import EpochSampler, OrderedSampler
from tests.dataloader.test_view_dataset import make_store
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def stores(tmp_path):
    return [make_store(tmp_path / "a", 5, seed=0, quality=51), make_store(tmp_path / "b", 4, seed=1)]


def test_training_views_are_drawn_by_seed_and_epoch(stores):
    module = SegmentationDataModule(stores, batch_size=4, inputs="rgb+sh", seed=7)

    def order(epoch):
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat([batch["index"] for batch in loader]).tolist()

    assert len(order(0)) == 8 and len(set(order(0))) == 8  # whole batches only
    assert order(0) == order(0) and order(0) != order(1)


@pytest.mark.parametrize(("cache", "num_workers"), [(True, 0), (False, 0), (False, 1)])
def test_every_view_comes_once_in_order(stores, cache, num_workers):
    chosen = [StoreViews(stores[0], (1, 3)), stores[1]]
    module = SegmentationDataModule(
        val_stores=chosen, test_stores=stores[:1], batch_size=4, inputs="rgb+sh", cache=cache, num_workers=num_workers
    )
    batches = list(module.val_dataloader())
    assert [len(batch["index"]) for batch in batches] == [4, 2]
    read = [(ViewStore(stores[0]), view) for view in (1, 3)] + [(ViewStore(stores[1]), view) for view in range(4)]
    for key, channel in (("color", "rgb"), ("sh", "sh"), ("label", "label")):
        found = torch.cat([batch[key] for batch in batches])
        assert torch.equal(found, torch.stack([store.read(channel, view) for store, view in read])), key
    assert torch.cat([batch["store"] for batch in batches]).tolist() == [0, 0, 1, 1, 1, 1]
    assert not any("weight" in batch for batch in batches)
    assert [batch["label"][:, 0, 0].tolist() for batch in module.test_dataloader()] == [[0, 1, 2, 3], [4]]


def test_training_batches_of_the_cache_are_those_of_the_disk(stores):
    loaders = [
        SegmentationDataModule(stores, batch_size=2, inputs="rgb+sh", cache=cache, weighted=True).train_dataloader()
        for cache in (True, False)
    ]
    for cached, read in zip(*loaders, strict=True):
        assert cached.keys() == read.keys() and "weight" in cached
        assert all(torch.equal(cached[key], read[key]) for key in cached)


class Recorder(BatchDecoding):
    """Keeps what it was given."""

    num_draws = 3

    def prepare(self, dataset, device, training):
        return lambda batch: (training, batch)


def test_decoding_gets_stored_numbers_and_training_batches_random_ones(stores):
    module = SegmentationDataModule(stores[:1], stores[1:], batch_size=2, epoch_views=12, decoding=Recorder())
    training, batch = next(iter(module.train_dataloader()))
    assert training and batch["color"].dtype == torch.uint8 and batch["draws"].shape == (2, 3)
    assert len(list(module.train_dataloader())) == 6
    training, batch = next(iter(module.val_dataloader()))
    assert not training and "draws" not in batch


def test_caches_do_not_travel_to_other_processes(stores):
    module = SegmentationDataModule(stores, batch_size=4, cache=True)
    list(module.in_order("train", CPU))
    assert module._caches and not module.__getstate__()["_caches"]


def test_views_are_not_both_trained_and_measured_on(stores):
    with pytest.raises(UserError, match="b is a training store and a validation"):
        SegmentationDataModule(stores, stores[1:])
    with pytest.raises(UserError, match="a is a training store"):
        SegmentationDataModule([StoreViews(stores[0], (0, 1))], test_stores=[StoreViews(stores[0], (1, 2))])
    SegmentationDataModule([StoreViews(stores[0], (0, 1))], [StoreViews(stores[0], (2,))])


def test_epochs_draw_without_repetition_and_depend_on_seed_and_epoch():
    sampler = EpochSampler(num_views=10, epoch_views=9, batch_size=4, seed=3, num_draws=7)
    first, draws = sampler.epoch_batches()
    assert first.shape == (2, 4) and draws.shape == (2, 4, 7) and len(first.unique()) == 8
    sampler.set_epoch(1)
    assert not torch.equal(sampler.epoch_batches()[0], first)
    again = EpochSampler(10, 9, 4, seed=3, num_draws=7).epoch_batches()
    assert torch.equal(again[0], first) and torch.equal(again[1], draws)
    assert not torch.equal(EpochSampler(10, 9, 4, seed=4).epoch_batches()[0], first)
    twice = EpochSampler(num_views=10, epoch_views=20, batch_size=20, seed=0).epoch_batches()[0]
    assert twice.flatten().bincount().tolist() == [2] * 10
    assert EpochSampler(3, 3, 160, seed=0).epoch_batches()[0].shape == (1, 3)


def test_processes_share_the_batches_of_one():
    whole = EpochSampler(20, 20, 6, seed=0, num_draws=7).epoch_batches()
    parts = [EpochSampler(20, 20, 3, 0, 7, rank, world_size=2).epoch_batches() for rank in range(2)]
    assert torch.equal(torch.cat([part[0] for part in parts], 1), whole[0])
    assert torch.equal(torch.cat([part[1] for part in parts], 1), whole[1])
    few = [EpochSampler(5, 5, 3, 0, 0, rank, world_size=2).epoch_batches()[0] for rank in range(2)]
    assert [len(part.flatten()) for part in few] == [2, 2]
    shares = [OrderedSampler(7, 2, rank, 2).epoch_batches()[0] for rank in range(2)]
    assert sorted(int(view) for share in shares for batch in share for view in batch) == list(range(7))

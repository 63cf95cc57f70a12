"""Datasets over stores: what a sample holds, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dataloader import StoreViews, ViewDataset, ViewStore, ViewStoreWriter, add_channel
from dataloader.view_channels import decode
from tests.dataloader.test_view_store import CHANNELS, SH_RANGE, SIZE, make_cameras, make_views
from utils.errors import UserError


def make_store(path, count=4, seed=0, info=None, channels=CHANNELS, label=3, quality=None):
    """A store whose views are told apart by their values; the first label pixel is the view's number."""
    size = channels["rgb"][1][-2:]
    writer = ViewStoreWriter.create(path, make_cameras(count, size, info), channels, {"seed": seed}, SH_RANGE)
    views = {name: values[..., : size[0], : size[1]] for name, values in make_views(count, seed).items()}
    writer.write(range(count), {name: views[name] for name in channels})
    writer.finish()

    def annotate(array):
        labels = np.full(array.shape, label, array.dtype)
        labels[:, 0, 0] = range(count)
        array[:] = labels

    add_channel(path, "label", annotate)
    if quality is not None:
        add_channel(path, "quality", lambda array: array.fill(quality))
    return path


def test_samples_cover_all_stores_in_order(tmp_path):
    stores = [make_store(tmp_path / "a", 3, seed=0), make_store(tmp_path / "b", 2, seed=1)]
    dataset = ViewDataset(stores, inputs="rgb+sh")
    assert len(dataset) == 5 and dataset.size == SIZE and not dataset.weighted
    for index, (seed, view) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        sample, views = dataset[index], make_views(3 if seed == 0 else 2, seed)
        assert (int(dataset.store_of_view[index]), int(sample["label"][0, 0])) == (seed, view)
        assert (sample["color"] - views["rgb"][view]).abs().max() <= 1 / 510 + 1e-6
        assert (sample["sh"] - views["sh"][view]).abs().max() <= 4.1 / 510 + 1e-6
        assert {key: sample[key].dtype for key in ("color", "sh", "label")} == {
            "color": torch.float32, "sh": torch.float32, "label": torch.int64
        }  # fmt: skip
    with pytest.raises(IndexError):
        dataset[5]


def test_batches_as_stored_decode_to_the_samples(tmp_path):
    stores = [make_store(tmp_path / "a", 3, seed=0, quality=51), make_store(tmp_path / "b", 2, seed=1)]
    dataset = ViewDataset(stores, inputs="rgb+sh", weighted=True)
    views = torch.tensor([4, 0, 2])
    batch = dataset.stored_batch(views)
    assert {batch[key].dtype for key in ("color", "sh", "label", "weight")} == {torch.uint8}
    for key, channel in (("color", "rgb"), ("sh", "sh"), ("label", "label"), ("weight", "quality")):
        decoded = decode(channel, batch[key], batch["sh_range"])
        assert torch.equal(decoded, torch.stack([dataset[index][key] for index in views.tolist()])), key


def test_refused_views_are_left_out(tmp_path):
    info = [{"accepted": True}, {"accepted": False}, {}, {"accepted": False}]
    store = make_store(tmp_path / "a", 4, info=info)
    dataset = ViewDataset([store])
    assert [int(dataset[index]["label"][0, 0]) for index in range(len(dataset))] == [0, 2]
    store = make_store(tmp_path / "b", 1, info=[{"accepted": False}])
    with pytest.raises(UserError, match="accepted view"):
        ViewDataset([store])


def test_some_views_of_a_store(tmp_path):
    info = [{"accepted": True}, {"accepted": False}, {}, {}]
    stores = [make_store(tmp_path / "a", 4, info=info), make_store(tmp_path / "b", 2)]
    dataset = ViewDataset([StoreViews(stores[0], (3, 1, 0)), stores[1]])
    assert [int(dataset[index]["label"][0, 0]) for index in range(len(dataset))] == [0, 3, 0, 1]
    assert dataset.store_of_view.tolist() == [0, 0, 1, 1] and dataset.index_in_store.tolist() == [0, 3, 0, 1]
    with pytest.raises(UserError, match="among those chosen"):
        ViewDataset([StoreViews(stores[0], (1,))])


def test_views_that_are_not_rated_count_in_full(tmp_path):
    rated, unrated = make_store(tmp_path / "a", 1, quality=51), make_store(tmp_path / "b", 1)
    weights = [sample["weight"] for sample in ViewDataset([rated, unrated], weighted=True)]
    assert [weight.unique().tolist() for weight in weights] == [[pytest.approx(0.2)], [1.0]]
    assert weights[1].shape == ViewStore(unrated).size
    assert "weight" not in ViewDataset([rated])[0]
    with pytest.raises(UserError, match="b nor another store has a quality channel"):
        ViewDataset([unrated], weighted=True)


def test_worker_processes_read_the_same(tmp_path):
    dataset = ViewDataset([make_store(tmp_path / "a")], inputs="rgb+sh")
    dataset[0]
    assert len(pickle.dumps(dataset)) < 20_000  # no pixels travel to workers
    alone = next(iter(DataLoader(dataset, batch_size=4)))
    worker = next(iter(DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn")))
    assert all(torch.equal(alone[key], worker[key]) for key in alone)


def test_class_out_of_range_names_the_file(tmp_path):
    store = make_store(tmp_path / "a", label=36)  # a NYU40 id
    with pytest.raises(UserError, match=r"a/label\.npy holds class 36.*0\.\.20"):
        ViewDataset([store])[0]


def test_mistakes_get_one_sentence(tmp_path):
    good = make_store(tmp_path / "good")
    small = {name: (dtype, (*shape[:-2], 4, 4)) for name, (dtype, shape) in CHANNELS.items()}
    other = make_store(tmp_path / "other", channels=small)
    with pytest.raises(UserError, match=r"other has views of 4x4, .*good of 8x6"):
        ViewDataset([good, other])
    without_sh = make_store(tmp_path / "plain", channels={"rgb": CHANNELS["rgb"]})
    with pytest.raises(UserError, match="plain has no channel 'sh'"):
        ViewDataset([good, without_sh], inputs="rgb+sh")
    with pytest.raises(UserError, match="no channel 'photo'"):
        ViewDataset([good], color="photo")
    half = make_store(tmp_path / "half", channels={**CHANNELS, "sh": ("float16", CHANNELS["sh"][1])})
    with pytest.raises(UserError, match="half stores SH as float16, .*good as uint8"):
        ViewDataset([good, half], inputs="rgb+sh")
    with pytest.raises(UserError, match="at least one view store"):
        ViewDataset([])
    with pytest.raises(UserError, match="expected one of"):
        ViewDataset([good], inputs="sh")
    writer = ViewStoreWriter.create(tmp_path / "bare", make_cameras(1), CHANNELS, {}, SH_RANGE)
    writer.write([0], make_views(1))
    writer.finish()
    with pytest.raises(UserError, match="bare has no channel 'label'.*annotate"):
        ViewDataset([tmp_path / "bare"])

"""Channels on disk: the numbers that NumPy's own arrays would hold, in one file or in several."""

import json

import gin
import numpy as np
import pytest
import torch

from dataloader import ViewStore, ViewStoreWriter, add_channel
from dataloader.task_verify import verify
from dataloader.view_array import StoreOptions, ViewArray, ViewArrayWriter
from tests.dataloader.test_view_store import CHANNELS, SH_RANGE, SIZE, make_cameras, make_views, write_store
from utils.errors import UserError

TWO_VIEWS = 2 * 3 * 6 * 8 / 1e9  # gigabytes of two colour images: 27 channels then take a file each view, depth three


@pytest.fixture
def divided():
    gin.bind_parameter("StoreOptions.shard_gigabytes", TWO_VIEWS)


def array_of(folder, dtype="uint16", shape=(7, 3, 4), views_per_file=0):
    return ViewArray(folder, "depth", np.dtype(dtype), shape, views_per_file)


@pytest.mark.parametrize("views_per_file", [0, 1, 2, 3])
def test_assigning_is_that_of_an_array(tmp_path, views_per_file):
    written = ViewArrayWriter(array_of(tmp_path, views_per_file=views_per_file))
    expected = np.zeros((7, 3, 4), np.uint16)
    for key, values in (
        (slice(None), 9), (2, np.full((3, 4), 300)), (slice(1, 6), np.arange(60).reshape(5, 3, 4)),
        ([6, 0, 3, 4], np.arange(48, dtype=np.int32).reshape(4, 3, 4)), (-1, 5), (slice(5, 5), 1), ([], 3),
    ):  # fmt: skip
        written[key] = values
        expected[key] = values
    written.flush()
    array = array_of(tmp_path, views_per_file=views_per_file)
    assert (array.read(0, 7) == expected).all() and array.read(0, 7).dtype == np.uint16
    for start in range(8):
        for stop in range(start, 8):
            assert (array.read(start, stop) == expected[start:stop]).all()
    files = [np.load(path) for path, _ in array.files]
    assert (np.concatenate(files) == expected).all()
    assert [len(file) for file in files] == {0: [7], 1: [1] * 7, 2: [2, 2, 2, 1], 3: [3, 3, 1]}[views_per_file]
    assert (np.stack(list(written)) == expected).all()
    with pytest.raises(IndexError, match="views 6 to 8 of 7"):
        array.read(6, 8)
    with pytest.raises(ValueError):
        written[0] = np.zeros((4, 3))


def test_what_is_there_is_kept_and_what_is_other_is_not(tmp_path):
    ViewArrayWriter(array_of(tmp_path))[3] = 8
    assert ViewArrayWriter(array_of(tmp_path)).array.read(3, 4).max() == 8
    assert not ViewArrayWriter(array_of(tmp_path, shape=(6, 3, 4))).array.read(0, 6).any()


@pytest.mark.parametrize(
    ("gigabytes", "expected"), [(0, 0), (1, 0), (1e-6, 500), (0.9999e-6, 499), (1e-12, 1), (2e-6, 0), (1.99e-6, 995)]
)
def test_files_hold_at_most_what_is_asked_for(gigabytes, expected):
    assert StoreOptions(gigabytes).views_per_file("uint8", (1000, 2, 1)) == expected
    with pytest.raises(UserError, match="shard_gigabytes = -1"):
        StoreOptions(-1)


def test_a_divided_store_has_the_same_numbers(tmp_path, divided):
    write_store(tmp_path / "many", count=5)
    add_channel(tmp_path / "many", "label", lambda labels: labels.__setitem__(slice(2, 4), 3))
    gin.clear_config()
    write_store(tmp_path / "one", count=5)
    add_channel(tmp_path / "one", "label", lambda labels: labels.__setitem__(slice(2, 4), 3))
    many, one = ViewStore(tmp_path / "many"), ViewStore(tmp_path / "one")
    assert [path.name for path in many.files("rgb")] == ["rgb.0000.npy", "rgb.0001.npy", "rgb.0002.npy"]
    assert len(many.files("sh")) == 5 and len(many.files("depth")) == 2 and len(one.files("sh")) == 1
    assert all(path.stat().st_size <= TWO_VIEWS * 1e9 + 128 for path in many.files("rgb"))
    for name in one.channels:
        assert torch.equal(many.tensor(name), one.tensor(name)) and torch.equal(many.read(name, 3), one.read(name, 3))
    blocks = list(many.blocks("rgb"))
    assert torch.equal(torch.cat([block for _, block in blocks]), one.tensor("rgb"))
    assert json.loads((many.path / "meta.json").read_text())["channels"] == json.loads(
        (one.path / "meta.json").read_text())["channels"]  # so that what was made from it stays what it is


def test_an_unfinished_store_is_continued_as_it_was_begun(tmp_path, divided, resume):
    views = make_views(5)
    writer = ViewStoreWriter.create(tmp_path / "store", make_cameras(5), CHANNELS, {}, SH_RANGE)
    writer.write(3, {name: values[3] for name, values in views.items()})
    gin.clear_config()
    writer = ViewStoreWriter.create(tmp_path / "store", make_cameras(5), CHANNELS, {}, SH_RANGE)
    assert writer.pending() == [0, 1, 2, 4]
    writer.write([4, 0, 1, 2], {name: values[[4, 0, 1, 2]] for name, values in views.items()})
    store = writer.finish()
    assert len(store.files("sh")) == 5
    whole = ViewStoreWriter.create(tmp_path / "whole", make_cameras(5), CHANNELS, {}, SH_RANGE)
    whole.write(range(5), views)
    assert torch.equal(store.tensor("sh"), whole.finish().tensor("sh"))
    assert ViewStoreWriter.create(tmp_path / "store", make_cameras(5), CHANNELS, {}, SH_RANGE) is None


def test_a_channel_made_again_leaves_no_file_of_the_old_one(tmp_path, divided):
    write_store(tmp_path / "store", count=9)
    add_channel(tmp_path / "store", "label", lambda labels: labels.fill(1))
    assert len(ViewStore(tmp_path / "store").files("label")) == 2
    gin.clear_config()
    add_channel(tmp_path / "store", "label", lambda labels: labels.fill(2), overwrite=True)
    assert [path.name for path in (tmp_path / "store").glob("label*")] == ["label.npy"]
    assert ViewStore(tmp_path / "store").read("label", 8).max() == 2


def test_a_missing_or_short_file_is_found(tmp_path, divided):
    write_store(tmp_path / "views" / "store", count=5)
    path = tmp_path / "views" / "store" / "rgb.0001.npy"
    whole = path.read_bytes()
    assert verify(views_dir=str(tmp_path / "views"))["broken"] == 0
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"rgb\.0001\.npy is \d+ bytes long, expected \d+"):
        ViewStore(tmp_path / "views" / "store").check_channel("rgb")
    path.unlink()
    with pytest.raises(UserError, match="1 problems"):
        verify(views_dir=str(tmp_path / "views"))
    with pytest.raises(UserError, match=r"rgb\.0001\.npy does not exist"):
        ViewStore(tmp_path / "views" / "store").read("rgb", 0)


def test_blocks_cover_all_views_once_and_stay_small(tmp_path):
    writer = ViewStoreWriter.create(tmp_path / "s", make_cameras(9, (400, 500)), {"alpha": ("uint8", (400, 500))}, {})
    writer.write(range(9), {"alpha": torch.arange(9)[:, None, None].expand(9, 400, 500).to(torch.uint8)})
    blocks = [(views, block[:, 0, 0].tolist()) for views, block in writer.finish().blocks("alpha")]
    assert blocks == [(slice(0, 5), [0, 1, 2, 3, 4]), (slice(5, 9), [5, 6, 7, 8])]
    assert SIZE == (6, 8)  # on which TWO_VIEWS rests

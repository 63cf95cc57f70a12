"""What is drawn from which folder, and that class weights are those of what is drawn."""

import math
from collections import Counter

import pytest
import torch

from dataloader import StoreViews, ViewDataset, ViewStore
from enet.class_weights import class_weights
from enet.losses import ExpectedPixelWeights, pixel_weights
from enet.mixing import MixOptions, mixed_order, views_of_shares
from enet.module import SegmentationModule
from enet.options import (
    AugmentationOptions,
    LossOptions,
    NetworkOptions,
    OptimizerOptions,
    SplitOptions,
    ViewOptions,
)
from enet.splits import choose_views
from enet.statistics import compute_statistics
from enet.stored_views import StoredViews
from enet.training import Budget, TrainingOptions, train_once
from enet.view_source import TrainingOrder
from utils.errors import UserError

CPU = torch.device("cpu")
FOLDER = torch.tensor([0, 0, 0, 0, 1, 1])


def order_of(shares, total, seed=0):
    return mixed_order(FOLDER, shares, total, torch.Generator().manual_seed(seed))


def test_whole_numbers_of_views_add_up():
    assert views_of_shares((0.75, 0.25), 8) == [6, 2]
    assert views_of_shares((1 / 3, 1 / 3, 1 / 3), 10) == [4, 3, 3]
    assert views_of_shares((0.0, 1.0), 5) == [0, 5]


def test_every_folder_gives_its_share_in_whole_passes_and_a_part():
    order = order_of((0.25, 0.75), 12)
    times = Counter(order.tolist())
    assert sum(times[view] for view in range(4)) == 3 and max(times[view] for view in range(4)) == 1
    assert sorted(times[view] for view in (4, 5)) == [4, 5]
    assert torch.equal(order, order_of((0.25, 0.75), 12)) and not torch.equal(order, order_of((0.25, 0.75), 12, 1))
    assert len(set(FOLDER[order[:6]].tolist())) == 2  # mixed, not one folder after the other
    assert set(FOLDER[order_of((1.0, 0.0), 12)].tolist()) == {0}


def test_a_share_of_nothing_is_refused():
    with pytest.raises(UserError, match="folder 2 of train.views has a share of 0.5, but no training view"):
        order_of((0.5, 0.0, 0.5), 12)


def test_shares_go_linearly_to_the_last_ones():
    mix = MixOptions(shares=(0.6, 0.4), first_shares=(1.0, 0.0), ramp_epochs=4)
    assert mix.shares_at(0) == (1.0, 0.0)
    assert mix.shares_at(1) == pytest.approx((0.9, 0.1))
    assert mix.shares_at(4) == mix.shares_at(100) == (0.6, 0.4)
    assert MixOptions().shares_at(0) is None


def test_expected_draws_are_the_mean_of_the_epochs_over_the_views_of_a_folder():
    mix = MixOptions(shares=(0.6, 0.4), first_shares=(1.0, 0.0), ramp_epochs=2)
    draws = mix.expected_draws(FOLDER, epochs=4)  # shares of the second folder: 0, 0.2, 0.4, 0.4
    assert draws.tolist() == pytest.approx([0.75 * 6 / 4] * 4 + [0.25 * 6 / 2] * 2)
    assert draws.mean() == pytest.approx(1)
    assert MixOptions().expected_draws(FOLDER, 4).tolist() == [1.0] * 6


@pytest.mark.parametrize("bad", [
    {"shares": (0.5, 0.6)}, {"shares": (1.5, -0.5)}, {"first_shares": (1.0,)}, {"shares": (1.0,), "ramp_epochs": 3},
    {"shares": (0.5, 0.5), "first_shares": (1.0,), "ramp_epochs": 3}, {"shares": (1.0,), "first_shares": (1.0,)},
])  # fmt: skip
def test_shares_that_cannot_be_are_refused(bad):
    with pytest.raises(UserError, match="MixOptions"):
        MixOptions(**bad)


def test_there_is_a_share_for_every_folder():
    MixOptions(shares=(0.5, 0.5)).check(["a", "b"])
    with pytest.raises(UserError, match="MixOptions.shares has 2 entries, train.views has 3 folders"):
        MixOptions(shares=(0.5, 0.5)).check(["a", "b", "c"])


@pytest.fixture
def two_folders(make_store):
    return [StoreViews(make_store("a", count=6)), StoreViews(make_store("a", folder="novel", count=3), folder=1)]


def test_a_source_draws_the_mixture_and_the_same_over_processes(two_folders):
    mix = MixOptions(shares=(0.25, 0.75))
    source = StoredViews(two_folders, ViewOptions(), uses_sh=False, mix=mix)
    steps = source.training_steps(TrainingOrder(16, 4, seed=1), epoch=2)
    views = torch.cat([step.views for step in steps])
    assert (views < 6).sum() == 4 and len(views) == 16
    halves = [source.training_steps(TrainingOrder(16, 2, 1, rank, 2), epoch=2) for rank in range(2)]
    for whole, first, second in zip(steps, *halves, strict=True):
        assert sorted(whole.views.tolist()) == sorted(first.views.tolist() + second.views.tolist())
    plain = StoredViews(two_folders, ViewOptions(), uses_sh=False)
    natural = TrainingOrder(16, 4, seed=1).shuffled(9, plain.num_draws, 2)
    assert torch.equal(plain.training_steps(TrainingOrder(16, 4, seed=1), 2)[0].views, natural[0].views)


def test_class_weights_are_those_of_the_views_drawn(two_folders):
    """A class that only novel views show is as common as they are drawn, however many of them there are."""
    stores = [ViewStore(entry.path) for entry in two_folders]
    source = StoredViews(two_folders, ViewOptions(), uses_sh=False, mix=MixOptions(shares=(0.25, 0.75)))
    statistics = compute_statistics(source, 2, CPU, source.expected_draws(epochs=3))
    shares = [torch.bincount(store.tensor("label").flatten().long(), minlength=21).double() for store in stores]
    expected = sum(part * counts / counts.sum() for part, counts in zip((0.25, 0.75), shares, strict=True))
    assert torch.allclose(statistics.class_pixels / statistics.class_pixels.sum(), expected)
    weights = class_weights("enet", statistics.class_pixels, statistics.view_pixels)
    assert float(weights[1]) == pytest.approx(1 / math.log(1.02 + float(expected[1])), rel=1e-6)


def test_class_weights_count_pixels_as_the_loss_does(two_folders):
    loss = LossOptions(quality=True, min_quality=0.4)
    source = StoredViews(two_folders, ViewOptions(), uses_sh=False, weighted=True)
    counted = ExpectedPixelWeights.of(loss, epochs=5)
    statistics = compute_statistics(source, 2, CPU, source.expected_draws(5), counted)
    stores = [ViewStore(entry.path) for entry in two_folders]
    labels = torch.cat([store.tensor("label") for store in stores])
    quality = torch.cat([store.tensor("quality") for store in stores]).float() / 255
    for index in (1, 9):
        chosen = (labels == index) & (quality >= 0.4)
        assert float(statistics.class_pixels[index]) == pytest.approx(float(quality[chosen].double().sum()), rel=1e-6)


def test_pixels_below_the_threshold_do_not_count():
    quality = torch.tensor([[[0.0, 0.3, 0.5, 1.0]]])
    assert pixel_weights(quality, torch.tensor(0.5), False).tolist() == [[[0.0, 0.0, 1.0, 1.0]]]
    assert pixel_weights(quality, torch.tensor(0.5), True).tolist() == [[[0.0, 0.0, 0.5, 1.0]]]
    assert pixel_weights(quality, torch.tensor(0.0), True).tolist() == quality.tolist()


def test_the_threshold_goes_linearly_to_the_last_one():
    loss = LossOptions(min_quality=0.2, first_min_quality=0.6, quality_epochs=4)
    assert [loss.min_quality_at(epoch) for epoch in (0, 1, 4, 9)] == pytest.approx([0.6, 0.5, 0.2, 0.2])
    expected = ExpectedPixelWeights.of(loss, epochs=8)  # 0.6, 0.5, 0.4, 0.3, and four times 0.2
    assert expected(torch.tensor([0.1, 0.2, 0.45, 0.7])).tolist() == pytest.approx([0.0, 4 / 8, 6 / 8, 1.0])
    weighed = ExpectedPixelWeights.of(LossOptions(quality=True, min_quality=0.2), epochs=2)
    assert weighed(torch.tensor([0.1, 0.5])).tolist() == pytest.approx([0.0, 0.5])


def test_a_training_step_leaves_out_bad_pixels_by_its_epochs_threshold(two_folders, make_store, tmp_path, monkeypatch):
    """The loss of every step is that of the kept pixels alone, with the threshold of its epoch."""
    loss = LossOptions(class_weights="none", min_quality=0.2, first_min_quality=0.8, quality_epochs=2)
    source = StoredViews(two_folders, ViewOptions(), uses_sh=False, weighted=True)
    validation = StoredViews([make_store("b")], ViewOptions(), uses_sh=False)
    seen = []

    def spy(module, batch, compute=SegmentationModule._loss_and_prediction):
        found = compute(module, batch)
        if module.training:
            views = batch.resolve()
            kept = (views.weight >= loss.min_quality_at(module.current_epoch)) & (views.label != 0)
            seen.append((float(found[1]), int(kept.sum())))
        return found

    monkeypatch.setattr(SegmentationModule, "_loss_and_prediction", spy)
    options = TrainingOptions(NetworkOptions(), ViewOptions(), AugmentationOptions(), loss, OptimizerOptions(),
                              MixOptions(shares=(0.5, 0.5)))  # fmt: skip
    train_once(tmp_path / "run", source, validation, options, Budget(epochs=3, batch_size=4, epoch_views=8), CPU)
    assert len(seen) == 6 and all(counted == kept for counted, kept in seen)
    assert seen[0][1] < seen[2][1] < seen[4][1]


@pytest.mark.parametrize("bad", [{"min_quality": 1.1}, {"first_min_quality": 0.5}, {"quality_epochs": 2}])
def test_thresholds_that_cannot_be_are_refused(bad):
    with pytest.raises(UserError, match="LossOptions"):
        LossOptions(**bad)


def test_a_folder_may_come_twice_with_photographs_and_renders(make_store):
    path = make_store("a", count=2)
    dataset = ViewDataset([StoreViews(path, color="photo"), StoreViews(path, color="rgb", folder=1)], color="photo")
    store = ViewStore(path)
    assert torch.equal(dataset[1]["color"], store.read("photo", 1))
    assert torch.equal(dataset[3]["color"], store.read("rgb", 1))
    assert torch.equal(dataset.stored_batch(torch.tensor([2]))["color"][0], store.read_stored("rgb", 0))
    assert dataset.folder_of_view.tolist() == [0, 0, 1, 1] and dataset.channels == ["photo", "rgb", "label"]


def test_held_out_views_are_left_out_of_renders_of_the_same_store(make_store):
    views = make_store("room", count=7).parent
    training, validation = choose_views([views, views], SplitOptions(val_every=3), 0, ["photo", "rgb"])
    assert [(entry.indices, entry.color, entry.folder) for entry in training] == [
        ((1, 2, 4, 5), "photo", 0), ((1, 2, 4, 5), "rgb", 1)]
    assert [(entry.indices, entry.color) for entry in validation] == [((0, 3, 6), "photo")]

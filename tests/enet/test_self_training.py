"""Training with predicted labels: what is read, what counts, what the record says, and what is refused."""

import gin
import numpy as np
import pytest
import torch

from dataloader import StoreViews, ViewDataset, ViewStore
from dataloader.predicted_labels import PredictedLabels
from enet import load_checkpoint
from enet.options import SelfTrainingOptions, ViewOptions
from enet.stored_views import StoredViews
from enet.task_test import test as run_test
from enet.task_train import train
from tests.enet.bindings import bind_split
from tests.enet.conftest import CLASSES, SIZE
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.identity import file_identity

LABELLED, PREDICTED, VALIDATED, TESTED = (f"scene000{room}_00" for room in range(4))


@pytest.fixture
def fused(views, tmp_path):
    """``fused()`` writes labels of PREDICTED as 'fuse' does: class 5 everywhere, sure on the left half alone."""

    def write(trained_on=(LABELLED, VALIDATED), labels=None, folder="fused"):
        target, store = tmp_path / folder / PREDICTED, ViewStore(views / PREDICTED)
        target.mkdir(parents=True)
        shape = (len(store), *SIZE)
        np.save(target / "label.npy", np.full(shape, 5, np.uint8) if labels is None else labels)
        confidence = np.zeros(shape, np.uint8)
        confidence[..., : SIZE[1] // 2] = 204
        np.save(target / "confidence.npy", confidence)
        write_json(target / "settings.json", {"cameras": file_identity(store.path / "cameras.json")})
        write_json(target / "source.json", {"trained_on": None if trained_on is None else list(trained_on)})
        return tmp_path / folder

    return write


def without(store, channel):
    """The store as it would be if nobody had made the channel."""
    (store / f"{channel}.npy").unlink()
    meta = read_json(store / "meta.json")
    write_json(store / "meta.json", {**meta, "channels": {k: v for k, v in meta["channels"].items() if k != channel}})


def start(views, tmp_path, folder, scenes=(PREDICTED,), name="run", **bindings):
    bind_split(train=(LABELLED,), val=(VALIDATED,), test=(TESTED,))
    gin.bind_parameter("SelfTrainingOptions.scenes", list(scenes))
    gin.bind_parameter("SelfTrainingOptions.fused_dir", str(folder))
    for key, value in bindings.items():
        gin.bind_parameter(f"LossOptions.{key}", value)
    return train(views=[str(views)], runs_dir=str(tmp_path / "runs"), name=name, epochs=1, batch_size=4, device="cpu")


def test_predicted_labels_and_confidence_stand_for_the_stores_own(views, fused):
    labels = PredictedLabels(fused() / PREDICTED)
    chosen = [StoreViews(views / LABELLED), StoreViews(views / PREDICTED, indices=(2, 5), predicted=labels)]
    own = ViewStore(views / LABELLED)
    without(views / PREDICTED, "label")
    dataset = ViewDataset(chosen, weighted=True)
    assert len(dataset) == 10
    assert torch.equal(dataset[3]["label"], own.read("label", 3))
    assert torch.equal(dataset[3]["weight"], own.read("quality", 3))
    assert (dataset[8]["label"] == 5).all() and dataset[8]["label"].dtype == torch.int64
    assert torch.equal(dataset[8]["color"], ViewStore(views / PREDICTED).read("rgb", 2))
    half = SIZE[1] // 2
    assert (dataset[9]["weight"][:, :half] == 0.8).all() and (dataset[9]["weight"][:, half:] == 0).all()
    stored = dataset.stored_batch(torch.tensor([0, 9]))
    assert stored["label"].dtype == stored["weight"].dtype == torch.uint8 and (stored["label"][1] == 5).all()
    assert "weight" not in ViewDataset(chosen)[8]


def test_labels_are_part_of_the_views_identity(views, fused):
    def identity(folder):
        chosen = StoreViews(views / PREDICTED, predicted=PredictedLabels(folder / PREDICTED))
        return StoredViews([chosen], ViewOptions(), False).identity()

    first = identity(fused())
    other = np.full((8, *SIZE), 9, np.uint8)
    assert identity(fused(labels=other, folder="others")) != first
    without(views / PREDICTED, "label")
    assert identity(fused(folder="again")) == first, "the store's own are none"


def test_a_training_reads_no_labels_of_these_rooms_and_says_whose_are_predicted(views, fused, tmp_path):
    folder = fused(trained_on=(LABELLED, VALIDATED, "scene0042_00"))
    without(views / PREDICTED, "label")
    results = start(views, tmp_path, folder, quality=True, min_quality=0.5)
    assert results["training_views"] == 16
    said = {"scenes": [PREDICTED], "fused_dir": str(folder),
            "network_trained_on": [LABELLED, VALIDATED, "scene0042_00"]}  # fmt: skip
    assert results["predicted_labels"] == said
    training = tmp_path / "runs/run/training"
    assert read_json(training / "results.json")["predicted_labels"] == said
    entries = {entry["scene"]: entry for entry in read_json(training / "settings.json")["training"]}
    assert "predicted_labels" in entries[PREDICTED] and "predicted_labels" not in entries[LABELLED]
    known = load_checkpoint(training / "best.ckpt").hparams["scenes"]
    assert known == [LABELLED, PREDICTED, VALIDATED, "scene0042_00"], "also what the labelling network has learned from"


def test_pixels_count_by_confidence(views, fused, tmp_path):
    """Class weights are of what counts: all pixels of the labelled room, and the sure half of the other by 0.8."""
    for store in (views / LABELLED, views / PREDICTED):  # which then counts in full
        without(store, "quality")
    start(views, tmp_path, fused(), quality=True, min_quality=0.5)
    own = torch.bincount(ViewStore(views / LABELLED).tensor("label").long().flatten(), minlength=21).double()
    own[5] += 0.8 * 8 * SIZE[0] * (SIZE[1] // 2)
    share = own / own.sum()
    weights = load_checkpoint(tmp_path / "runs/run/training/last.ckpt").class_weights.double()
    present = [index for index in CLASSES if index]
    torch.testing.assert_close(weights[present], 1 / torch.log(1.02 + share[present]), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "scene, other", [(LABELLED, "train_scenes"), (VALIDATED, "val_scenes"), (TESTED, "test_scenes")]
)
def test_a_room_in_another_list_is_refused(scene, other, views, fused, tmp_path):
    with pytest.raises(UserError, match=f"SelfTrainingOptions.scenes holds {scene} and {other} holds {scene}"):
        start(views, tmp_path, fused(), scenes=[scene])


@pytest.mark.parametrize("seen, other", [(PREDICTED, "SelfTrainingOptions.scenes"), ("scene0003_01", "test_scenes")])
def test_a_network_that_has_seen_what_it_must_not_is_refused(seen, other, views, fused, tmp_path):
    with pytest.raises(UserError, match=f"network that predicted labels holds {seen} and {other} holds"):
        start(views, tmp_path, fused(trained_on=(LABELLED, seen)))
    assert not (tmp_path / "runs").exists()


def test_labels_of_unknown_origin_are_named(views, fused, tmp_path, caplog):
    start(views, tmp_path, fused(trained_on=None))
    assert "has seen is not known" in caplog.text


def test_labels_that_do_not_fit_are_refused(views, fused, tmp_path):
    with pytest.raises(UserError, match="label.npy does not exist; predict this scene's labels by 'fuse'"):
        start(views, tmp_path, tmp_path / "nowhere")
    folder = fused()
    settings = folder / PREDICTED / "settings.json"
    known = read_json(settings)
    write_json(settings, {"cameras": "sha256:0"})
    with pytest.raises(UserError, match="holds labels of other views"):
        start(views, tmp_path, folder)
    write_json(settings, {**known, "classes": ["unannotated", "thing"]})
    with pytest.raises(UserError, match="holds labels of other classes"):
        start(views, tmp_path, folder)
    short = fused(labels=np.zeros((7, *SIZE), np.uint8), folder="short")
    with pytest.raises(UserError, match=r"label.npy holds uint8 \[7, 24, 27\]; the store says uint8 \[8, 24, 27\]"):
        start(views, tmp_path, short)
    ids = fused(labels=np.full((8, *SIZE), 39, np.uint8), folder="ids")
    with pytest.raises(UserError, match="label.npy holds class 39 in view 0; expected class indices 0..20"):
        start(views, tmp_path, ids)


def test_all_means_all_others(views, fused, tmp_path):
    folder = fused()
    bind_split(train="all", val=(VALIDATED,), test=(TESTED,))
    gin.bind_parameter("SelfTrainingOptions.scenes", [PREDICTED])
    gin.bind_parameter("SelfTrainingOptions.fused_dir", str(folder))
    plan = train.plan(views=[str(views)], runs_dir=str(tmp_path / "runs"), name="run", epochs=1, device="cpu")
    assert "1 epochs on 16 views" in plan.items[0].detail


@pytest.mark.parametrize("options", [{"scenes": ["a"]}, {"fused_dir": "a"}, {"scenes": "all", "fused_dir": "a"}])
def test_both_options_are_needed(options):
    with pytest.raises(UserError, match="set both or neither|name the scenes"):
        SelfTrainingOptions(**options)


def test_a_test_of_the_labelled_rooms_says_they_were_seen(views, fused, tmp_path):
    start(views, tmp_path, fused())
    checkpoint = str(tmp_path / "runs/run/training/best.ckpt")
    scores = run_test(checkpoint, [str(views)], str(tmp_path / "test"), scenes=[PREDICTED, TESTED], device="cpu")
    assert scores["rooms_seen_in_training"] == ["scene0001"]

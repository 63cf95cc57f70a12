"""Checkpoints of trainings that were tampered with or damaged: no code runs, and each is one named error."""

import pytest
import torch

from enet.checkpoints import load_checkpoint
from enet.module import SegmentationModule
from enet.task_train import train
from tests.enet.bindings import bind_split
from utils.errors import UserError
from utils.outputs import partial_path

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def content() -> dict:
    module = SegmentationModule(network={"stem": "rgb"}, views={"color": "rgb"}, scenes=["scene0000_00"])
    return {"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict(), "epoch": 1}


def _hparams(**changes):
    return lambda content: {**content, "hyper_parameters": {**content["hyper_parameters"], **changes}}


def _weights(**changes):
    return lambda content: {**content, "state_dict": {**content["state_dict"], **changes}}


def _nan(content):
    name, values = next((name, values) for name, values in content["state_dict"].items() if values.dim() == 4)
    return _weights(**{name: torch.full_like(values, float("nan"))})(content)


def test_an_unharmed_one_is_read(content, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    module = load_checkpoint(tmp_path / "a.ckpt", CPU)
    assert not module.training and module.hparams["scenes"] == ["scene0000_00"]
    assert all(torch.equal(module.state_dict()[name], values) for name, values in content["state_dict"].items())


@pytest.mark.parametrize(
    "change",
    [
        _hparams(_instantiator="antigravity.geohash"), _hparams(network="x"), _hparams(network=None),
        _hparams(network={"backbone": "nope", "stem": "rgb"}), _hparams(network={"stem": "rgb", "evil": 1}),
        _hparams(network={"stem": "rgb", "dropout": "ab"}), _hparams(network={"stem": "concat"}),
        _hparams(size="ab"), _hparams(size=[124]), _hparams(size=[124, 0]), _hparams(size=[124, 10**12]),
        _hparams(labels=["wall"]), _hparams(labels=3), _hparams(views={"evil": 1}), _hparams(views=3),
        _hparams(scenes=None), _hparams(scenes=[1]),
        lambda content: {**content, "hyper_parameters": [1]}, lambda content: {**content, "state_dict": [1]},
        lambda content: {"state_dict": content["state_dict"]}, lambda content: {**content, "state_dict": {}},
        _weights(more=torch.zeros(3)), _weights(class_weights=torch.zeros(7)), _weights(class_weights="x"), _nan,
        _weights(color_std=torch.full((3,), float("inf"))),
    ],
    ids=range(26),
)  # fmt: skip
def test_what_is_no_network_of_this_project_is_refused(content, tmp_path, change):
    torch.save(change(content), tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="a.ckpt") as caught:
        load_checkpoint(tmp_path / "a.ckpt", CPU)
    assert "\n" not in str(caught.value)


DAMAGES = (
    lambda content: content.pop("optimizer_states"), lambda content: content.update(loops={"fit_loop": 5}),
    lambda content: content.update(state_dict={}), lambda content: content.update(callbacks="x"),
    lambda content: content.update(loops=None), lambda content: content.update(epoch="x"),
    lambda content: content.update({"pytorch-lightning_version": "x.y"}),
)  # fmt: skip


def test_a_training_is_not_resumed_from_a_damaged_state(views, tmp_path, monkeypatch, resume):
    bind_split()
    options = {"views": [str(views)], "runs_dir": str(tmp_path), "name": "run", "batch_size": 4, "device": "cpu"}
    train_epoch_end = SegmentationModule.on_train_epoch_end

    def killed(module):
        train_epoch_end(module)
        if module.current_epoch == 1:
            raise ConnectionError("killed")

    monkeypatch.setattr(SegmentationModule, "on_train_epoch_end", killed)
    with pytest.raises(ConnectionError, match="killed"):
        train(epochs=3, **options)
    last = partial_path(tmp_path / "run/training") / "last.ckpt"
    whole = last.read_bytes()
    for change in DAMAGES:
        last.write_bytes(whole)
        content = torch.load(last, weights_only=True)
        change(content)
        torch.save(content, last)
        with pytest.raises(UserError, match="last.ckpt cannot be read as the state of an interrupted training.*again"):
            train(epochs=3, **options)
    last.write_bytes(whole)
    with pytest.raises(ConnectionError, match="killed"):  # what fails after the state was taken over stays what it is
        train(epochs=3, **options)

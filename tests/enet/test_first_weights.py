"""Trainings that begin with the weights of another one."""

from dataclasses import asdict
from pathlib import Path

import gin
import pytest
import torch

from enet import load_checkpoint
from enet.first_weights import FirstWeights
from enet.module import SegmentationModule
from enet.options import NetworkOptions, ViewOptions
from enet.task_train import train
from tests.enet.bindings import bind_split
from utils.errors import UserError

SH_STEM = {"stem": "conv_sum"}


@pytest.fixture(autouse=True)
def clean_config():
    yield
    gin.clear_config()


def module_of(network: dict, seed: int, scenes: tuple[str, ...] = ()) -> SegmentationModule:
    return SegmentationModule(asdict(NetworkOptions(**network)), views=asdict(ViewOptions()), scenes=scenes,
                              size=(24, 27), seed=seed)  # fmt: skip


def saved(path: Path, network: dict, seed: int, scenes: tuple[str, ...] = ()) -> Path:
    module = module_of(network, seed, scenes)
    torch.save({"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, path)
    return path


def test_all_weights_are_taken_by_an_equal_network(tmp_path):
    first = FirstWeights(saved(tmp_path / "a.ckpt", {}, 1))
    module, other = module_of({}, 2), module_of({}, 1)
    module.color_mean.fill_(0.25)
    first.load_into(module)
    for name, values in module.network.state_dict().items():
        assert torch.equal(values, other.network.state_dict()[name]), name
    assert torch.equal(module.color_mean, torch.full((3,), 0.25))  # of the new views


@pytest.mark.parametrize("there, wanted, random", [
    (SH_STEM, {}, set()),
    ({}, SH_STEM, {"stem.sh_to_convolved.weight", "stem.sh_to_pooled.weight"}),
    ({"stem": "conv_sum", "inputs": ("sh", "depth")}, SH_STEM,
     {"stem.sh_to_convolved.weight", "stem.sh_to_pooled.weight"}),
])  # fmt: skip
def test_of_another_stem_what_fits_is_taken(tmp_path, there, wanted, random):
    first = FirstWeights(saved(tmp_path / "a.ckpt", there, 1))
    module, teacher, untouched = module_of(wanted, 2), module_of(there, 1), module_of(wanted, 2)
    first.load_into(module)
    for name, values in module.network.state_dict().items():
        source = untouched if name in random else teacher
        assert torch.equal(values, source.network.state_dict()[name]), name
    assert not torch.equal(module.network.stem.color.weight, untouched.network.stem.color.weight)


def test_another_network_is_refused(tmp_path):
    first = FirstWeights(saved(tmp_path / "a.ckpt", {}, 1))
    with pytest.raises(UserError, match="a.ckpt' holds another network than NetworkOptions gives: it lacks"):
        first.check(NetworkOptions(backbone="segformer_b0"))
    with pytest.raises(UserError, match="choose one"):
        first.check(NetworkOptions(backbone="efficientnet_lite0", pretrained=True))


def test_a_training_begins_with_it_and_knows_its_scenes(views, tmp_path):
    """At a learning rate of nothing the weights stay those of the checkpoint."""
    path = saved(tmp_path / "a.ckpt", {}, 5, ("scene0042_00",))
    bind_split()
    gin.bind_parameter("OptimizerOptions.learning_rate", 0.0)
    arguments = {"views": [str(views)], "runs_dir": str(tmp_path), "name": "run", "epochs": 1, "batch_size": 4,
                 "device": "cpu"}  # fmt: skip
    train(**arguments, start=str(path))
    found = load_checkpoint(tmp_path / "run/training/last.ckpt")
    expected = module_of({}, 5).network
    for name, values in expected.named_parameters():
        assert torch.equal(found.network.state_dict()[name], values), name
    assert "scene0042_00" in found.hparams["scenes"] and len(found.hparams["scenes"]) > 1
    assert train.plan(**arguments, start=str(path)).finished
    with pytest.raises(UserError, match="other settings .*start"):
        train.plan(**arguments)
    with pytest.raises(UserError, match="none.ckpt"):
        train.plan(**{**arguments, "name": "other"}, start=str(tmp_path / "none.ckpt"))

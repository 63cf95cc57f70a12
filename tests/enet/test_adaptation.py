"""Task ``adapt``: batch normalisation takes the statistics of other views, and nothing else changes."""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from enet import load_checkpoint
from enet.adaptation import adapt_norms, spread_steps
from enet.module import SegmentationModule
from enet.options import NetworkOptions, ViewOptions
from enet.stored_views import StoredViews
from enet.task_adapt import adapt
from enet.task_test import test as run_test
from utils.errors import UserError

STATISTICS = ("running_mean", "running_var")
SCENE = "scene0000_00"


@pytest.fixture
def network(tmp_path) -> Path:
    module = SegmentationModule(asdict(NetworkOptions()), views=asdict(ViewOptions()), scenes=["scene0042_00"], seed=4)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(2.0)
    torch.save({"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, tmp_path / "net.ckpt")
    return tmp_path / "net.ckpt"


def source_of(views) -> StoredViews:
    return StoredViews([views / SCENE], ViewOptions(cache=False, workers=0), False)


def norms_of(module) -> dict[str, nn.BatchNorm2d]:
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d)}


def seen_by_norms(module, source, steps) -> dict[str, list[torch.Tensor]]:
    """What each normalisation is given, batch by batch, where all of them normalise by the batch."""
    seen = {name: [] for name in norms_of(module)}
    hooks = [layer.register_forward_pre_hook(lambda _, given, name=name: seen[name].append(given[0].detach()))
             for name, layer in norms_of(module).items()]  # fmt: skip
    module.eval()
    for layer in norms_of(module).values():
        layer.train()
        layer.momentum = 0.0
    with torch.no_grad():
        for batch in source.batches(steps, torch.device("cpu")):
            views = batch.resolve()
            module(views.color, views.sh, views.geometry)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_statistics_are_those_of_the_views_in_every_layer(network, views, share):
    source = source_of(views)
    steps = spread_steps(len(source), 3)
    seen = seen_by_norms(load_checkpoint(network), source, steps)
    module, before = load_checkpoint(network), norms_of(load_checkpoint(network))
    adapt_norms(module, source, share, 3)
    assert len(before) > 50 and not any(layer.training for layer in module.modules())
    for name, layer in norms_of(module).items():
        mean = torch.stack([given.mean((0, 2, 3)) for given in seen[name]]).mean(0)
        variance = torch.stack([given.var((0, 2, 3)) for given in seen[name]]).mean(0)
        torch.testing.assert_close(layer.running_mean, torch.lerp(before[name].running_mean, mean, share), msg=name)
        torch.testing.assert_close(layer.running_var, torch.lerp(before[name].running_var, variance, share), msg=name)
        assert layer.momentum == before[name].momentum


def test_nothing_else_changes_and_labels_are_not_read(network, views, tmp_path):
    for folder in ("labelled", "other"):
        shutil.copytree(views / SCENE, tmp_path / folder / SCENE)
    labels = np.load(tmp_path / "other" / SCENE / "label.npy", mmap_mode="r+")
    labels[:] = labels.max() - labels
    labels.flush()
    found = []
    for folder in ("labelled", "other"):
        adapt(str(network), [str(tmp_path / folder)], str(tmp_path / f"{folder}_out"), device="cpu")
        found.append(load_checkpoint(tmp_path / f"{folder}_out/network/best.ckpt"))
    before = load_checkpoint(network).state_dict()
    moved = 0
    for name, values in found[0].state_dict().items():
        assert torch.equal(values, found[1].state_dict()[name]), name
        if name.endswith((*STATISTICS, "num_batches_tracked")):
            moved += not torch.equal(values, before[name])
        else:
            assert torch.equal(values, before[name]), name
    assert moved > 100
    assert dict(found[0].hparams) == dict(load_checkpoint(network).hparams)


def test_every_task_takes_the_network_and_other_settings_are_refused(network, views, tmp_path):
    arguments = {"views": [str(views)], "output_dir": str(tmp_path / "out"), "device": "cpu"}
    told = adapt(str(network), **arguments, scenes=[SCENE])
    assert told["scenes"] == [SCENE] and told["views"] == len(source_of(views))
    path = tmp_path / "out/network/best.ckpt"
    scores = run_test(str(path), [str(views)], str(tmp_path / "test"), device="cpu", samples=0)
    assert scores["views"] > 0
    written = path.read_bytes()
    assert adapt(str(network), **arguments, scenes=[SCENE]) == told and path.read_bytes() == written
    with pytest.raises(UserError, match="other settings .*share"):
        adapt(str(network), **arguments, scenes=[SCENE], share=0.5)
    adapt(str(network), **arguments, scenes=[SCENE], share=0.5, overwrite=True)
    assert path.read_bytes() != written


def test_batches_hold_every_view_once_from_all_over():
    steps = spread_steps(23, 5)
    assert sorted(torch.cat([step.views for step in steps]).tolist()) == list(range(23))
    assert {len(step.views) for step in steps} == {4, 5} and len(steps) == 5
    assert all(step.views.max() - step.views.min() >= 15 for step in steps)


def test_what_cannot_be_adapted_is_refused(network, views, tmp_path):
    for options, message in (({"share": 0.0}, "adapt.share = 0.0"), ({"share": 1.5}, "adapt.share = 1.5"),
                             ({"batch_size": 1}, "adapt.batch_size = 1")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            adapt(str(network), [str(views)], str(tmp_path / "out"), device="cpu", **options)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(UserError, match="foreign.ckpt is another project's network"):
        adapt(str(foreign), [str(views)], str(tmp_path / "out"), device="cpu")
    module = load_checkpoint(network)
    few = StoredViews([views / SCENE], ViewOptions(cache=False, workers=0), False)
    few.__class__ = type("Few", (StoredViews,), {"__len__": lambda self: 7})
    with pytest.raises(UserError, match="7 views are too few"):
        adapt_norms(module, few, 1.0, 4)
    with torch.no_grad():
        next(iter(norms_of(module).values())).weight.fill_(torch.inf)
    with pytest.raises(UserError, match="NaN or infinity on these views"):
        adapt_norms(module, source_of(views), 1.0, 5)

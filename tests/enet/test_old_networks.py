"""Network files of the original project and of ENet-ScanNet: as they are, and as others have saved them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from enet import ENet, load_checkpoint
from enet.task_test import test as run_test
from tests.enet.old_networks import encoder, original_state
from tests.enet.test_golden_network import NETWORKS, assert_close, draw, original_network
from tests.lib.plenoxel_scenes import GOLDEN_CUT
from utils.errors import UserError
from utils.labels import label_set

STEMS = ("rgb", "concat", "conv_concat", "conv_sum")


def shaken(network: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics that are not those of a new network."""
    for name, values in network.state_dict().items():
        if name.endswith("running_mean"):
            values.copy_(0.2 * torch.randn(values.shape))
        if name.endswith("running_var"):
            values.copy_(torch.rand(values.shape) + 0.5)
    return network.eval()


def original_file(path, state, **changes):
    content = {"epoch": 420, "miou": 0.3898, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}
    torch.save({**content, **changes}, path)
    return path


def images(count=1, size=(40, 48), uses_sh=True):
    return torch.rand(count, 3, *size), torch.randn(count, 27, *size) if uses_sh else None


def normalised(module, color, sh):
    pairs = ((color, module.color_mean, module.color_std), (sh, module.sh_mean, module.sh_std))
    return [None if x is None else (x - mean[:, None, None]) / std[:, None, None] for x, mean, std in pairs]


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_logits_of_the_original(name, tmp_path):
    stem, seed = NETWORKS[name]
    network, x = draw(stem, seed)
    module = load_checkpoint(original_file(tmp_path / "420.ckpt", original_state(network, stem)))
    with np.load(GOLDEN_CUT, allow_pickle=False) as file:
        pixels, expected = torch.from_numpy(file[f"{name}/pixels"]), file[f"{name}/y"]
    assert_close(module.network(x[:, :3], x[:, 3:])[0].detach().flatten(1)[:, pixels], expected)
    color = x[:, :3] * module.color_std[:, None, None] + module.color_mean[:, None, None]
    sh = x[:, 3:] * module.sh_std[:, None, None] + module.sh_mean[:, None, None] if stem != "rgb" else None
    probabilities = module.predict(color, sh)[0].flatten(1)[:, pixels]
    torch.testing.assert_close(probabilities, torch.from_numpy(expected).softmax(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_golden_files(name, shared_dir):
    module = load_checkpoint(shared_dir / "golden" / f"{name}.ckpt")
    with np.load(shared_dir / "golden" / f"{name}.npz", allow_pickle=False) as file:
        x, expected = torch.from_numpy(file["x"]).float(), file["y"]
    assert_close(module.network(x[:, :3], x[:, 3:]).detach(), expected)


@pytest.mark.parametrize("stem, color, expected", [
    ("rgb", None, "photo"), ("conv_sum", None, "rgb"), ("rgb", "rgb", "rgb"), ("conv_sum", "photo", "photo"),
])  # fmt: skip
def test_normalisation_follows_what_the_network_saw(stem, color, expected, tmp_path):
    path = original_file(tmp_path / "a.ckpt", original_state(ENet(21, stem), stem))
    module = load_checkpoint(path, color=color)
    assert module.hparams["views"]["color"] == expected
    mean, std = {"photo": (0.440796, 0.277856), "rgb": (0.39241619, 0.28362849)}[expected]
    assert float(module.color_mean[2]) == pytest.approx(mean) and float(module.color_std[0]) == pytest.approx(std)
    assert float(module.sh_mean[9]) == pytest.approx(-0.04009821)
    assert float(module.sh_std[26]) == pytest.approx(0.52761967)


WRAPPED = {
    "as it is": lambda state: {"state_dict": state, "epoch": 1},
    "weights alone": lambda state: state,
    "processes": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "compiled": lambda state: {"state_dict": {f"_orig_mod.{name}": value for name, value in state.items()}},
    "both": lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    "both the other way": lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    "doubles": lambda state: {name: value.double() for name, value in state.items()},
    "parameters": lambda state: {name: nn.Parameter(value) for name, value in state.items()},
    "counters": lambda state: {**state, "initial_block.batch_norm.num_batches_tracked": torch.tensor(7),
                               "upsample4_0.ext_tconv1_bnorm.num_batches_tracked": torch.tensor(7)},
    "a NumPy number beside": lambda state: {"state_dict": state, "miou": np.float64(0.3), "best": np.float32(1)},
}  # fmt: skip


@pytest.mark.parametrize("wrapped, stem", [
    *(("as it is", stem) for stem in STEMS), *((wrapped, "conv_sum") for wrapped in list(WRAPPED)[1:]),
])  # fmt: skip
def test_files_as_others_have_saved_them(wrapped, stem, tmp_path):
    network = shaken(original_network(stem))
    torch.save(WRAPPED[wrapped](original_state(network, stem)), tmp_path / "a.pth")
    module = load_checkpoint(tmp_path / "a.pth")
    assert not module.training and module.network.uses_sh == (stem != "rgb")
    color, sh = images(uses_sh=stem != "rgb")
    expected = network(*normalised(module, color, sh)).detach()
    assert expected.std() > 1e-3
    torch.testing.assert_close(module(color, sh).detach(), expected, rtol=0, atol=1e-6)
    assert torch.equal(module.predict(color, sh), module(color, sh).detach().softmax(1))


def test_half_precision_is_widened(tmp_path):
    network = shaken(original_network("conv_sum"))
    state = {name: value.half() for name, value in original_state(network, "conv_sum").items()}
    module = load_checkpoint(original_file(tmp_path / "a.ckpt", state))
    assert {values.dtype for values in module.network.parameters()} == {torch.float32}
    views = images()
    error = (module(*views) - network(*normalised(module, *views))).abs().max()
    assert 0 < error < 1e-2 * module(*views).abs().max()


def test_seven_and_six_are_not_the_only_way_to_concatenate(tmp_path):
    state = original_state(original_network("conv_concat"), "conv_concat")
    state["initial_block.main_branch.weight"] = torch.rand(4, 3, 3, 3)
    state["initial_block.sh_branch.weight"] = torch.rand(9, 27, 3, 3)
    module = load_checkpoint(original_file(tmp_path / "a.ckpt", state))
    assert torch.equal(module.network.stem.color.weight, state["initial_block.main_branch.weight"])
    assert module.predict(*images()).shape == (1, 21, 40, 48)


def test_older_files_have_a_relu_in_upsampling_as_here(tmp_path):
    network = shaken(ENet(21, "rgb"))
    state = original_state(network, "rgb")
    state = {name.replace("out_activation", "out_prelu"): value for name, value in state.items()}
    module = load_checkpoint(original_file(tmp_path / "a.ckpt", state))
    color, _ = images()
    torch.testing.assert_close(module(color), network(*normalised(module, color, None)), rtol=0, atol=1e-6)


def test_the_oldest_files_pool_and_unpool_over_three_pixels(tmp_path):
    network = shaken(ENet(21, "rgb"))
    state = {}
    for name, value in original_state(network, "rgb").items():
        name = name.replace("out_activation", "out_prelu")
        if name.startswith("upsample"):
            name = name.replace("ext_conv2", "ext_conv3").replace("ext_tconv1_bnorm", "ext_conv2.1")
            name = name.replace("ext_tconv1", "ext_conv2.0")
        transposed = name.startswith("upsample") and name.endswith("ext_conv2.0.weight")
        state[name] = torch.rand(*value.shape[:2], 3, 3) if transposed else value
    module = load_checkpoint(original_file(tmp_path / "a.ckpt", state))
    block = module.network.upsample4
    x, winners = torch.rand(1, 128, 5, 6), torch.zeros(1, 64, 5, 6, dtype=torch.int64)
    weight = state["upsample4_0.ext_conv2.0.weight"]
    hidden = nn.functional.conv_transpose2d(block.reduce(x), weight, stride=2, padding=1, output_padding=1)
    assert torch.equal(block.transposed(block.reduce(x), output_size=(10, 12)), hidden)
    assert block(x, winners, (10, 12)).shape == (1, 64, 10, 12)
    largest = torch.zeros(1, 16, 8, 8)
    largest[..., 3, 3] = 9.0  # the last pixel of one window of two, but in two windows of three along each axis
    _, winners = module.network.downsample1(largest)
    assert (winners == 27).sum() == 16 * 4
    assert module.predict(torch.rand(1, 3, 64, 96)).shape == (1, 21, 64, 96)


def test_probabilities_of_nyu40s_other_classes_add_up_to_unannotated(tmp_path):
    network = shaken(ENet(41, "rgb"))
    for block in (network.upsample4, network.upsample5):
        block.expand[0][2] = nn.Identity()
    module = load_checkpoint(original_file(tmp_path / "a.ckpt", original_state(network, "rgb")))
    color, _ = images()
    expected = network(*normalised(module, color, None)).detach().softmax(1)
    actual = module.predict(color)
    torch.testing.assert_close(actual[:, 1:], expected[:, list(label_set().ids[1:])], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(actual.sum(1), torch.ones(1, 40, 48))


@pytest.mark.parametrize("classes", [41, 21])
def test_the_public_encoder(classes, tmp_path):
    network = shaken(encoder(classes))
    for name, values in network.state_dict().items():
        if values.dim() == 1 and "running" not in name:
            values.add_(0.1 * torch.randn(values.shape))
    torch.save(network.state_dict(), tmp_path / "scannetv2_enet.pth")
    module = load_checkpoint(tmp_path / "scannetv2_enet.pth")
    color = torch.rand(2, 3, 64, 80)
    small = network(normalised(module, color, None)[0]).detach().softmax(1)
    assert small.shape == (2, classes, 8, 10) and small.std(dim=(2, 3)).max() > 1e-3
    expected = nn.functional.interpolate(small, (64, 80), mode="bilinear", align_corners=False)
    kept = list(label_set().ids[1:]) if classes == 41 else list(range(1, 21))
    torch.testing.assert_close(module.predict(color)[:, 1:], expected[:, kept], rtol=1e-3, atol=1e-6)
    assert module.predict(torch.rand(1, 3, 61, 77)).shape == (1, 21, 61, 77)
    assert module.hparams["views"]["color"] == "photo"


def _changed(name, value):
    return lambda state: {**state, name: value}


WRONG = {
    "another head": _changed("transposed_conv.weight", torch.rand(16, 17, 3, 3)),
    "no head": lambda state: {name: value for name, value in state.items() if "transposed" not in name},
    "a head of another rank": _changed("transposed_conv.weight", torch.rand(21)),
    "a head without end": _changed("transposed_conv.weight", torch.zeros(0, 10**9, 3, 3)),
    "another input": _changed("initial_block.main_branch.weight", torch.rand(13, 4, 3, 3)),
    "another stem": _changed("initial_block.depth_branch.weight", torch.rand(13, 1, 3, 3)),
    "an unknown weight": _changed("regular9_1.ext_conv1.0.weight", torch.rand(3)),
    "a block too many": _changed("regular1_9.ext_conv1.0.weight", torch.rand(3)),
    "a bias": _changed("regular1_1.ext_conv1.0.bias", torch.rand(16)),
    "another shape": _changed("regular1_1.ext_conv1.0.weight", torch.rand(16, 32, 1, 1)),
    "a weight less": lambda state: {name: value for name, value in state.items() if "3_4.ext_conv2.1.bias" not in name},
    "whole numbers": _changed("regular1_1.ext_conv1.0.weight", torch.ones(16, 64, 1, 1, dtype=torch.int64)),
    "no number": _changed("regular1_1.ext_conv1.1.bias", torch.full((16,), float("nan"))),
    "no tensor": _changed("regular1_1.ext_conv1.1.bias", "x"),
    "a name twice": _changed("module.regular1_1.ext_conv1.1.bias", torch.rand(16)),
    "no weights": lambda state: {},
    "weights of something else": lambda state: {"conv.weight": torch.rand(3, 3, 3, 3)},
    "an encoder without classifier": lambda state: {
        name: value for name, value in encoder().state_dict().items() if not name.startswith("26.")},
    "an encoder of another shape": lambda state: {**encoder().state_dict(), "4.2.weight": torch.rand(63)},
    "an encoder with more": lambda state: {**encoder().state_dict(), "30.2.weight": torch.rand(64)},
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_another_network_is_refused_by_name(wrong, tmp_path):
    state = WRONG[wrong](original_state(ENet(21, "rgb"), "rgb"))
    with pytest.raises(UserError, match="a.ckpt") as caught:
        load_checkpoint(original_file(tmp_path / "a.ckpt", state))
    assert "\n" not in str(caught.value)


def test_images_of_other_shapes_are_refused(tmp_path):
    module = load_checkpoint(original_file(tmp_path / "a.ckpt", original_state(ENet(21, "conv_sum"), "conv_sum")))
    color, sh = images()
    for wrong in ((color, None), (color, sh[:, :26]), (color[0], sh[0]), (color[:, :2], sh), (color[..., :5, :5], sh)):
        with pytest.raises(ValueError, match="are needed|must be"):
            module.predict(*wrong)


def test_a_color_that_is_none_or_another_is_refused(tmp_path):
    path = original_file(tmp_path / "a.ckpt", original_state(ENet(21, "rgb"), "rgb"))
    with pytest.raises(UserError, match="'infrared' is unknown"):
        load_checkpoint(path, color="infrared")


@pytest.mark.parametrize("stem, channel", [("rgb", "photo"), ("conv_sum", "rgb")])
def test_the_test_task_takes_such_a_file(stem, channel, make_store, tmp_path):
    store = make_store("scene0000_00")
    network = shaken(original_network(stem))
    path = original_file(tmp_path / "420.ckpt", original_state(network, stem), miou=np.float64(0.39))
    results = run_test(checkpoint=str(path), views=[str(store.parent)], output_dir=str(tmp_path / "out"), device="cpu",
                       batch_size=3, samples=1)  # fmt: skip
    module = load_checkpoint(path)
    color = torch.from_numpy(np.load(store / f"{channel}.npy")).float() / 255
    assert results["views"] == 4 and results["rooms_seen_in_training"] == []
    assert (tmp_path / "out/scores/samples/000.png").is_file()
    if stem == "rgb":
        label = torch.from_numpy(np.load(store / "label.npy")).long()
        valid = label > 0
        right = (module.predict(color).argmax(1) == label)[valid].float().mean()
        assert results["pixel_accuracy"] == pytest.approx(float(right), abs=1e-6)

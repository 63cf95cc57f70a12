"""The network computes what the original project's does, but for one ReLU: golden logits of two random networks.

The original adds its upsampling bottlenecks' expansions as they come from the normalisation; here they go through a
ReLU first. Without it the logits are the original's to 1e-6.

Weights and pictures are drawn again from the seeds with which the golden files were made, since only a part of the
logits is checked in (``tests/data/cut_golden.py``); where the whole files are, they are compared with them.
"""

import numpy as np
import pytest
import torch

from enet import ENet
from tests.lib.plenoxel_scenes import GOLDEN_CUT

SIZE = (68, 92)
NETWORKS = {"orig_rgb_0": ("rgb", 0), "orig_sh_0": ("conv_sum", 1)}  # stem and seed
STEM_ORDER = ("sh_to_convolved", "sh_to_pooled", "color", "norm", "activation")  # of the original; then all is as here


def names_in_the_originals_order(network: ENet) -> list[str]:
    names = list(network.state_dict())
    stem = sorted(
        (name for name in names if name.startswith("stem.")), key=lambda name: STEM_ORDER.index(name.split(".")[1])
    )
    return [name for name in (*stem, *names[len(stem) :]) if not name.endswith("num_batches_tracked")]


def original_network(stem: str) -> ENet:
    """In evaluation mode, without the ReLU that the original does not have."""
    network = ENet(21, stem).eval()
    for block in (network.upsample4, network.upsample5):
        block.expand[0][2] = torch.nn.Identity()
    return network


def draw(stem: str, seed: int) -> tuple[ENet, torch.Tensor]:
    """The network with its golden weights, and its input ``[1, 3 or 30, 68, 92]``."""
    network = original_network(stem)
    state, names = network.state_dict(), names_in_the_originals_order(network)
    torch.manual_seed(seed)
    for name in names:
        if state[name].dim() == 4:
            torch.nn.init.kaiming_uniform_(state[name], a=5**0.5)
    for name in names:
        if name.endswith("running_mean"):
            state[name].copy_(0.2 * torch.randn(state[name].shape))
            state[name.replace("mean", "var")].copy_(torch.rand(state[name].shape) + 0.5)
    for name in names:
        if state[name].dim() == 1 and "running" not in name:
            start = 0.0 if name.endswith("bias") else 0.25 if state[name].numel() == 1 else 1.0
            state[name].copy_(start + 0.1 * torch.randn(state[name].shape))
    return network, torch.randn(1, 30 if network.uses_sh else 3, *SIZE).half().float()


def logits_of(network: ENet, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(images[:, :3], images[:, 3:])[0]


def assert_close(logits, expected):
    error = (logits - torch.from_numpy(expected)).abs().max()
    assert error <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_the_originals(name):
    with np.load(GOLDEN_CUT, allow_pickle=False) as file:
        pixels, expected = file[f"{name}/pixels"], file[f"{name}/y"]
    assert_close(logits_of(*draw(*NETWORKS[name])).flatten(1)[:, torch.from_numpy(pixels)], expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_of_the_whole_golden_files(name, shared_dir):
    drawn, drawn_images = draw(*NETWORKS[name])
    original = torch.load(shared_dir / "golden" / f"{name}.ckpt", weights_only=True)["state_dict"]
    values = [value for key, value in original.items() if not key.endswith("num_batches_tracked")]
    state = dict(zip(names_in_the_originals_order(drawn), values, strict=True))
    for key, value in state.items():
        torch.testing.assert_close(drawn.state_dict()[key], value, rtol=0, atol=1e-6)
    network = original_network(NETWORKS[name][0])
    network.load_state_dict(state, strict=False)
    with np.load(shared_dir / "golden" / f"{name}.npz", allow_pickle=False) as file:
        images, expected = torch.from_numpy(file["x"]).float(), file["y"][0]
    torch.testing.assert_close(drawn_images, images, rtol=0, atol=2e-3)  # half precision
    assert_close(logits_of(network, images), expected)

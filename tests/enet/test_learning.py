"""That trainings learn: each stem from what it alone sees, and the task exactly as a plain loop does.

Nothing here hangs on how far a short training happens to come. The loop is compared in double precision, where four
steps end at the same weights to 1e-10; and networks learn from pictures drawn anew for every step, which none can learn
by heart: without information their loss stays at ln 3, with it it falls to a tenth or a quarter of that.
"""

import math
from pathlib import Path

import gin
import pytest
import torch
from torch.nn.functional import cross_entropy

from dataloader import ViewStore
from enet import ENet
from enet.module import SegmentationModule
from enet.stems import STEMS
from enet.task_train import train
from tests.enet.bindings import bind_split

STEPS = 80


def draw_views(signal_in_sh: bool, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Eight views of three classes in blocks of 8x8 pixels, told apart by one channel; all else is noise."""
    label = torch.randint(1, 4, (8, 3, 3), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    color, sh = (torch.randn(8, channels, 24, 24, generator=generator) for channels in (3, 27))
    (sh[:, 13] if signal_in_sh else color[:, 1]).add_(3 * (label - 2))
    return color, sh, label


@pytest.mark.parametrize("stem", STEMS)
def test_every_stem_learns_what_only_its_own_input_shows(stem):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = ENet(4, stem, dropout=(0.0, 0.0))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.7, 0.999))
    losses = []
    for _ in range(STEPS):
        color, sh, label = draw_views(network.uses_sh, generator)
        loss = cross_entropy(network(color, sh), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.75 * math.log(3)  # 0.04 to 0.29 over seeds, CPUs and weights moved by 1e-6


OPTIONS = {
    "NetworkOptions.dropout": (0.0, 0.0),
    "OptimizerOptions.learning_rate": 0.01,
    "OptimizerOptions.weight_decay": 0.003,
    "OptimizerOptions.betas": (0.6, 0.99),
    "OptimizerOptions.decay_factor": 0.5,
    "OptimizerOptions.decay_epochs": 2,
}


def single(values: torch.Tensor) -> torch.Tensor:
    """Rounded as a checkpoint's statistics are."""
    return values.float().double()


def plain_training(views: Path, stem: str, epochs: int) -> tuple[ENet, ENet]:
    """The network before and after steps on all training views at once, in double precision, without this project."""
    stores = [ViewStore(views / name) for name in ("scene0000_00", "scene0001_00")]
    color, sh, label = (
        torch.stack([store.read(name, view) for store in stores for view in range(len(store))])
        for name in ("rgb", "sh", "label")
    )
    share = label.flatten().bincount(minlength=21).double() / label.numel()
    weights = single(torch.where(share > 0, 1 / torch.log(1.02 + share), 0.0))
    weights[0] = 0
    images = []
    for values in (color.double(), sh.double()):
        mean, std = values.mean((0, 2, 3), keepdim=True), values.std((0, 2, 3), correction=0, keepdim=True)
        images.append((values - single(mean)) / single(std))
    first, network = (
        SegmentationModule(network={"stem": stem, "dropout": (0.0, 0.0)}).network.double() for _ in range(2)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.6, 0.99), weight_decay=0.003)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 0.01 * 0.5 ** (epoch // 2)
        loss = cross_entropy(network(*images), label, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return first, network


@pytest.mark.parametrize("stem", ["rgb", "conv_sum"])
def test_a_training_is_what_a_plain_loop_does(views, tmp_path, stem):
    for name, value in {**OPTIONS, "NetworkOptions.stem": stem}.items():
        gin.bind_parameter(name, value)
    bind_split()
    train(
        views=[str(views)], runs_dir=str(tmp_path), name="run", epochs=4, batch_size=16, device="cpu", precision="64",
    )  # fmt: skip
    gin.clear_config()
    checkpoint = torch.load(tmp_path / "run/training/last.ckpt", weights_only=True)["state_dict"]
    first, expected = plain_training(views, stem, epochs=4)
    moved = total = 0.0
    for name, value in expected.named_parameters():
        moved += float((value - first.get_parameter(name)).square().sum())
        total += float((checkpoint[f"network.{name}"] - value).square().sum())
    assert total**0.5 < 1e-6 * moved**0.5 and moved > 1

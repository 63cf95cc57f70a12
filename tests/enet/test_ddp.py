"""Two processes, on the CPU over gloo or on two GPUs over NCCL, train as one with the doubled batch does, to rounding.

In double precision: an untrained network amplifies rounding by orders of magnitude within a few steps.
"""

import os

import gin
import pytest
import torch
import torch.multiprocessing

from enet import ENet
from enet.module import SegmentationModule
from enet.task_train import train
from tests.enet.bindings import bind_split
from tests.enet.half_batch import gradients_of_half_a_batch
from utils.cores import usable_cores
from utils.errors import UserError

# No dropout, which each process draws for itself. With a large epsilon Adam's steps are proportional to the
# gradients; with the usual one, first steps turn the rounding of small gradients into full steps.
CONFIG = {
    "NetworkOptions.dropout": (0.0, 0.0),
    "NetworkOptions.stem": "conv_sum",
    "LossOptions.quality": True,
    "OptimizerOptions.epsilon": 1.0,
    "OptimizerOptions.learning_rate": 0.01,
}


needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")


@pytest.fixture(autouse=True)
def no_number_of_threads(monkeypatch):
    """So that it is training's to share the cores among its processes."""
    for name in ("OMP_NUM_THREADS", "SSIR_OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # to be restored
        monkeypatch.delenv(name)


def start(views, runs, devices, device):
    for name, value in CONFIG.items():
        gin.bind_parameter(name, value)
    bind_split()
    results = train(
        views=[str(views)], runs_dir=str(runs), name=f"on_{devices}", epochs=2, batch_size=8, device=device,
        devices=devices, precision="64",
    )  # fmt: skip
    gin.clear_config()
    checkpoint = torch.load(runs / f"on_{devices}/training/last.ckpt", map_location="cpu", weights_only=True)
    return results, checkpoint["state_dict"]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_two_gpus)])
def test_two_processes_equal_one(device, views, tmp_path, capfd):
    one, expected = start(views, tmp_path, 1, device)
    two, found = start(views, tmp_path, 2, device)
    initial = SegmentationModule(network={"stem": "conv_sum", "dropout": (0.0, 0.0)}).state_dict()
    parameters = [name for name in expected if name.startswith("network.") and expected[name].is_floating_point()]
    parameters = [name for name in parameters if "running" not in name]

    def distance(a: dict, b: dict) -> float:
        return float(sum((a[name] - b[name]).double().square().sum() for name in parameters).sqrt())

    assert "is not empty" not in (said := capfd.readouterr().err) and "LeafSpec" not in said  # nor the others' words
    assert os.environ["OMP_NUM_THREADS"] == str(max(1, usable_cores() // 2))  # what the two were started with
    assert distance(expected, initial) > 0.01  # four steps went somewhere
    assert distance(found, expected) < 1e-6 * distance(expected, initial)
    assert torch.equal(found["class_weights"], expected["class_weights"])
    assert one["validation"]["mean_iou"] == pytest.approx(two["validation"]["mean_iou"], abs=1e-6)


def test_synchronized_norms_give_the_joint_batchs_gradients(tmp_path):
    color = torch.randn(4, 3, 24, 27, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.multiprocessing.spawn(gradients_of_half_a_batch, (str(tmp_path), color), nprocs=2)
    torch.manual_seed(0)
    network = ENet(5, dropout=(0.0, 0.0)).double()
    network(color).square().mean().backward()
    gradients = torch.load(tmp_path / "gradients.pt", weights_only=True)
    largest = max(float(value.grad.abs().max()) for value in network.parameters())
    for name, value in network.named_parameters():
        torch.testing.assert_close(gradients[name], value.grad, rtol=1e-8, atol=1e-10 * largest)
    for name, value in torch.load(tmp_path / "buffers.pt", weights_only=True).items():
        torch.testing.assert_close(value, network.get_buffer(name), rtol=1e-9, atol=1e-12)


def test_a_mistake_in_one_of_the_processes_is_one_sentence(views, tmp_path):
    """Here a loss that is no number, which only the processes see."""
    gin.bind_parameter("OptimizerOptions.learning_rate", 1e30)
    bind_split()
    with pytest.raises(UserError, match="the loss is NaN or infinite in step|holds NaN or infinite values after epoch"):
        train(views=[str(views)], runs_dir=str(tmp_path), name="wild", epochs=3, batch_size=8, device="cpu", devices=2)

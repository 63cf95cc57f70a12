"""A step that is replayed as a graph trains as one whose kernels are launched one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from enet.inputs import GEOMETRY
from enet.module import SegmentationModule
from enet.options import ViewOptions
from enet.step_graph import StepGraph, plain_optimizer_state, set_learning_rate
from enet.stored_views import StoredViews
from enet.view_source import DeferredBatch, TrainingOrder, ViewBatch
from tests.enet.test_appearance import EVERYTHING

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def make(
    dropout: tuple[float, float] = (0.0, 0.0), stem: str = "conv_sum", inputs: Sequence[str] = ("sh",)
) -> SegmentationModule:
    module = SegmentationModule(network={"stem": stem, "dropout": dropout, "inputs": inputs}, seed=3)
    return module.to("cuda").to(memory_format=torch.channels_last)


def views_of(images: torch.Tensor, label: torch.Tensor) -> ViewBatch:
    return ViewBatch(images[:, :3], images[:, 3:30], label, geometry=images[:, 30:] - 0.5)


def batches(count: int = 5) -> list[DeferredBatch]:
    drawn = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        images = torch.rand(4, 36, 32, 40, generator=drawn).cuda()
        label = torch.randint(21, (4, 32, 40), generator=drawn, dtype=torch.uint8).cuda()
        found.append(DeferredBatch(views_of, images, label))
    return found


def loss_of(module: SegmentationModule):
    def loss(batch: DeferredBatch):
        entropy, weight, other, prediction, label = module._loss_and_prediction(batch)
        return entropy / weight.clamp(min=1e-6) + other, prediction, label

    return loss


def train(module: SegmentationModule, graph: bool, steps: list[DeferredBatch], optimizer=None) -> list[float]:
    optimizer = optimizer or module.configure_optimizers()
    loss = loss_of(module)
    step = StepGraph(module.network, optimizer, loss) if graph else None
    losses = []
    for number, batch in enumerate(steps):
        set_learning_rate(optimizer, 1e-3 / (1 + number))
        torch.manual_seed(number)
        if graph:
            value = step(batch)[0]
        else:
            optimizer.zero_grad()
            value = loss(batch)[0]
            value.backward()
            optimizer.step()
        losses.append(float(value.detach()))
    return losses


@pytest.fixture
def exact(monkeypatch):
    """Float32 arithmetic and algorithms that give the same bits every time."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@needs_cuda
@pytest.mark.parametrize("inputs", [("sh",), ("sh", *GEOMETRY), tuple(GEOMETRY)])
def test_trains_as_plain_steps_do(exact, inputs):
    plain, graphed = make(inputs=inputs), make(inputs=inputs)
    expected, found = train(plain, False, batches()), train(graphed, True, batches())
    assert found == pytest.approx(expected, rel=1e-4)
    untrained = make(inputs=inputs).state_dict()
    assert not torch.allclose(untrained["network.classifier.weight"], plain.network.classifier.weight, atol=1e-3)
    for (name, value), (_, other) in zip(plain.state_dict().items(), graphed.state_dict().items(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-4, msg=name)
    assert int(graphed.network.stem.norm.num_batches_tracked) == 5  # warming up left nothing behind


@needs_cuda
@pytest.mark.parametrize("backbone", ["segformer_b0", "efficientnet_lite0"])
def test_larger_networks_train_as_in_plain_steps(exact, backbone):
    options = {"backbone": backbone, "stem": "concat", "inputs": ("sh", *GEOMETRY), "dropout": (0, 0), "drop_path": 0.0}
    losses = []
    for graph in (False, True):
        module = SegmentationModule(network=options, seed=3).to("cuda").to(memory_format=torch.channels_last)
        losses.append(train(module, graph, batches()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and losses[0][0] != losses[0][1]


@needs_cuda
@pytest.mark.parametrize("cache", [True, False])
def test_stored_views_with_geometry_and_all_augmentation_are_decoded_within_the_graph(exact, make_deep_store, cache):
    options = ViewOptions(cache=cache, workers=0, blur=1.5, sh_frame="gravity")
    inputs = ("sh", *GEOMETRY)
    source = StoredViews([make_deep_store("a", count=8)], options, True, EVERYTHING, geometry=tuple(GEOMETRY))
    steps = source.training_steps(TrainingOrder(epoch_views=8, batch_size=4), epoch=0)
    expected = train(make(inputs=inputs), False, list(source.batches(steps, torch.device("cuda"))))
    found = train(make(inputs=inputs), True, list(source.batches(steps, torch.device("cuda"))))
    assert found == pytest.approx(expected, rel=1e-4) and len(found) == 2 and found[0] != found[1]


@needs_cuda
def test_dropout_follows_the_seed_of_each_step(exact):
    same = [batches(1)[0]] * 4
    module = make((0.5, 0.5))
    optimizer = torch.optim.Adam(module.network.parameters(), lr=0.0, fused=True)
    step = StepGraph(module.network, optimizer, loss_of(module))
    losses = []
    for seed in (1, 2, 1, 2):
        torch.manual_seed(seed)
        set_learning_rate(optimizer, 0.0)
        losses.append(float(step(same[0])[0]))
    assert losses[0] == pytest.approx(losses[2], rel=1e-5) and losses[1] == pytest.approx(losses[3], rel=1e-5)
    assert abs(losses[0] - losses[1]) > 1e-3


@needs_cuda
def test_resumes_where_it_stopped(exact):
    steps = batches(6)
    whole = make()
    expected = train(whole, True, steps)
    first = make()
    optimizer = first.configure_optimizers()
    before = train(first, True, steps[:3], optimizer)
    state = optimizer.state_dict()
    plain_optimizer_state(state)
    assert all(isinstance(group["lr"], float) and not group["capturable"] for group in state["param_groups"])
    second = make()
    second.load_state_dict(first.state_dict())
    other = second.configure_optimizers()
    other.load_state_dict(state)
    loss = loss_of(second)
    step = StepGraph(second.network, other, loss)
    after = []
    for number, batch in enumerate(steps[3:], 3):
        set_learning_rate(other, 1e-3 / (1 + number))
        torch.manual_seed(number)
        after.append(float(step(batch)[0]))
    assert before + after == pytest.approx(expected, rel=1e-5)


@needs_cuda
def test_a_batch_of_another_shape_is_refused():
    module = make()
    step = StepGraph(module.network, module.configure_optimizers(), loss_of(module))
    batch = batches(1)[0]
    step(batch)
    with pytest.raises(ValueError, match="in a training recorded for"):
        step(DeferredBatch(batch.make, *(part[:2] for part in batch.parts)))


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_casts_of_weights_are_made_anew_in_every_step(dtype):
    """Under autocast, weights are cast; a graph that kept the first step's would never see the others."""
    module = make(stem="rgb")
    optimizer = module.configure_optimizers()
    step = StepGraph(module.network, optimizer, loss_of(module))
    batch = batches(1)[0]
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype is torch.bfloat16):
        first = float(step(batch)[0])
        with torch.no_grad():
            module.network.classifier.weight.zero_()  # all classes are as likely
        assert float(step(batch)[0]) == pytest.approx(torch.tensor(21.0).log().item(), abs=1e-3) != first

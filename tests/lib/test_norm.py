"""Normalisation with what follows it: the reference is PyTorch's layers, and the kernels are the reference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.norm import can_fuse, normalise
from lib.norm.reference import normalise_reference

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SHAPES = [(3, 16, 7, 5), (2, 4, 31, 33), (5, 24, 3, 3), (2, 128, 15, 15), (1, 1024, 2, 2), (40, 64, 31, 31)]


def random_images(shape: tuple[int, ...], seed: int, dtype=torch.float64, offset: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).add(offset).to(dtype)


def test_the_reference_is_pytorchs_layers():
    x, residual = random_images((3, 8, 5, 4), 0), random_images((3, 8, 5, 4), 1)
    norm, inner, outer = nn.BatchNorm2d(8).double(), nn.PReLU().double(), nn.PReLU(init=0.1).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    dropout = nn.Dropout2d(0.5)
    torch.manual_seed(0)
    dropped = dropout(torch.ones(3, 8, 1, 1, dtype=torch.float64))
    expected = outer(residual + dropped * inner(norm(x)))
    found = normalise_reference(
        x, norm.weight, norm.bias, inner.weight, residual, dropped[:, :, 0, 0], outer.weight, norm.eps
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(normalise_reference(x, norm.weight, norm.bias, 0.0), F.relu(norm(x)))
    torch.testing.assert_close(normalise_reference(x, norm.weight, norm.bias, 1.0), norm(x))
    padded = F.pad(residual[:, :5], (0, 0, 0, 0, 0, 3))
    torch.testing.assert_close(
        normalise_reference(x, norm.weight, norm.bias, 0.0, residual[:, :5]), padded + F.relu(norm(x))
    )


def test_a_cpu_has_no_kernels():
    x = torch.rand(2, 8, 4, 4)
    assert not can_fuse(x)
    with pytest.raises(ValueError, match="not for these kernels"):
        normalise(x, nn.BatchNorm2d(8), 0.0)


class Layer:
    """A layer's parameters in double precision, and what they become on the device."""

    def __init__(self, channels: int, batch: int):
        drawn = torch.Generator().manual_seed(5)
        self.weight = torch.rand(channels, generator=drawn, dtype=torch.float64) + 0.5
        self.bias = torch.randn(channels, generator=drawn, dtype=torch.float64)
        self.keep = (torch.rand(batch, channels, generator=drawn) < 0.7).double() / 0.7
        self.slopes = torch.tensor([0.25, 0.1], dtype=torch.float64)

    def norm(self) -> nn.BatchNorm2d:
        norm = nn.BatchNorm2d(len(self.weight)).cuda()
        with torch.no_grad():
            norm.weight.copy_(self.weight)
            norm.bias.copy_(self.bias)
        return norm


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["plain", "relu", "residual", "fewer channels", "dropout"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_are_the_reference(shape, kind, dtype):
    """Values, and gradients of everything, against the reference in double precision on the same (rounded) input."""
    layer = Layer(shape[1], shape[0])
    learned = kind != "relu"
    channels = {"fewer channels": max(shape[1] // 8 * 4, 4)}.get(kind, shape[1])
    x = random_images(shape, 1, dtype, offset=3.0).cuda().to(memory_format=torch.channels_last)
    residual = random_images((shape[0], channels, *shape[2:]), 2, dtype).cuda().to(memory_format=torch.channels_last)
    direction = random_images(shape, 3, dtype).cuda()
    norm = layer.norm()
    inner, outer = (layer.slopes[i : i + 1].float().cuda().requires_grad_() for i in range(2))
    own = [x.requires_grad_(), norm.weight, norm.bias]
    arguments = [inner if learned else 0.0]
    if learned:
        own.append(inner)
    if kind not in ("plain", "relu"):
        own += [residual.requires_grad_(), outer]
        arguments += [residual, layer.keep.float().cuda() if kind == "dropout" else None, outer]
    out = normalise(x, norm, *arguments)
    gradients = torch.autograd.grad(out, own, direction)

    exact = [tensor.detach().double().requires_grad_() for tensor in own]
    names = ["x", "weight", "bias", *(["inner"] if learned else []), "residual", "outer"]
    by_name = dict(zip(names, exact, strict=False))
    keep = None if kind != "dropout" else layer.keep.float().double().cuda()
    expected = normalise_reference(
        by_name["x"], by_name["weight"], by_name["bias"], by_name.get("inner", 0.0), by_name.get("residual"), keep,
        by_name.get("outer", 1.0), norm.eps,
    )  # fmt: skip
    expected_gradients = torch.autograd.grad(expected, exact, direction.double())

    assert out.is_contiguous(memory_format=torch.channels_last) and out.dtype is dtype
    # Where a mean is many deviations large, x - mean has lost digits that no later step can give back.
    deviation, mean = torch.std_mean(x.detach().double(), (0, 2, 3), unbiased=False)
    rounding = torch.finfo(dtype).eps + torch.finfo(torch.float32).eps * float((mean / deviation).abs().max())
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(out.double(), expected, rtol=4 * rounding, atol=4 * rounding * largest)
    for found, exactly in zip(gradients, expected_gradients, strict=True):
        largest = float(exactly.abs().max())
        summed = found.dim() == 1  # over all pixels: errors of the arithmetic add up, those of storage do not exist
        tolerance = 1e-5 * max(largest, shape[0] ** 0.5) if summed else 8 * rounding * largest
        torch.testing.assert_close(found.double(), exactly, rtol=2e-4 if summed else 8 * rounding, atol=tolerance)


@needs_cuda
def test_running_statistics_are_pytorchs():
    layer = Layer(64, 4)
    norm, plain = layer.norm(), layer.norm()
    for seed in range(3):
        x = random_images((4, 64, 9, 11), seed, torch.float32, offset=seed).cuda()
        normalise(x, norm, 0.0)
        plain(x)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert int(norm.num_batches_tracked) == 3


@needs_cuda
def test_statistics_survive_a_large_mean():
    """Sums of squares of values around 1000 would lose a deviation of 0.01; differences from a value do not."""
    x = random_images((8, 16, 30, 30), 0).mul(0.01).add(1000).float().cuda()
    out = normalise(x, nn.BatchNorm2d(16, eps=0).cuda(), 1.0)
    exact = x.double()
    exact = (exact - exact.mean((0, 2, 3), keepdim=True)) / exact.std((0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(out.double(), exact, rtol=1e-2, atol=1e-2)


@needs_cuda
def test_equal_inputs_give_equal_bits():
    layer = Layer(64, 40)
    x = random_images((40, 64, 31, 31), 0, torch.bfloat16).cuda()

    def once() -> list[Tensor]:
        norm, own = layer.norm(), x.clone().requires_grad_()
        out = normalise(own, norm, 0.0, x)
        return [out, *torch.autograd.grad(out, [own, norm.weight, norm.bias], x)]

    first = once()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, once(), strict=True))


@needs_cuda
def test_what_the_kernels_do_not_take_is_refused():
    x = torch.rand(2, 8, 4, 4, device="cuda")
    assert can_fuse(x) and can_fuse(x, x[:, :4])
    assert not can_fuse(x[:, :6]) and not can_fuse(x.half()) and not can_fuse(x, x[:, :3])
    assert not can_fuse(torch.rand(2, 1028, 1, 1, device="cuda")) and not can_fuse(x[:0])
    forward = torch.ops.norm.forward
    norm = nn.BatchNorm2d(8).cuda()
    state = (norm.running_mean, norm.running_var, norm.num_batches_tracked, 0.1, 1e-5)
    x = x.to(memory_format=torch.channels_last)

    def call(x=x, residual=None, keep=None, weight=norm.weight):
        return forward(x, residual, keep, weight, norm.bias, None, 0.0, None, 0.0, *state)

    for mistake in (
        {"x": x.half()}, {"x": x.cpu()}, {"x": x.contiguous()}, {"x": x[0]}, {"residual": x[:1]},
        {"residual": x.bfloat16()}, {"keep": torch.ones(2, 8, device="cuda")}, {"weight": norm.weight[:4]},
        {"residual": x, "keep": torch.ones(2, 4, device="cuda")}, {"weight": norm.weight.double()},
        {"residual": torch.cat([x, x], 1)}, {"weight": norm.weight.cpu()},
    ):  # fmt: skip
        with pytest.raises((RuntimeError, NotImplementedError)):
            call(**mistake)
    call()

"""ENet: parameter counts of the public implementation, sizes, gradients, and what is refused."""

import pytest
import torch

from enet import ENet
from enet.blocks import PReLU
from enet.stems import STEMS

# 351,948 and 355,836 are the counts of the public implementation with 21 classes; the others follow from their
# convolutions: 30 instead of 3 channels into 13 (+3159); 3 into 7 and 27 into 6 instead of 3 into 13 (+1296).
PARAMETERS = {"rgb": 351_948, "concat": 355_107, "conv_concat": 353_244, "conv_sum": 355_836}


@pytest.mark.parametrize("stem", STEMS)
def test_parameter_count(stem):
    assert sum(parameter.numel() for parameter in ENet(21, stem).parameters()) == PARAMETERS[stem]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("size", [(124, 124), (7, 7), (33, 50), (31, 64)])
def test_logits_have_the_size_of_the_image(stem, size):
    sh = None if stem == "rgb" else torch.randn(2, 27, *size)
    assert ENet(21, stem).eval()(torch.randn(2, 3, *size), sh).shape == (2, 21, *size)


@pytest.mark.parametrize("stem", STEMS)
def test_every_parameter_gets_a_gradient(stem):
    network = ENet(5, stem)
    color, sh = torch.randn(2, 3, 32, 32), torch.randn(2, 27, 32, 32)
    network(color, sh).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("stem", [name for name in STEMS if name != "rgb"])
def test_sh_changes_the_result_and_rgb_ignores_it(stem):
    color, sh = torch.randn(1, 3, 32, 32), torch.randn(1, 27, 32, 32)
    network = ENet(5, stem).eval()
    assert not torch.allclose(network(color, sh), network(color, -sh))
    plain = ENet(5, "rgb").eval()
    assert torch.equal(plain(color, sh), plain(color))


def test_conv_sum_with_silent_sh_convolutions_is_the_rgb_network():
    rgb, conv_sum = ENet(21, "rgb").eval(), ENet(21, "conv_sum").eval()
    missing, unexpected = conv_sum.load_state_dict(rgb.state_dict(), strict=False)
    assert set(missing) == {"stem.sh_to_convolved.weight", "stem.sh_to_pooled.weight"} and not unexpected
    for name in missing:
        torch.nn.init.zeros_(conv_sum.get_parameter(name))
    color = torch.randn(1, 3, 32, 32)
    assert torch.equal(conv_sum(color, torch.randn(1, 27, 32, 32)), rgb(color))


def test_unpooling_puts_values_back_where_they_came_from():
    """The decoder's main path alone: zero everywhere but at the encoder's maxima, also for odd sizes."""
    block = ENet(21).upsample5
    for module in (block.expand[0][1], block.main[1]):
        torch.nn.init.zeros_(module.weight)
    torch.nn.init.ones_(block.main[1].bias)
    image = torch.randn(1, 16, 31, 31)
    pooled, winners = torch.nn.functional.max_pool2d(image, 2, return_indices=True)
    out = block.eval()(torch.randn(1, 64, 15, 15), winners, (31, 31))
    assert out.shape == image.shape and int((out != 0).sum()) == pooled.numel()
    assert torch.equal(image[out != 0].sort().values, pooled.flatten().sort().values)


def test_refusals():
    with pytest.raises(ValueError, match="conv_add"):
        ENet(21, "conv_add")
    with pytest.raises(ValueError, match="SH images"):
        ENet(21, "concat")(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="found \\(1, 9, 32, 32\\)"):
        ENet(21, "concat")(torch.randn(1, 3, 32, 32), torch.randn(1, 9, 32, 32))
    with pytest.raises(ValueError, match="7x7"):
        ENet(21)(torch.randn(1, 3, 6, 32))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_prelu_is_pytorchs_prelu(dtype):
    ours, reference = PReLU(init=0.3), torch.nn.PReLU(init=0.3)
    x = torch.randn(3, 4, 5, 6, dtype=dtype)
    ours, reference = (ours.double(), reference.double()) if dtype == torch.float64 else (ours, reference)
    results, tolerance = [], 2e-2 if dtype == torch.bfloat16 else 1e-12
    for module in (ours, reference):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = module(leaf)
        out.square().sum().backward()
        results.append((out, leaf.grad, module.weight.grad))
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stem", ["rgb", "conv_sum"])
def test_fused_layers_train_as_plain_ones(stem, monkeypatch):
    """The same network with the fused ops and with PyTorch's layers: output, gradients and running statistics."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    images = torch.rand(4, 30, 37, 42, generator=torch.Generator().manual_seed(0)).cuda()
    images = images.to(memory_format=torch.channels_last)

    def run(fused: bool):
        with monkeypatch.context() as patched:
            if not fused:
                patched.setattr("enet.blocks.can_fuse", lambda *images: False)
            torch.manual_seed(0)
            network = ENet(21, stem, (0.0, 0.0)).cuda().to(memory_format=torch.channels_last)
            out = network(images[:, :3], images[:, 3:])
            out.square().mean().backward()
        return out, {name: value.grad for name, value in network.named_parameters()}, network.state_dict()

    (out, gradients, state), (plain_out, plain_gradients, plain_state) = run(True), run(False)
    torch.testing.assert_close(out, plain_out, rtol=1e-3, atol=1e-4)
    for name, value in plain_gradients.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-2, atol=2e-3 * float(value.abs().max()), msg=name)
    for name, value in plain_state.items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-5, msg=name)

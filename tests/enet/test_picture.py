"""Blurred colour: what a Gaussian does to constants, impulses and views; the same in training and evaluation."""

import pytest
import torch

from dataloader import ViewStore
from enet.module import SegmentationModule
from enet.options import ViewOptions
from enet.picture import blurred
from enet.predictions import CheckpointPredictions
from enet.stored_views import StoredViews
from enet.view_source import Step
from utils.errors import UserError


def test_a_constant_stays_as_it_is_to_the_border():
    color = torch.tensor([0.1, 0.5, 1.0])[None, :, None, None].expand(2, 3, 20, 33)
    torch.testing.assert_close(blurred(color, 6.0), color, atol=1e-6, rtol=0)


@pytest.mark.parametrize("deviation", [0.8, 2.0, 6.0])
def test_an_impulse_has_the_gaussians_variance(deviation):
    color = torch.zeros(1, 1, 101, 121, dtype=torch.float64)
    color[0, 0, 50, 60] = 1
    spread = blurred(color, deviation)[0, 0]
    assert float(spread.sum()) == pytest.approx(1, abs=1e-12)
    for dim, centre in ((0, 50), (1, 60)):
        profile = spread.sum(1 - dim)
        place = torch.arange(len(profile)).double() - centre
        assert float((profile * place).sum()) == pytest.approx(0, abs=1e-12)
        assert float((profile * place**2).sum()) == pytest.approx(deviation**2, rel=0.01)


def test_beyond_the_border_lies_the_borders_colour():
    color = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(color, (40, 40, 40, 40), mode="replicate")
    torch.testing.assert_close(blurred(color, 3.0), blurred(padded, 3.0)[..., 40:49, 40:51], atol=1e-6, rtol=0)
    assert blurred(color, 0.0) is color


def test_mixed_precision_rounds_no_colour():
    color = torch.full((1, 3, 16, 16), 0.7)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(blurred(color, 2.0), color, atol=1e-6, rtol=0)


@pytest.mark.parametrize("channel", ["rgb", "photo"])
def test_views_are_blurred_wherever_a_network_sees_them(make_store, channel):
    path, options = make_store("a"), ViewOptions(color=channel, blur=2.0)
    store = ViewStore(path)
    expected = blurred(torch.stack([store.read(channel, view) for view in range(4)]), 2.0)
    (batch,) = StoredViews([path], options, uses_sh=False).batches([Step(torch.arange(4))], torch.device("cpu"))
    assert torch.equal(batch.resolve().color, expected)
    module = SegmentationModule({"stem": "rgb"}, views=vars(options)).eval()
    found = torch.cat(list(CheckpointPredictions(module, store, 4)))
    assert torch.equal(found, module.predict(expected))


def test_refusals():
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="blur"):
            ViewOptions(blur=value)

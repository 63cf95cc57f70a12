"""The temperature of predictions, from counts that decide it."""

import math

import pytest
import torch

from enet.temperature import TemperatureFit

SIZE = (4, 8)  # of which one row and two columns are looked at


def predictions(first: float, views: int) -> torch.Tensor:
    """Of every pixel, class 1 with probability ``first``, else class 2; channel 0 is no class."""
    values = torch.zeros(views, 3, *SIZE)
    values[:, 1], values[:, 2] = first, 1 - first
    return values


@pytest.mark.parametrize("sure, temperature", [(0.9, 2.0), (0.75, 1.0), (3**0.25 / (1 + 3**0.25), 0.25)])
def test_as_sure_as_right(sure, temperature):
    """Three of four labels are class 1: logits must differ by log 3, and do by log(sure / (1 - sure))."""
    labels = torch.full((8, *SIZE), 2)
    labels[:6] = 1
    fit = TemperatureFit()
    batches = predictions(sure, 8).split(3)
    passed = list(fit.watch(iter(batches), lambda view: labels[view]))
    assert all(a is b for a, b in zip(passed, batches, strict=True))
    found = fit.fit()
    assert math.log(sure / (1 - sure)) / temperature == pytest.approx(math.log(3), abs=1e-6)
    assert found["temperature"] == pytest.approx(temperature, abs=1e-3)
    assert found["log_loss"] == pytest.approx(-0.75 * math.log(sure) - 0.25 * math.log(1 - sure), abs=1e-5)
    assert found["log_loss_at_temperature"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), abs=1e-5)


def test_what_is_not_labelled_does_not_count():
    labels = torch.full((8, *SIZE), 2)
    labels[:6] = 1
    labels[:, :, 4:] = 0
    fit = TemperatureFit()
    list(fit.watch([predictions(0.9, 8)], lambda view: labels[view]))
    assert fit.fit()["temperature"] == pytest.approx(2, abs=1e-3)
    empty = TemperatureFit()
    list(empty.watch([predictions(0.9, 8)], lambda view: labels[view] * 0))
    assert empty.fit()["temperature"] is None

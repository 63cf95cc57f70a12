"""Appearance: each way to vary a colour does what it says and no more, and repeats by its random numbers."""

import math

import pytest
import torch

from enet.appearance import noise_of, vary
from enet.augmentation import augment
from enet.options import AugmentationOptions
from enet.picture import blurred
from tests.enet.test_augmentation import make_batch, make_draws
from utils.errors import UserError

EVERYTHING = AugmentationOptions(
    mirror=0.5, smallest_crop=0.7, brightness=0.3, contrast=0.3, saturation=0.4, white_balance=0.2, hue=0.1, gamma=0.3,
    blur=1.2, noise=0.05,
)  # fmt: skip


def colors(count: int = 6, size=(24, 30)) -> torch.Tensor:
    return 0.2 + 0.5 * torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "white_balance", "hue", "gamma"])
def test_the_middle_of_a_range_changes_nothing_and_its_ends_do(name):
    color, options = colors(), AugmentationOptions(**{name: 0.3})
    decided = ("red", "green", "blue") if name == "white_balance" else (name,)
    middle, high = (vary(color, make_draws(**dict.fromkeys(decided, value)), options) for value in (0.5, 0.9))
    torch.testing.assert_close(middle, color, atol=1e-6, rtol=0)
    assert (high - color).abs().max() > 0.02
    others = {other: 0.9 for other in ("brightness", "contrast", "hue", "blur", "noise") if other not in decided}
    fixed = dict.fromkeys(decided, 0.9)
    assert torch.equal(vary(color, make_draws(**fixed, **others), options), high)


def test_white_balance_has_a_gain_for_each_channel():
    changed = vary(colors(), make_draws(red=1.0, green=0.5, blue=0.25), AugmentationOptions(white_balance=0.2))
    gains = torch.tensor([1.2, 1.0, 0.9])[:, None, None]
    torch.testing.assert_close(changed, (colors() * gains).clamp(0, 1))


@pytest.mark.parametrize("draw, power", [(0.0, 1 / 1.5), (1.0, 1.5), (0.75, 1.5**0.5)])
def test_gamma_is_a_power_within_its_range(draw, power):
    changed = vary(colors(), make_draws(gamma=draw), AugmentationOptions(gamma=0.5))
    torch.testing.assert_close(changed, colors() ** power)


def test_hue_turns_about_the_axis_of_greys():
    """A third of a turn puts each channel's values into another's place; any turn keeps the channels' mean."""
    third = 0.5 + 0.5 * (2 / 3)  # of half a turn, either way
    changed = vary(colors(), make_draws(hue=third), AugmentationOptions(hue=1.0))
    torch.testing.assert_close(changed, colors().roll(1, 1), atol=1e-5, rtol=0)
    grey = colors().mean(1, keepdim=True).expand(-1, 3, -1, -1)
    turned = vary(grey, make_draws(), AugmentationOptions(hue=1.0))
    torch.testing.assert_close(turned, grey, atol=1e-6, rtol=0)
    less = vary(colors(), make_draws(hue=0.6), AugmentationOptions(hue=0.5))
    torch.testing.assert_close(less.mean(1), colors().mean(1), atol=1e-6, rtol=0)


def test_each_view_is_blurred_by_its_own_width():
    draws = make_draws()
    changed = vary(colors(), draws, AugmentationOptions(blur=2.0))
    for view, draw in enumerate(draws.blur.tolist()):
        expected = blurred(colors()[view : view + 1], 2 * draw)[0]
        torch.testing.assert_close(changed[view], expected, atol=1e-3, rtol=0)  # whose tails end elsewhere
    assert torch.allclose(vary(colors(), make_draws(blur=0.0), AugmentationOptions(blur=2.0)), colors(), atol=1e-6)


def test_noise_has_the_strength_that_each_view_draws():
    draws, color = make_draws(), torch.full((6, 3, 60, 70), 0.5)
    noise = vary(color, draws, AugmentationOptions(noise=0.1)) - color
    torch.testing.assert_close(noise.flatten(1).std(1), 0.1 * draws.noise, rtol=0.03, atol=0)
    assert noise.flatten(1).mean(1).abs().max() < 4 * 0.1 / math.sqrt(3 * 60 * 70)


def test_noise_is_independent_between_places_and_seeds_and_repeats():
    seeds = torch.tensor([0.1, 0.1 + 2**-24, 0.7, 0.1])
    noise = noise_of(seeds, (3, 100, 101)).double()
    assert torch.equal(noise[0], noise[3])
    values = noise[:3].flatten(1)
    limit = 4.5 / math.sqrt(values.shape[1])
    assert (values.mean(1).abs() < limit).all() and (values.var(1) - 1).abs().max() < 2 * limit
    pairs = [(values[0], values[1]), (values[0], values[2])]
    for dim, step in ((-1, 1), (-1, 2), (-2, 1), (-3, 1)):  # along rows, columns and channels
        pairs.append((noise[0].roll(step, dim).flatten(), values[0]))
    for first, second in pairs:
        assert float((first * second).mean()) == pytest.approx(0, abs=limit)
    assert values.abs().max() < 4 and (values.abs() > 2).double().mean() == pytest.approx(0.0455, abs=0.01)


def test_only_the_colour_is_varied_and_it_stays_a_colour():
    batch, draws = make_batch(), make_draws()
    options = AugmentationOptions(**{**vars(EVERYTHING), "mirror": 0.0, "smallest_crop": 1.0})
    changed = augment(batch, draws, options)
    assert 0 <= changed.color.min() and changed.color.max() <= 1 and not torch.equal(changed.color, batch.color)
    for name in ("sh", "label", "weight", "geometry"):
        assert torch.equal(getattr(changed, name), getattr(batch, name))
    again = augment(batch, draws, options)
    assert torch.equal(again.color, changed.color)
    torch.manual_seed(99)  # no other random numbers are used
    assert torch.equal(augment(batch, draws, options).color, changed.color)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(augment(batch, draws, options).color, changed.color, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name, value", [("hue", 1.1), ("gamma", -0.1), ("noise", float("nan")), ("blur", math.inf),
                                         ("white_balance", 1.0)])  # fmt: skip
def test_refuses_impossible_options(name, value):
    with pytest.raises(UserError, match=name):
        AugmentationOptions(**{name: value})

"""Depth that is made worse: each fault does what it says and no more, and repeats by its random numbers."""

import pytest
import torch

from enet.depth_faults import smooth_noise, worsen
from enet.options import AugmentationOptions
from tests.enet.test_augmentation import make_draws

SIZE = (62, 86)  # no multiple of what is drawn


def views(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    alpha = torch.rand(count, *SIZE, generator=generator)
    return alpha * (1 + 4 * torch.rand(count, *SIZE, generator=generator)), alpha


def test_defaults_change_nothing():
    depth, alpha = views()
    worse = worsen(depth, alpha, make_draws(), AugmentationOptions())
    assert worse[0] is depth and worse[1] is alpha


def test_a_scale_is_one_for_the_whole_view():
    depth, alpha = views()
    draws = make_draws(depth_scale=1.0)
    changed, same = worsen(depth, alpha, draws, AugmentationOptions(depth_scale=0.2))
    torch.testing.assert_close(changed, 1.2 * depth)
    assert same is alpha
    middle, _ = worsen(depth, alpha, make_draws(depth_scale=0.5), AugmentationOptions(depth_scale=0.2))
    torch.testing.assert_close(middle, depth)


def test_bulges_are_smooth_of_the_asked_size_and_another_for_each_view():
    depth, alpha = views()
    draws = make_draws(depth_bulges=1.0)
    changed, same = worsen(depth, alpha, draws, AugmentationOptions(depth_bulges=0.02))
    assert same is alpha
    error = changed / depth - 1
    torch.testing.assert_close(error, 0.02 * smooth_noise(draws.depth_seed, SIZE), atol=1e-5, rtol=0)
    assert 0.01 < error.std() < 0.02  # what lies between two drawn values varies less
    assert error.diff(dim=2).abs().max() < 0.02 * 8 / 8 and (error[0] - error[1]).abs().max() > 0.01
    half = worsen(depth, alpha, make_draws(depth_bulges=0.5), AugmentationOptions(depth_bulges=0.02))[0] / depth - 1
    torch.testing.assert_close(half, error / 2, atol=1e-5, rtol=0)
    assert torch.equal(worsen(depth, alpha, draws, AugmentationOptions(depth_bulges=0.02))[0], changed)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35])
def test_holes_are_of_the_asked_share_and_have_neither_depth_nor_opacity(share):
    depth, alpha = views()
    changed, opacity = worsen(depth, alpha, make_draws(depth_holes=1.0), AugmentationOptions(depth_holes=share))
    hole = opacity != alpha
    pixels = SIZE[0] * SIZE[1]
    assert ((hole.flatten(1).sum(1) - share * pixels).abs() <= 3).all()  # equal values are on one side
    assert (opacity[hole] == 0).all() and (changed[hole] == 0).all()
    assert torch.equal(changed[~hole], depth[~hole])
    if share:  # in patches: most neighbours of a hole's pixels are in it
        assert hole[:, :, 1:][hole[:, :, :-1]].float().mean() > 0.6


def test_opacity_alone_gets_the_same_holes():
    depth, alpha = views()
    draws, options = make_draws(), AugmentationOptions(depth_scale=0.1, depth_bulges=0.1, depth_holes=0.3)
    none, opacity = worsen(None, alpha, draws, options)
    assert none is None and torch.equal(opacity, worsen(depth, alpha, draws, options)[1])


def test_smooth_noise_is_drawn_for_every_eighth_pixel():
    noise = smooth_noise(torch.rand(40, generator=torch.Generator().manual_seed(2)), SIZE)
    assert noise.shape == (40, *SIZE)
    drawn = noise[:, ::8, ::8]
    assert abs(float(drawn.mean())) < 0.06 and abs(float(drawn.std()) - 1) < 0.06
    torch.testing.assert_close(noise[:, 4, 8], (noise[:, 0, 8] + noise[:, 8, 8]) / 2)

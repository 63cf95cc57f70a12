"""``render_features`` and ``spread_features`` as the design states them."""

import inspect

import pytest
import torch

import model
from model import render_features, render_rays, spread_features
from tests.model.test_grid import random_grid
from tests.model.test_rendering import rays


def test_signatures_are_those_of_the_design():
    assert {"render_features", "spread_features"} <= set(model.__all__)
    names = ["origins", "directions", "options"]
    assert list(inspect.signature(render_features).parameters) == ["grid", "features", *names]
    assert list(inspect.signature(spread_features).parameters) == ["grid", "values", *names]


@pytest.mark.parametrize("shape", [(7,), (2, 3), (1, 2, 4), ()])
def test_leading_dimensions(shape):
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=200)
    origins, directions = rays(*shape)
    out = render_features(grid, grid.sh, origins, directions)
    assert out.shape == (*shape, 27)
    torch.testing.assert_close(out, render_rays(grid, origins, directions).sh, atol=1e-6, rtol=1e-6)
    sums, weights = spread_features(grid, out, origins, directions)
    assert sums.shape == (200, 27) and weights.shape == (200,)
    torch.testing.assert_close((sums * grid.sh).sum(), out.square().sum())


def test_means_of_a_constant_are_the_constant():
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=300)
    origins, directions = rays(500)
    sums, weights = spread_features(grid, torch.full((500, 2), 0.75), origins, directions)
    seen = weights > 1e-6
    assert seen.sum() > 50
    torch.testing.assert_close(sums[seen] / weights[seen, None], torch.full((int(seen.sum()), 2), 0.75))


@pytest.mark.parametrize(
    "features, message",
    [
        (torch.zeros(199, 3), r"features must be float16 or float32 \[200, C\], found torch.float32 \[199, 3\]"),
        (torch.zeros(200, 3).double(), "features must be float16 or float32"),
        (torch.zeros(200, 0), "at least one channel"),
    ],
)
def test_wrong_features_are_refused(features, message):
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=200)
    with pytest.raises(ValueError, match=message):
        render_features(grid, features, *rays(4))


def test_wrong_values_are_refused():
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=200)
    with pytest.raises(ValueError, match=r"values must be float16 or float32 \[2, 3, C\]"):
        spread_features(grid, torch.zeros(6, 4), *rays(2, 3))
    with pytest.raises(ValueError, match="differ in shape"):
        spread_features(grid, torch.zeros(6, 4), rays(6)[0], rays(5)[1])

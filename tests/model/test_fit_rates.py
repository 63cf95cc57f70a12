"""Learning rates of densities and RMSProp's epsilon, which mean the same at every resolution and number of rays."""

from dataclasses import replace

import pytest
import torch

from model import PlenoxelGrid, RenderOptions
from model.fitting import optimizer
from model.fitting.fitter import FitOptions
from model.fitting.optimizer import GridOptimizer
from model.fitting.options import FitGrid, FitOpen, FitOptimization, FitRegularization
from model.fitting.ray_sampler import RayBatch
from utils.errors import UserError


def test_the_density_rate_of_open_scenes_is_in_proportion_to_the_resolution():
    options = FitOptions(FitGrid(start="dense"), open=FitOpen(density_rate=(8.0, 2.0)))
    assert options.density_rate(256) == (8.0, 2.0) and options.density_rate(32) == (1.0, 0.25)
    own = replace(options, optimization=FitOptimization(density_rate=(3.0, 1.0)))
    assert own.density_rate(32) == (3.0, 1.0)
    fog = replace(options, open=FitOpen(density_rate=None))
    assert fog.density_rate(32) == (1.5, 0.3)


@pytest.mark.parametrize(("resolution", "rays"), [(8, 100), (16, 25)])
def test_epsilon_is_a_share_of_gradients_at_every_size(monkeypatch, resolution, rays):
    grid = PlenoxelGrid.from_mask(torch.ones((resolution,) * 3, dtype=torch.bool), torch.ones(resolution**3),
                                  torch.zeros(resolution**3, 27))  # fmt: skip
    used = []
    monkeypatch.setattr(optimizer.ops, "update_grid", lambda *_, epsilon, **__: used.append(epsilon))
    fitted = GridOptimizer(grid, FitOptimization(density_rate=(1.0, 1.0), epsilon=2e-4), FitRegularization(),
                           RenderOptions(), 1, torch.Generator())  # fmt: skip
    directions = torch.tensor([[0.0, 0.0, 1.0]]).expand(rays, 3).contiguous()
    batch = RayBatch(-2 * directions, directions, torch.ones(rays, 3), torch.zeros(rays, dtype=torch.long), None)
    fitted.step(0, batch, batch.colors)
    assert used == [pytest.approx(2e-4 / (resolution * rays))]


@pytest.mark.parametrize(
    ("name", "pair"),
    [("density_rate", (1.0,)), ("density_rate", (1.0, -1.0)), ("density_rate", (0.0, 1.0)), ("variation", (1.0,)),
     ("variation", (-1.0, 1.0))],
)  # fmt: skip
def test_pairs_without_a_meaning_are_refused(name, pair):
    with pytest.raises(UserError, match=rf"FitOpen.{name} = .*: expected two"):
        FitOpen(**{name: pair})

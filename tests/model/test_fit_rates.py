"""Learning rates of densities, which mean the same at every resolution, and pairs of options."""

from dataclasses import replace

import pytest

from model.fitting.fitter import FitOptions
from model.fitting.options import FitGrid, FitOpen, FitOptimization
from utils.errors import UserError


def test_the_density_rate_of_open_scenes_is_in_proportion_to_the_resolution():
    options = FitOptions(FitGrid(start="dense"), open=FitOpen(density_rate=(8.0, 2.0)))
    assert options.density_rate(256) == (8.0, 2.0) and options.density_rate(32) == (1.0, 0.25)
    own = replace(options, optimization=FitOptimization(density_rate=(3.0, 1.0)))
    assert own.density_rate(32) == (3.0, 1.0)
    fog = replace(options, open=FitOpen(density_rate=None))
    assert fog.density_rate(32) == (1.5, 0.3)


@pytest.mark.parametrize(
    ("name", "pair"),
    [("density_rate", (1.0,)), ("density_rate", (1.0, -1.0)), ("density_rate", (0.0, 1.0)), ("variation", (1.0,)),
     ("variation", (-1.0, 1.0))],
)  # fmt: skip
def test_pairs_without_a_meaning_are_refused(name, pair):
    with pytest.raises(UserError, match=rf"FitOpen.{name} = .*: expected two"):
        FitOpen(**{name: pair})

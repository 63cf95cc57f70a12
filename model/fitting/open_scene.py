"""The options of a fit where nothing bounds the scene (`FitOpen`)."""

from __future__ import annotations

from dataclasses import replace

from model.fitting.fitter import FitOptions
from model.fitting.options import FitGrid, FitOptimization, FitRegularization

_SMALLEST = 16
"""Voxels along each axis of the coarsest level."""


def of_open_scene(options: FitOptions) -> FitOptions:
    """The options with what ``options.open`` says, ``options.open.nested`` being known."""
    grid, optimization = _coarse_levels_first(options)
    return replace(
        options, grid=grid, regularization=_regularization(options),
        optimization=replace(
            optimization, epsilon=options.open.epsilon if optimization.epsilon is None else optimization.epsilon
        ),
    )  # fmt: skip


def _regularization(options: FitOptions) -> FitRegularization:
    """Nothing is measured; instead a share of every ray is taken as free, and nested grids are to be smoother."""
    usual, factors = options.regularization, options.open.variation if options.open.nested > 1 else (1.0, 1.0)
    return replace(
        usual, depth=0.0, free_space_margin=0.0, free_space=options.open.near_weight if options.open.near else 0.0,
        tv_density=tuple(factor * weight for factor, weight in zip(factors, usual.tv_density, strict=True)),
        tv_sh=tuple(factor * weight for factor, weight in zip(factors, usual.tv_sh, strict=True)),
    )  # fmt: skip


def _coarse_levels_first(options: FitOptions) -> tuple[FitGrid, FitOptimization]:
    """Coarser levels before the first, which share its steps; at most ``options.open.coarse`` of them."""
    grid, optimization = options.grid, options.optimization
    multiple = 8 if options.open.nested > 1 else 2  # 4 divides the sides of nested grids
    sizes = [grid.resolutions[0]]
    while len(sizes) <= options.open.coarse and sizes[0] % multiple == 0 and sizes[0] >= 2 * _SMALLEST:
        sizes.insert(0, sizes[0] // 2)
    sizes = sizes[-optimization.steps[0] :]  # a step each
    each, rest = divmod(optimization.steps[0], len(sizes))
    steps = [each] * (len(sizes) - 1) + [each + rest]
    rays = optimization.rays_per_step
    if len(rays) > 1:
        rays = (rays[0],) * (len(sizes) - 1) + rays
    opacity = 1 - (1 - grid.unknown_opacity) ** (grid.resolutions[0] // sizes[0])  # fog as dense as in the finer ones
    return (
        replace(grid, resolutions=(*sizes, *grid.resolutions[1:]), unknown_opacity=opacity),
        replace(optimization, steps=(*steps, *optimization.steps[1:]), rays_per_step=rays),
    )

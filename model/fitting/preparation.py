"""A fitter for a scene of any layout: resolves "auto" options by the data that the scene has."""

from __future__ import annotations

from dataclasses import replace
from operator import mul
from typing import TYPE_CHECKING

from model.fitting.extent import (
    background_layers,
    camera_nearness,
    choose_start,
    is_open,
    nested_grids,
    place_scene,
    surface_points,
)
from model.fitting.fitter import FitOptions, Fitter
from model.fitting.frames import Frames
from model.fitting.options import FitData, FitRegularization
from model.fitting.placement import Placement

if TYPE_CHECKING:
    from dataloader import Scene


def prepare_fitter(
    scene: Scene, frames: Frames, data: FitData, options: FitOptions, seed: int = 0
) -> tuple[Fitter, Placement]:
    """A fitter at its first step, and the placement of its grid.

    Args:
        frames: the scene's training frames, on the device to fit on.
    """
    grid, poses = options.grid, options.poses
    start = choose_start(scene, frames, grid.start)
    cloud = surface_points(scene, frames, grid, start)
    open_scene = is_open(scene, frames, start)
    nested = nested_grids(frames, cloud, options.open, grid, open_scene)
    placement = place_scene(scene, frames, cloud, start, grid.camera_space, nested)
    if poses.tracked_only and not frames.have_depth:
        poses = replace(poses, rounds=0)
    layers = background_layers(scene, frames, options.background, start)
    options = replace(
        options, grid=replace(grid, start=start), poses=poses, background=replace(options.background, layers=layers),
        open=replace(options.open, nested=nested),
    )  # fmt: skip
    if open_scene:
        options = replace(options, regularization=_of_open_scene(options))
    else:
        options = replace(options, open=replace(options.open, clearance=0.0, near=0.0, density_rate=None))
    exposure = data.exposure and frames.alphas is None
    near = camera_nearness(scene, frames.camera_to_world)
    return Fitter(frames, placement, cloud, options, seed, exposure, near), placement


def _of_open_scene(options: FitOptions) -> FitRegularization:
    """Nothing is measured; instead a share of every ray is taken as free, and nested grids are to be smoother."""
    usual, factors = options.regularization, options.open.variation if options.open.nested > 1 else (1.0, 1.0)
    return replace(
        usual, tv_density=tuple(map(mul, factors, usual.tv_density)), tv_sh=tuple(map(mul, factors, usual.tv_sh)),
        depth=0.0, free_space_margin=0.0, free_space=options.open.near_weight if options.open.near else 0.0,
    )  # fmt: skip

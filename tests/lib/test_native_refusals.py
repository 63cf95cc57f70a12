"""Raw ops called with every kind of wrong argument: a named error each, and never a read beyond a tensor.

Values of links are the exception: they are looked at once, when a `VoxelIndex` is made, and its last tests are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
import torch

import lib.plenoxel.features
import lib.plenoxel.layers  # noqa: F401
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions, option_numbers
from lib.raster.ops import _load_library
from tests.lib.plenoxel_scenes import random_rays, random_scene, render

_load_library()
RAYS, ROWS, NAN, INF = 70, 126, math.nan, math.inf


def rays_of(scene, distance=True) -> dict:
    rays = scene._asdict()
    origins, directions = random_rays(RAYS, torch.Generator().manual_seed(1), torch.float32)
    return {
        "links": rays["links"], **({"distance": torch.ops.plenoxel.cell_distance(rays["links"])} if distance else {}),
        "density": rays["density"].float(), "origins": origins, "directions": directions,
        "scene_index": torch.zeros(RAYS, dtype=torch.int32), "center": [0.0, 0.0, 0.0], "radius": [1.0, 1.0, 1.0],
        "options": option_numbers(RenderOptions()),
    }  # fmt: skip


def calls() -> dict[str, tuple[Callable, dict]]:
    scene = random_scene()
    assert len(scene.density) == ROWS
    sh, rays, links = scene.sh.float(), rays_of(scene), {"links": scene.links}
    values = {"density": scene.density.float(), "sh": sh}
    layers = {"texture": torch.rand(4, 8, 3, 4), "origins": rays["origins"], "directions": rays["directions"],
              "step_size": 0.5, "brightness": 1.0, "density_unit": 1.0}  # fmt: skip
    images = {"rgb": torch.rand(RAYS, 3), "depth": torch.rand(RAYS)}
    plenoxel = torch.ops.plenoxel
    touched = torch.ones(ROWS, dtype=torch.bool)
    steps = {"beta": 0.9, "epsilon": 1e-8}
    return {
        "cell_distance": (plenoxel.cell_distance, links),
        "render_rays": (plenoxel.render_rays, {**rays, "sh": sh, "outputs": 15}),
        "render_rays_backward": (plenoxel.render_rays_backward, {
            **rays, "sh": sh, "grad_rgb": images["rgb"], "grad_sh": torch.rand(RAYS, 27),
            "grad_depth": images["depth"], "grad_alpha": images["depth"]}),
        "max_weight": (plenoxel.max_weight, {**rays, "weights": torch.zeros(ROWS)}),
        "fit_gradients": (plenoxel.fit_gradients, {
            **rays, "sh": sh, "target_rgb": images["rgb"], "ray_weights": images["rgb"].clone(),
            "depth_target": images["depth"], "background": images["rgb"].clone(), "losses": [0.1] * 5,
            "grad_density": torch.zeros(ROWS), "grad_sh": torch.zeros(ROWS, 27), "touched": touched.clone(),
            "transmittance": torch.zeros(RAYS)}),
        "rmsprop_step": (plenoxel.rmsprop_step, {
            "param": sh.clone(), "grad": sh.clone(), "square_avg": sh.clone(), "lr": 0.1, **steps,
            "touched": touched.clone()}),
        "update_grid": (plenoxel.update_grid, {
            **links, "density": values["density"].clone(), "sh": sh.clone(), "grad_density": torch.rand(ROWS),
            "grad_sh": torch.rand(ROWS, 27), "square_density": torch.zeros(ROWS), "square_sh": torch.zeros(ROWS, 27),
            "touched": touched.clone(), "first_cell": 0, "num_cells": 100, "density_variation": 1.0,
            "sh_variation": 1.0, "density_rate": 0.1, "sh_rate": 0.1, **steps}),
        "sample_grid": (plenoxel.sample_grid, {**links, **values, "points": torch.rand(9, 3) * 4}),
        "render_features": (plenoxel.render_features, {**rays, "features": torch.rand(ROWS, 5)}),
        "spread_features": (plenoxel.spread_features, {**rays, "values": torch.rand(RAYS, 5)}),
        "shade_layers": (plenoxel.shade_layers, {**layers, "seen": torch.ones(RAYS, dtype=torch.bool)}),
        "shade_layers_gradients": (plenoxel.shade_layers_gradients, {
            **layers, "grad_rgb": images["rgb"], "grad_texture": torch.zeros(4, 8, 3, 4),
            "touched": torch.zeros(4, 8, dtype=torch.bool)}),
        "rasterize": (torch.ops.raster.rasterize, {
            "vertices": torch.rand(12, 3), "faces": torch.randint(0, 12, (20, 3), dtype=torch.int32),
            "world_to_camera": torch.eye(4).double()[None].repeat(2, 1, 1),
            "intrinsics": torch.eye(3).double()[None].repeat(2, 1, 1),
            "mesh_ranges": torch.tensor([[0, 12, 0, 20], [0, 12, 5, 9]]), "height": 6, "width": 7, "near": 0.1,
            "with_depth": True, "with_barycentric": True}),
    }  # fmt: skip


# Sizes that other arguments do not fix: (op, argument, dimension).
FREE = {
    *((op, "links", axis) for op in ("cell_distance", "sample_grid", "update_grid") for axis in range(3)),
    ("sample_grid", "points", 0), ("spread_features", "density", 0), ("spread_features", "values", 1),
    ("render_features", "features", 1), ("shade_layers", "texture", 2), ("rasterize", "vertices", 0),
    ("rasterize", "faces", 0),
}  # fmt: skip
ANY_RANK = {("cell_distance", "links")}  # a stack of one
WRONG_NUMBERS = {
    "step_size": (0.0, -1.0, 1e-5), "near": (0.0, -1.0, 1e-60, 1e60), "beta": (-0.1, 1.5), "epsilon": (-1.0,),
    "outputs": (-1, 16, 2**40), "first_cell": (-1, 2**62, 316), "num_cells": (-1, 2**62, 2**63 - 1, 316),
    "height": (0, -4, 16385, 2**32 + 4), "width": (0, -4, 16385, 2**40),
}  # fmt: skip
WRONG_OPTIONS = ((0, -0.5), (0, 1e-9), (1, -1.0), (2, -1.0), (2, 1.0), (3, -1.0))  # (number, value)


def larger(tensor: torch.Tensor, dimension: int) -> torch.Tensor:
    return torch.cat((tensor, tensor.narrow(dimension, 0, 1)), dimension)


def strided(tensor: torch.Tensor) -> torch.Tensor:
    return torch.stack((tensor, tensor), -1)[..., 0]


def mistakes(op: str, name: str, value) -> Iterator[tuple[str, object]]:
    """What is wrong, and the wrong value."""
    if isinstance(value, torch.Tensor):
        if (op, name) not in ANY_RANK:
            yield "rank", value[None]
        yield "no rank", value.reshape(-1)[0]
        for dimension in range(value.dim()):
            if (op, name, dimension) not in FREE:
                yield f"size {dimension}", larger(value, dimension)
            if value.dim() > 1:
                yield f"none {dimension}", value.narrow(dimension, 0, 0)
        yield "dtype", value.to(torch.int16)
        yield "complex", value.to(torch.complex64)
        yield "strides", strided(value)
    elif isinstance(value, list):
        yield "short", value[:-1]
        yield "long", [*value, 0.5]
        for number in range(len(value)):
            if (name, number) != ("options", 5):  # a flag
                yield from ((f"{number}: {wrong}", [*value[:number], wrong, *value[number + 1:]])
                            for wrong in (NAN, INF, 1e60))  # fmt: skip
        if name == "options":
            yield from ((f"{n}: {wrong}", [*value[:n], wrong, *value[n + 1:]]) for n, wrong in WRONG_OPTIONS)
        if name == "radius":
            yield from ((str(wrong), [1.0, wrong, 1.0]) for wrong in (0.0, -1.0, 1e-60))
    elif not isinstance(value, bool):
        yield from ((str(wrong), wrong) for wrong in WRONG_NUMBERS.get(name, ()))
        if isinstance(value, float):
            yield from ((str(wrong), wrong) for wrong in (NAN, INF, -INF, 1e60))


CALLS = calls()
EMPTY_FITS = {  # arguments that may be without items
    ("sample_grid", "points", "none 0"), ("rasterize", "faces", "none 0"), ("render_features", "features", "none 0"),
    ("rasterize", "mesh_ranges", "none 0"),
}  # fmt: skip
WRONG = [
    pytest.param(op, name, value, id=f"{op}-{name}-{kind}")
    for op, (_, arguments) in CALLS.items() for name, right in arguments.items()
    for kind, value in mistakes(op, name, right) if (op, name, kind) not in EMPTY_FITS
]  # fmt: skip


@pytest.mark.parametrize("op", CALLS)
def test_right_arguments_are_taken(op):
    function, arguments = CALLS[op]
    function(**arguments)


@pytest.mark.parametrize("op, name, value", WRONG)
def test_a_wrong_argument_is_a_named_error(op, name, value):
    function, arguments = CALLS[op]
    names = "|".join([*arguments, *(field.name for field in fields(RenderOptions)), "grid must", "image size"])
    with pytest.raises((RuntimeError, ValueError), match=names):
        function(**{**arguments, name: value})


@pytest.mark.parametrize("ranges", [[[0, 13, 0, 20]], [[-1, 12, 0, 20]], [[5, 4, 0, 20]], [[0, 12, 0, 21]],
                                    [[0, 12, 9, 5]], [[0, 12, -2**62, 2**62]], [[0, 2**62, 0, 20]]])  # fmt: skip
def test_views_show_no_more_of_a_mesh_than_there_is(ranges):
    function, arguments = CALLS["rasterize"]
    with pytest.raises(RuntimeError, match="mesh_ranges name vertices"):
        function(**{**arguments, "mesh_ranges": torch.tensor(ranges)})


@pytest.mark.parametrize("vertex", [-1, 12, 2**31 - 1, -2**31, 2**32, 2**62, -2**63])
def test_faces_that_name_no_vertex_are_told(vertex):
    function, arguments = CALLS["rasterize"]
    dtype = torch.int32 if -2**31 <= vertex < 2**31 else torch.int64
    faces = arguments["faces"].to(dtype)
    faces[7, 1] = vertex
    ranges = torch.tensor([[3, 12, 0, 20]])
    assert int(function(**{**arguments, "faces": faces, "mesh_ranges": ranges})[3]) >= 7


@pytest.mark.parametrize("scene", [-1, 1, 2**31 - 1, -2**31])
@pytest.mark.parametrize("op", [op for op, (_, arguments) in CALLS.items() if "scene_index" in arguments])
def test_a_scene_that_is_not_in_the_stack_is_named(op, scene):
    function, arguments = CALLS[op]
    with pytest.raises(RuntimeError, match=f"scene_index names grid {scene} of a stack of 1"):
        function(**{**arguments, "scene_index": torch.full((RAYS,), scene, dtype=torch.int32)})


def test_a_stack_without_grids_is_refused():
    function, arguments = CALLS["render_rays"]
    with pytest.raises(RuntimeError, match="links must hold at least one grid"):
        function(**{**arguments, "links": torch.zeros(0, 7, 5, 9).int(), "distance": torch.zeros(0, 7, 5, 9).byte(),
                    "scene_index": None})  # fmt: skip


def test_a_grid_without_rows_is_transparent_to_every_op():
    scene = random_scene()
    empty = {"links": torch.full_like(scene.links, -1), "density": torch.zeros(0), "sh": torch.zeros(0, 27)}
    rays = {**rays_of(scene), "links": empty["links"], "density": empty["density"],
            "distance": torch.ops.plenoxel.cell_distance(empty["links"])}  # fmt: skip
    rgb, sh, depth, alpha = torch.ops.plenoxel.render_rays(**rays, sh=empty["sh"], outputs=15)
    assert bool((rgb == 1).all()) and not sh.any() and not depth.any() and not alpha.any()
    assert not torch.ops.plenoxel.render_features(**rays, features=torch.zeros(0, 5)).any()
    sums, weights = torch.ops.plenoxel.spread_features(**rays, values=torch.ones(RAYS, 5))
    assert sums.shape == (0, 5) and weights.shape == (0,)
    sigma, coefficients = torch.ops.plenoxel.sample_grid(**empty, points=torch.rand(9, 3))
    assert not sigma.any() and not coefficients.any()


@pytest.mark.parametrize("origin", [0.0, NAN, INF, -INF, 3e38, 1e30, 1e-45])
@pytest.mark.parametrize("direction", [0.0, NAN, INF, 3e38, 1e30, 1e-30, 1e-45])
def test_rays_that_are_none_read_nothing_beyond_the_grid(origin, direction):
    scene = random_scene()
    scene = scene._replace(
        density=scene.density.float(), sh=scene.sh.float(), origins=torch.full((3, 3), origin) * torch.eye(3),
        directions=torch.full((3, 3), direction) * torch.eye(3).roll(1, 0),
    )  # fmt: skip
    assert render(scene).rgb.shape == (3, 3)
    torch.ops.plenoxel.sample_grid(scene.links, scene.density, scene.sh, torch.full((2, 3), origin))
    torch.ops.plenoxel.shade_layers(torch.rand(4, 8, 3, 4), *scene.rays, None, 0.5, 1.0, 1.0)


@pytest.mark.parametrize("links, message", [
    (torch.zeros(3, 3, 3).int() + 27, "must be -1 or a row from 0 to 26, found 27"),
    (torch.full((3, 3, 3), -2, dtype=torch.int32), "found -2"), (torch.zeros(3, 3, 3).int(), "each of 27 rows once"),
    (torch.full((3, 3, 3), 2**31 - 1, dtype=torch.int32), "found 2147483647"),
    (torch.arange(27).view(3, 3, 3), "must be int32"), (torch.arange(27).int(), "must be int32"),
    (torch.zeros(0, 3, 3, 3).int(), "at least one grid"), (torch.zeros(1, 3, 9).int(), "at least 2 voxels"),
    (torch.full((2, 2, 2**24 + 1), -1, dtype=torch.int32), "at most 16777216 voxels"),
])  # fmt: skip
def test_links_that_kernels_could_not_trust_are_refused_once(links, message):
    with pytest.raises(ValueError, match=message):
        VoxelIndex(links, 27 if "16777216" not in message else 0)


@pytest.mark.parametrize("box", [{"radius": (1.0, NAN, 1.0)}, {"radius": (INF, 1.0, 1.0)}, {"center": (NAN, 0.0, 0.0)},
                                 {"radius": (1.0, 0.0, 1.0)}, {"radius": (1.0, 1.0)}, {"center": (1e60, 0, 0)}])
def test_a_grid_that_is_nowhere_is_refused(box):
    with pytest.raises(ValueError, match=next(iter(box))):
        VoxelIndex(torch.arange(27).view(3, 3, 3).int(), 27, **box)


@pytest.mark.parametrize("name", ["step_size", "sigma_thresh", "stop_thresh", "near_clip", "background_brightness"])
@pytest.mark.parametrize("value", [NAN, INF, 1e60])
def test_options_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=f"RenderOptions.{name} must be"):
        RenderOptions(**{name: value})


def test_steps_too_short_to_end_are_refused():
    with pytest.raises(ValueError, match="RenderOptions.step_size must be at least 0.001"):
        RenderOptions(step_size=1e-7)

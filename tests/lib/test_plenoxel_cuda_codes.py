"""Grids whose coefficients came from bytes: rendered from these on a GPU, as from the floats they stand for."""

import pytest
import torch

from lib.plenoxel import ops
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.options import RenderOptions
from tests.lib.cuda_parity import assert_agrees, needs_gpu, on_gpu
from tests.lib.plenoxel_scenes import Scene, random_scene

pytestmark = needs_gpu

SHAPES = [(7, 5, 9), (33, 64, 20), (1, 3, 16, 16, 16)]


def quantized_scene(shape, brightness=0.0, rays=3000) -> tuple[Scene, torch.Tensor, torch.Tensor]:
    """A scene, and the low and scale, and the codes, that its coefficients are made of."""
    scene = random_scene(shape, rays=rays, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 256, scene.sh.shape, generator=generator)
    low, scale = -torch.rand(27, generator=generator), torch.rand(27, generator=generator) / 128
    low[::9] += brightness
    sh = codes.float() * scale + low
    return on_gpu(scene._replace(sh=sh)), torch.stack((low, scale)).cuda(), codes.cuda()


def handle(scene: Scene, quantization: torch.Tensor) -> GridHandle:
    grid = scene.grid()
    return GridHandle(grid.index, grid.density, grid.sh, quantization)


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_hold_the_bytes_that_the_coefficients_came_from(shape):
    scene, quantization, codes = quantized_scene(shape)
    rows = handle(scene, quantization).packed.rows
    assert rows.dtype == torch.uint8 and rows.shape == (len(codes), 32)
    assert torch.equal(rows[:, :27].long(), codes)
    assert (rows[:, 27] == 1).all() and not rows[:, 28:].any()


@pytest.mark.parametrize("outputs", [("rgb", "sh", "depth", "alpha"), ("rgb",), ("sh",), ("depth", "alpha")])
@pytest.mark.parametrize("brightness", [0.0, 30.0], ids=["colours that clamp", "bright"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_render_as_the_floats_they_stand_for(shape, brightness, outputs):
    scene, quantization, _ = quantized_scene(shape, brightness)
    options = RenderOptions(step_size=0.3, sh_background=True, background_brightness=0.5)
    grid = handle(scene, quantization)
    assert bool(grid.packed.clamps) == (brightness == 0.0)
    actual = ops.render_rays(grid, *scene.rays, options, outputs)
    expected = ops.render_rays(scene.grid(), *scene.rays, options, outputs)
    for one, other in zip(actual, expected, strict=True):
        if one is not None:
            assert_agrees(one, other.cpu())


@pytest.mark.parametrize("count", [1, 31, 33, 1000])
def test_the_number_of_rays_changes_no_bit(count):
    scene, quantization, _ = quantized_scene((33, 64, 20))
    grid = handle(scene, quantization)
    everything = ops.render_rays(grid, *scene.rays, RenderOptions())
    some = ops.render_rays(grid, scene.origins[-count:], scene.directions[-count:], RenderOptions())
    for one, other in zip(some, everything, strict=True):
        assert torch.equal(one, other[-count:])


def test_other_coefficients_are_rendered_from_floats():
    scene, quantization, _ = quantized_scene((7, 5, 9))
    grid = handle(scene, quantization)
    assert grid.with_values(density=scene.density * 2).packed.rows.dtype == torch.uint8
    other = grid.with_values(sh=scene.sh + 0.001)
    assert other.quantization is None and other.packed.rows.dtype == torch.float32
    grid.sh.add_(0.001)
    grid.values_changed()
    assert grid.packed.rows.dtype == torch.float32
    for one, same in zip(ops.render_rays(grid, *scene.rays, RenderOptions()),
                         ops.render_rays(other, *scene.rays, RenderOptions()), strict=True):
        assert torch.equal(one, same)

"""Packed copies of a grid on the GPU: smaller storage, tiles, and when a copy is made again."""

import pytest
import torch

from lib.plenoxel import ops, packed
from lib.plenoxel.reference_march import sh_basis
from tests.lib.cuda_parity import assert_agrees, needs_gpu, on_gpu, render_packed, scene_of
from tests.lib.plenoxel_scenes import random_scene, update_with_equal_gradients

pytestmark = needs_gpu


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64, 100])
def test_tiles_change_nothing(width):
    scene = on_gpu(random_scene((7, 5, 9), rays=width * 13, dtype=torch.float32))
    for actual, expected in zip(render_packed(scene, image_width=width), render_packed(scene), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("storage, tolerance", [("float16", 1e-3), ("uint8", 2e-2)])
def test_smaller_storage(storage, tolerance):
    scene = scene_of((33, 64, 20))
    out, exact = render_packed(on_gpu(scene), storage), ops.render_rays(*scene)
    assert (out.sh.cpu() - exact.sh).abs().max() <= tolerance
    assert (out.rgb.cpu() - exact.rgb).abs().max() <= 2 * tolerance
    if storage == "uint8":  # the error is that of the stored numbers, not of the arithmetic
        least, step = scene.sh.amin(0), (scene.sh.amax(0) - scene.sh.amin(0)) / 255
        stored = ((scene.sh - least) / (step + 1e-12)).round() * step + least
        exact = ops.render_rays(*scene._replace(sh=stored))
        assert_agrees(out.sh, exact.sh, flips=1)
        assert_agrees(out.rgb, exact.rgb, flips=1)


def test_may_clamp_is_never_wrong_and_not_always_true():
    generator = torch.Generator().manual_seed(9)
    sh = torch.randn(2000, 27, generator=generator) * 0.25
    sh[:, ::9] += 0.6
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator), dim=-1)
    colors = torch.einsum("vcb,db->vdc", sh.unflatten(1, (3, 9)), sh_basis(directions)) + 0.5
    below, flagged = (colors < 0).any(-1).any(-1), packed.may_clamp(sh)
    assert not (below & ~flagged).any()
    assert below.any() and (~flagged).any()


def test_packed_grid_follows_changes():
    scene = on_gpu(random_scene((7, 5, 9), rays=9000, dtype=torch.float32))
    before = ops.render_rays(*scene).rgb
    assert torch.equal(ops.render_rays(*scene).rgb, before)
    scene.density.mul_(0.5)
    after = ops.render_rays(*scene).rgb
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, render_packed(scene).rgb)


def test_packed_grid_follows_a_fits_steps():
    scene = on_gpu(random_scene((7, 5, 9), rays=9000, dtype=torch.float32))
    before = ops.render_rays(*scene).rgb
    update_with_equal_gradients(scene)
    after = ops.render_rays(*scene).rgb
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, render_packed(scene).rgb)

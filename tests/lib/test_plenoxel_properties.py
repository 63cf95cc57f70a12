"""What must hold for every grid and every ray, whatever the numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.plenoxel import ops
from lib.plenoxel.options import RenderOptions, option_numbers
from tests.lib.plenoxel_scenes import Scene, random_scene, render, run

scenes = st.builds(
    random_scene,
    resolution=st.tuples(*[st.integers(2, 12)] * 3),
    share=st.floats(0.02, 1.0),
    rays=st.integers(1, 130),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
options = st.fixed_dictionaries(
    {
        "step_size": st.floats(0.05, 2.0),
        "sigma_thresh": st.sampled_from([0.0, 1e-10, 2.0]),
        "stop_thresh": st.sampled_from([0.0, 1e-7, 1e-2]),
        "near_clip": st.sampled_from([0.0, 0.3]),
        "background_brightness": st.sampled_from([0.0, 0.5, 1.0]),
    }
)
quickly = settings(max_examples=40, deadline=None)


@pytest.fixture
def restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@quickly
@given(scenes, options, st.integers(1, 140))
def test_tiles_change_no_bit(scene, options, width):
    for tiled, plain in zip(render(scene, **options, image_width=width), render(scene, **options), strict=True):
        assert torch.equal(tiled, plain)


@quickly
@given(scenes, options)
def test_outputs_are_finite_and_alpha_is_a_share(scene, options):
    out = render(scene, **options)
    assert all(value.isfinite().all() for value in out)
    assert (out.alpha >= 0).all() and (out.alpha <= 1).all()
    farthest = out.alpha * (scene.origins.norm(dim=-1) + math.sqrt(3) * 1.5)  # of a point in the box
    assert (out.depth >= 0).all() and (out.depth <= farthest + 1e-4).all()
    assert (out.rgb >= 0).all()


@quickly
@given(scenes, options, st.floats(-3, 3))
def test_sh_image_is_linear_in_the_coefficients(scene, options, factor):
    other = scene.sh.flip(0)
    image = lambda sh: render(scene._replace(sh=sh), outputs=("sh",), **options).sh  # noqa: E731
    combined = image(scene.sh + factor * other)
    torch.testing.assert_close(combined, image(scene.sh) + factor * image(other), atol=2e-5, rtol=1e-5)


@quickly
@given(scenes, options)
def test_constant_coefficients_come_back_times_alpha(scene, options):
    """On a full grid every sample interpolates the constant, and without early stopping the weights sum to alpha."""
    row = torch.linspace(-1, 1, 27, dtype=scene.sh.dtype)
    full = torch.arange(scene.links.numel(), dtype=torch.int32).view(scene.links.shape)
    density = scene.density.repeat(scene.links.numel() // len(scene.density) + 1)[: scene.links.numel()]
    scene = scene._replace(links=full, density=density, sh=row.expand(len(density), 27).contiguous())
    out = render(scene, **{**options, "stop_thresh": 0.0})
    torch.testing.assert_close(out.sh, out.alpha[:, None] * row, atol=1e-5, rtol=1e-5)


@quickly
@given(scenes, options, st.data())
def test_batches_give_the_same_bits(scene, options, data):
    cut = data.draw(st.integers(0, len(scene.origins)))
    whole = render(scene, **options)
    parts = [
        render(scene._replace(origins=scene.origins[part], directions=scene.directions[part]), **options)
        for part in (slice(0, cut), slice(cut, None))
    ]
    for name, value in whole._asdict().items():
        assert torch.equal(value, torch.cat([getattr(part, name) for part in parts]))


def everything(scene: Scene) -> list[torch.Tensor]:
    """Every kind of result for one scene."""
    density, sh = scene.density.clone().requires_grad_(), scene.sh.clone().requires_grad_()
    out = render(scene._replace(density=density, sh=sh))
    sum(value.square().sum() for value in out).backward()
    gradients = torch.zeros_like(scene.density), torch.zeros_like(scene.sh)
    losses = {"beta_lambda": 0.1, "sparsity_lambda": 0.1}
    rgb = run(ops.fit_gradients, scene, torch.zeros_like(scene.origins), *gradients, **losses)
    weights = torch.zeros_like(scene.density)
    run(ops.max_weight, scene, weights)
    fitted = scene._replace(density=scene.density.clone(), sh=scene.sh.clone()).grid()
    means = torch.zeros_like(scene.density), torch.zeros_like(scene.sh)
    sums = [gradient.clone() for gradient in gradients]
    ops.update_grid(fitted, *sums, *means, weights > 0, lr_density=0.1, lr_sh=0.1, tv_density=0.1, tv_sh=0.1)
    samples = ops.sample_grid(fitted, scene.origins)
    return [
        *out, density.grad, sh.grad, rgb, *gradients, weights, fitted.density, fitted.sh, *sums, *means, *samples,
        fitted.index.distance,
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_do_not_depend_on_the_number_of_threads(dtype, restore_threads):
    scene = random_scene(resolution=(20, 16, 24), share=0.3, rays=9000, dtype=dtype)  # more than one pass of rays
    torch.set_num_threads(1)
    expected = everything(scene)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        for actual, wanted in zip(everything(scene), expected, strict=True):
            assert torch.equal(actual, wanted)


@quickly
@given(scenes, st.sampled_from([0.5, 0.05, 0.37, 0.1, 1 / 3]))
def test_leaping_over_empty_space_changes_no_bit(scene, step_size):
    """With a distance of 0 everywhere every sample is visited; leaps must land on the same samples, bit for bit."""
    for leapt, walked in zip(*leapt_and_walked(scene, step_size), strict=True):
        assert torch.equal(leapt, walked)


def leapt_and_walked(scene: Scene, step_size: float, **box):
    """A rendering as it is, and one that looks at every sample."""
    grid = scene.grid(**box)
    options = [grid.index.center, grid.index.radius, option_numbers(RenderOptions(step_size=step_size)), 15]
    return [
        torch.ops.plenoxel.render_rays(scene.links, distance, scene.density, scene.sh, *scene.rays, None, *options)
        for distance in (grid.index.distance, torch.zeros_like(grid.index.distance))
    ]


@pytest.mark.parametrize("step_size", [0.5, 0.05, 0.1, 1 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_leaps_are_exact(step_size, dtype):
    """A single thin wall at the far end of a long grid: leaps cross many powers of two of t."""
    links = torch.full((400, 8, 8), -1, dtype=torch.int32)
    links[350:352] = torch.arange(2 * 64, dtype=torch.int32).view(2, 8, 8)
    generator = torch.Generator().manual_seed(0)
    density, sh = torch.full((128,), 3.0, dtype=dtype), torch.randn(128, 27, generator=generator, dtype=dtype)
    ends = torch.rand(2, 500, 3, generator=generator, dtype=dtype) * 1.6 - 0.8
    ends[0, :, 0], ends[1, :, 0] = -1 - torch.rand(500, generator=generator, dtype=dtype), 1.5
    directions = torch.nn.functional.normalize(ends[1] - ends[0], dim=-1)
    scene = Scene(links, density, sh, ends[0], directions)
    leapt, walked = leapt_and_walked(scene, step_size, radius=(1.0, 0.8, 0.8))
    alpha = leapt[3]
    assert (alpha > 0).sum() > 400
    for one, other in zip(leapt, walked, strict=True):
        assert torch.equal(one, other)

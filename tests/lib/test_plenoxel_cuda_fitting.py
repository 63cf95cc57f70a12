"""The CUDA ops that a fit is made of, against the C++ ones and the golden gradients."""

import pytest
import torch

from lib.plenoxel import ops
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions
from tests.lib.cuda_parity import (
    OPTIONS,
    TRACED,
    assert_agrees,
    assert_close_to_largest,
    each_renderer,
    needs_cache,
    needs_gpu,
    on_gpu,
    scene_of,
)
from tests.lib.plenoxel_scenes import Scene, golden_named, random_grid, render, run

pytestmark = needs_gpu


@pytest.mark.parametrize("lambdas", ["mse", "reg"])
@pytest.mark.parametrize("name", ["cut_0", "cut_1", "svox2_0", "svox2_1"])
def test_golden_gradients(name, lambdas, request):
    golden = golden_named(name, request)
    scene, extra = on_gpu(golden.scene), {"beta_lambda": 1e-3, "sparsity_lambda": 1e-6} if lambdas == "reg" else {}
    *rays, target = (tensor.cuda() for tensor in golden.fit_batch())
    scene = Scene(*scene[:3], *rays)
    for i in range(3):
        gradients = torch.zeros_like(scene.density), torch.zeros_like(scene.sh)
        run(ops.fit_gradients, scene, target, *gradients, **golden.options[i], **extra)
        for gradient, key in zip(gradients, (f"grad_sigma_{lambdas}_{i}", f"grad_sh_{lambdas}_{i}"), strict=True):
            if key in golden.arrays:
                assert_close_to_largest(gradient[golden.graded.cuda()], golden.arrays[key], 1e-4)


@pytest.mark.parametrize("outputs", [("rgb",), ("sh",), ("depth", "alpha"), ("rgb", "sh", "depth", "alpha")])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("resolution", TRACED)
def test_backward_as_the_cpu(resolution, options, outputs):
    scene = scene_of(resolution)
    generator = torch.Generator().manual_seed(1)
    cotangents = None
    gradients = []
    for move in (lambda tensor: tensor, lambda tensor: tensor.cuda()):
        moved = Scene(*map(move, scene))
        density, sh = moved.density.detach().requires_grad_(), moved.sh.detach().requires_grad_()
        out = render(moved._replace(density=density, sh=sh), outputs=outputs, **options)
        values = [getattr(out, name) for name in outputs]
        cotangents = cotangents or [torch.randn(value.shape, generator=generator) for value in values]
        pairs = zip(values, map(move, cotangents), strict=True)
        loss = sum((value * cotangent).sum() for value, cotangent in pairs)
        gradients.append(torch.autograd.grad(loss, (density, sh), materialize_grads=True))
    for expected, actual in zip(*gradients, strict=True):
        assert_close_to_largest(actual, expected, 1e-4)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("resolution", TRACED)
@pytest.mark.parametrize("colored", [False, True])
def test_fit_gradients_as_the_cpu(colored, resolution, options):
    scene = scene_of(resolution)
    options = {name: value for name, value in options.items() if name != "sh_background"}
    generator = torch.Generator().manual_seed(2)
    target, weights, background = (torch.rand(len(scene.origins), 3, generator=generator) for _ in range(3))
    distances = torch.rand(len(scene.origins), generator=generator) * 2 - 0.5
    results = []
    for move in (lambda tensor: tensor, lambda tensor: tensor.cuda()):
        moved = Scene(*map(move, scene))
        gradients = [torch.zeros_like(moved.density), torch.zeros_like(moved.sh)]
        touched = torch.zeros_like(moved.density, dtype=torch.bool)
        left = torch.full_like(moved.origins[:, 0], torch.nan)
        rgb = run(
            ops.fit_gradients, moved, move(target), *gradients, beta_lambda=1e-2, sparsity_lambda=1e-4,
            ray_weights=move(weights), depth_target=move(distances), depth_lambda=0.1, free_space_lambda=0.2,
            free_space_margin=0.05, background=move(background) if colored else None, touched=touched,
            transmittance=left, **options,
        )  # fmt: skip
        results.append((rgb, *gradients, touched, left))
    expected, actual = results
    assert_agrees(actual[4], expected[4], flips=1)
    assert_agrees(actual[0], expected[0], flips=1)
    assert_close_to_largest(actual[1], expected[1], 1e-4)
    assert_close_to_largest(actual[2], expected[2], 1e-4)
    assert (actual[3].cpu() != expected[3]).sum() <= 8  # the corners of a cell whose only sample flipped


def test_gradients_agree_with_double_precision():
    scene = scene_of((7, 5, 9))
    exact = Scene(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in scene))

    def gradients(one):
        values = one.density.requires_grad_(), one.sh.requires_grad_()
        return torch.autograd.grad(render(one).sh.square().sum(), values)

    for a, e in zip(gradients(on_gpu(scene)), gradients(exact), strict=True):
        assert (a.cpu() - e).norm() <= 1e-5 * e.norm()


@pytest.mark.parametrize("tv_density, tv_sh", [(0.3, 0.2), (0.0, 0.2), (0.3, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("share", [0.02, 0.6, 1.0])
@pytest.mark.parametrize("resolution", [(9, 11, 70), (1, 3, 9, 11, 23)])
def test_update_grid_as_the_cpu(resolution, share, tv_density, tv_sh):
    generator = torch.Generator().manual_seed(9)
    links, density, sh = random_grid(resolution, share, generator, torch.float32)
    touched = torch.rand(len(density), generator=generator) < 0.3
    gradients, squares = ([torch.randn(t.shape, generator=generator) for t in (density, sh)] for _ in range(2))
    for gradient in gradients:
        gradient[~touched] = 0
    tensors = [links, density, sh, *gradients, *(square.square() for square in squares), touched]
    moved = [tensor.cuda() for tensor in tensors]
    for links, density, sh, *state in (tensors, moved):
        ops.update_grid(
            GridHandle(VoxelIndex(links, len(density)), density, sh), *state, lr_density=0.1, lr_sh=0.01,
            first_cell=1000, num_cells=3000, tv_density=tv_density, tv_sh=tv_sh,
        )  # fmt: skip
    for actual, expected in zip(moved, tensors, strict=True):
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1,), (7,), (1001,), (5, 27), (333, 27), (64, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_rmsprop_as_the_cpu(shape, masked):
    generator = torch.Generator().manual_seed(4)
    tensors = [torch.randn(shape, generator=generator) for _ in range(2)] + [torch.zeros(shape)]
    moved = [tensor.cuda() for tensor in tensors]
    touched = torch.rand(shape[0], generator=generator) < 0.5 if masked else None
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        tensors[1].copy_(gradient), moved[1].copy_(gradient)
        ops.rmsprop_step(*tensors, 0.1, touched=touched)
        ops.rmsprop_step(*moved, 0.1, touched=None if touched is None else touched.cuda())
    for actual, expected in zip(moved, tensors, strict=True):
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_sample_grid_as_the_cpu():
    links, density, sh = random_grid((9, 11, 13), 0.3, torch.Generator().manual_seed(5), torch.float32)
    points = torch.rand(1001, 3, generator=torch.Generator().manual_seed(6)) * 16 - 2
    grid = GridHandle(VoxelIndex(links, len(density)), density, sh)
    expected, actual = ops.sample_grid(grid, points), ops.sample_grid(grid.to("cuda"), points.cuda())
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.cpu(), e, rtol=1e-5, atol=1e-5)


@each_renderer
def test_twenty_runs_give_the_same(renderer):
    scene = on_gpu(scene_of((33, 64, 20)))
    target = torch.zeros_like(scene.origins)
    first = None
    for _ in range(20):
        gradients = torch.zeros_like(scene.density), torch.zeros_like(scene.sh)
        rgb = run(ops.fit_gradients, scene, target, *gradients)
        results = (*renderer(scene), rgb, *gradients)
        first = first or [tensor.clone() for tensor in results]
        for actual, expected in zip(results[:5], first[:5], strict=True):
            assert torch.equal(actual, expected)
        for actual, expected in zip(results[5:], first[5:], strict=True):
            assert_close_to_largest(actual, expected, 1e-5)


@needs_cache
def test_a_fit_step_can_be_captured_in_a_graph():
    scene = on_gpu(scene_of((7, 5, 9)))
    target = torch.rand_like(scene.origins)

    def step(grid):
        gradients = torch.zeros_like(grid.density), torch.zeros_like(grid.sh)
        touched = torch.zeros_like(grid.density, dtype=torch.bool)
        squares = torch.zeros_like(grid.density), torch.zeros_like(grid.sh)
        ops.fit_gradients(grid, *scene.rays, target, *gradients, RenderOptions(), touched=touched)
        ops.update_grid(grid, *gradients, *squares, touched, lr_density=0.1, lr_sh=0.01, first_cell=0, num_cells=100,
                        tv_sh=1e-3)  # fmt: skip

    expected = scene.grid().with_values(scene.density.clone(), scene.sh.clone())
    step(expected)
    grid = expected.with_values(scene.density.clone(), scene.sh.clone())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(grid)
    graph.replay()
    torch.testing.assert_close(grid.density, expected.density, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(grid.sh, expected.sh, rtol=1e-3, atol=1e-3)

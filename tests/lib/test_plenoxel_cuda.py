"""The CUDA ops against the C++ ones (which the other files here check against the reference) and the golden files.

`render` stands for two programs: "plain" reads a grid's tensors, eight lanes a ray; "packed" a packed copy, one lane.
"""

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from lib.plenoxel import ops, packed
from lib.plenoxel.reference import _sh_basis
from tests.lib.plenoxel_scenes import (
    Scene,
    awkward_rays,
    links_from_rows,
    load_golden,
    random_grid,
    random_rays,
    random_scene,
)
from tests.lib.test_plenoxel_registration import CASES, ray_arguments

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

TRACED = [(7, 5, 9), (150, 4, 3)]  # rays cross fewer cells than a trace keeps, and more
RESOLUTIONS = [(2, 2, 2), (2, 3, 40), (7, 5, 9), (33, 64, 20)]
OPTIONS = [
    {},
    {"step_size": 0.05},
    {"step_size": 0.37, "near_clip": 0.4, "background_brightness": 0.3, "stop_thresh": 1e-2, "sh_background": True},
    {"center": (0.2, -0.1, 0.0), "radius": (1.5, 1.0, 0.7), "sigma_thresh": 1.0},
]


def on_gpu(scene):
    return type(scene)(*(tensor.cuda() for tensor in scene))


def render_plain(scene: Scene, **options):
    return ops.render_rays(scene.links, scene.density.detach().requires_grad_(), *scene[2:], **options)


def render_packed(scene: Scene, storage="float32", **options):
    grid = packed.pack_grid(scene.links, ops.cell_distance(scene.links), scene.density, scene.sh, storage)
    return packed.render_packed(grid, scene.origins, scene.directions, **options)


RENDERERS = {"plain": render_plain, "packed": render_packed}


@pytest.fixture(params=RENDERERS)
def render(request):
    return RENDERERS[request.param]


def scene_of(resolution, share=0.4, seed=0) -> Scene:
    """Random and awkward rays; strong coefficients, so that colours are clamped often."""
    generator = torch.Generator().manual_seed(seed)
    grid = random_grid(resolution, share, generator, torch.float32)
    origins, directions = (torch.cat(pair) for pair in zip(
        random_rays(500, generator, torch.float32), awkward_rays(torch.float32), strict=True))
    return Scene(*grid, origins, directions)


def assert_agrees(actual: Tensor, expected: Tensor, flips: int = 0):
    """Rounding apart; `flips` rays may have taken a sample more or less at a threshold."""
    error = (actual.cpu() - expected.cpu()).abs().reshape(len(expected), -1)
    assert torch.isfinite(error).all()
    worst = error.amax(1).sort().values
    worst = worst[: len(worst) - flips] if len(worst) > flips else worst
    assert worst.max() <= 1e-4
    assert error.mean() <= 2e-6 + flips * 1e-5


def assert_close_to_largest(actual: Tensor, expected: Tensor, tolerance: float = 1e-5):
    assert (actual.cpu() - expected.cpu()).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_renders_as_the_cpu(render, resolution, options):
    scene = scene_of(resolution)
    actual, expected = render(on_gpu(scene), **options), ops.render_rays(*scene, **options)
    for name, value in actual._asdict().items():
        assert_agrees(value, getattr(expected, name), flips=1)


@pytest.mark.parametrize("outputs", [("rgb",), ("sh",), ("depth", "alpha"), ("rgb", "alpha")])
def test_renders_only_what_is_asked_for(render, outputs):
    scene = on_gpu(scene_of((7, 5, 9)))
    some, everything = render(scene, outputs=outputs), render(scene)
    for name, value in some._asdict().items():
        assert (value is None) == (name not in outputs)
        if value is not None:
            torch.testing.assert_close(value, getattr(everything, name), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("file", ["svox2_0", "svox2_1", "fork_0", "fork_1"])
@pytest.mark.parametrize("i", range(4))
def test_goldens(render, shared_dir, file, i):
    golden = load_golden(shared_dir / "golden" / f"{file}.npz")
    out = render(on_gpu(golden.scene), sh_background=True, **golden.options[i])
    for name, key in (("rgb", "rgb"), ("sh", "sh_image"), ("depth", "depth")):
        if f"{key}_{i}" not in golden.arrays:
            continue
        error = (getattr(out, name).detach().cpu() - golden.arrays[f"{key}_{i}"]).abs()
        if i == 3:  # sigma_thresh 5: a handful of rays flip at the threshold
            per_ray = error.reshape(len(error), -1).amax(1)
            assert (per_ray > 2e-5).sum() <= 4
            error = error[per_ray <= 2e-5]
        assert error.mean() <= 2e-6
        assert error.flatten().quantile(0.999) <= 2e-5


@pytest.mark.parametrize("lambdas", ["mse", "reg"])
@pytest.mark.parametrize("file", ["svox2_0", "svox2_1"])
def test_golden_gradients(shared_dir, file, lambdas):
    golden = load_golden(shared_dir / "golden" / f"{file}.npz")
    scene, extra = on_gpu(golden.scene), {"beta_lambda": 1e-3, "sparsity_lambda": 1e-6} if lambdas == "reg" else {}
    for i in range(3):
        gradients = torch.zeros_like(scene.density), torch.zeros_like(scene.sh)
        ops.fit_gradients(*scene, golden.arrays["gt"].cuda(), *gradients, **golden.options[i], **extra)
        assert_close_to_largest(gradients[0], golden.arrays[f"grad_sigma_{lambdas}_{i}"], 1e-4)
        if f"grad_sh_{lambdas}_{i}" in golden.arrays:
            assert_close_to_largest(gradients[1], golden.arrays[f"grad_sh_{lambdas}_{i}"], 1e-4)


@pytest.mark.parametrize("outputs", [("rgb",), ("sh",), ("depth", "alpha"), ("rgb", "sh", "depth", "alpha")])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("resolution", TRACED)
def test_backward_as_the_cpu(resolution, options, outputs):
    scene = scene_of(resolution)
    generator = torch.Generator().manual_seed(1)
    cotangents = None
    gradients = []
    for move in (lambda tensor: tensor, lambda tensor: tensor.cuda()):
        links, density, sh, origins, directions = map(move, scene)
        density, sh = density.detach().requires_grad_(), sh.detach().requires_grad_()
        out = ops.render_rays(links, density, sh, origins, directions, outputs=outputs, **options)
        values = [getattr(out, name) for name in outputs]
        cotangents = cotangents or [torch.randn(value.shape, generator=generator) for value in values]
        pairs = zip(values, map(move, cotangents), strict=True)
        loss = sum((value * cotangent).sum() for value, cotangent in pairs)
        gradients.append(torch.autograd.grad(loss, (density, sh), materialize_grads=True))
    for expected, actual in zip(*gradients, strict=True):
        assert_close_to_largest(actual, expected, 1e-4)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("resolution", TRACED)
def test_fit_gradients_as_the_cpu(resolution, options):
    scene = scene_of(resolution)
    options = {name: value for name, value in options.items() if name != "sh_background"}
    generator = torch.Generator().manual_seed(2)
    target, weights = (torch.rand(len(scene.origins), 3, generator=generator) for _ in range(2))
    distances = torch.rand(len(scene.origins), generator=generator) * 2 - 0.5
    results = []
    for move in (lambda tensor: tensor, lambda tensor: tensor.cuda()):
        moved = [move(tensor) for tensor in scene]
        gradients = [torch.zeros_like(moved[1]), torch.zeros_like(moved[2])]
        touched = torch.zeros_like(moved[1], dtype=torch.bool)
        rgb = ops.fit_gradients(
            *moved, move(target), *gradients, beta_lambda=1e-2, sparsity_lambda=1e-4, ray_weights=move(weights),
            depth_target=move(distances), depth_lambda=0.1, free_space_lambda=0.2, free_space_margin=0.05,
            touched=touched, **options,
        )  # fmt: skip
        results.append((rgb, *gradients, touched))
    expected, actual = results
    assert_agrees(actual[0], expected[0], flips=1)
    assert_close_to_largest(actual[1], expected[1], 1e-4)
    assert_close_to_largest(actual[2], expected[2], 1e-4)
    assert (actual[3].cpu() != expected[3]).sum() <= 8  # the corners of a cell whose only sample flipped


def test_gradients_agree_with_double_precision():
    scene = scene_of((7, 5, 9))
    links, density, sh, origins, directions = (t.double() if t.is_floating_point() else t for t in scene)
    density.requires_grad_(), sh.requires_grad_()
    loss = ops.render_rays(links, density, sh, origins, directions).sh.square().sum()
    expected = torch.autograd.grad(loss, (density, sh))
    scene = on_gpu(scene)
    density, sh = scene.density.requires_grad_(), scene.sh.requires_grad_()
    actual = torch.autograd.grad(ops.render_rays(*scene).sh.square().sum(), (density, sh))
    for a, e in zip(actual, expected, strict=True):
        assert (a.cpu() - e).norm() <= 1e-5 * e.norm()


@pytest.mark.parametrize("resolution", [*RESOLUTIONS, (9, 12, 300), (65, 3, 2)])
@pytest.mark.parametrize("share", [0.0005, 0.02, 0.5])
def test_cell_distance_is_the_cpus(resolution, share):
    links = random_grid(resolution, share, torch.Generator().manual_seed(0), torch.float32)[0]
    assert torch.equal(ops.cell_distance(links.cuda()).cpu(), ops.cell_distance(links))


def test_first_surface_and_max_weight_as_the_cpu():
    for resolution in RESOLUTIONS:
        scene = scene_of(resolution)
        links, density, _, *rays = scene
        moved = on_gpu(scene)
        expected = ops.first_surface_depth(links, density, *rays, sigma=3.0)
        actual = ops.first_surface_depth(moved.links, moved.density, *moved[3:], sigma=3.0)
        assert ((actual.cpu() - expected).abs() > 1e-5).sum() <= 1
        weights = torch.zeros_like(density), torch.zeros_like(moved.density)
        ops.max_weight(links, density, *rays, weights[0])
        ops.max_weight(moved.links, moved.density, *moved[3:], weights[1])
        torch.testing.assert_close(weights[1].cpu(), weights[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ignore_edge", [False, True])
@pytest.mark.parametrize("channels", [(0, 27), (0, 1), (9, 18), (25, 27)])
def test_total_variation_as_the_cpu(channels, ignore_edge):
    links, density, sh = random_grid((9, 11, 13), 0.6, torch.Generator().manual_seed(3), torch.float32)
    for first, count in ((0, None), (100, 500), (1200, 87)):
        gradients = torch.zeros_like(sh), torch.zeros_like(sh).cuda()
        touched = torch.zeros(len(sh), dtype=torch.bool), torch.zeros(len(sh), dtype=torch.bool).cuda()
        ops.tv_gradients(links, sh, gradients[0], first, count, channels, 0.3, ignore_edge, touched[0])
        ops.tv_gradients(links.cuda(), sh.cuda(), gradients[1], first, count, channels, 0.3, ignore_edge, touched[1])
        torch.testing.assert_close(gradients[1].cpu(), gradients[0], rtol=1e-4, atol=1e-5)
        assert not (touched[0] & ~touched[1].cpu()).any() or ignore_edge


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
    expected = ops.sample_grid(links, density, sh, points)
    actual = ops.sample_grid(links.cuda(), density.cuda(), sh.cuda(), points.cuda())
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.cpu(), e, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 31, 32, 33, 129, 8192])
def test_any_number_of_rays(render, count):
    scene = random_scene((7, 5, 9), rays=max(count, 1), dtype=torch.float32)
    scene = scene._replace(origins=scene.origins[:count], directions=scene.directions[:count])
    actual, expected = render(on_gpu(scene)), ops.render_rays(*scene)
    for name, value in actual._asdict().items():
        assert value.shape == getattr(expected, name).shape
        if count:
            assert_agrees(value, getattr(expected, name), flips=1)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64, 100])
def test_tiles_change_nothing(width):
    scene = on_gpu(random_scene((7, 5, 9), rays=width * 13, dtype=torch.float32))
    for actual, expected in zip(render_packed(scene, image_width=width), render_packed(scene), strict=True):
        assert torch.equal(actual, expected)


def test_four_million_rays_and_a_large_grid():
    generator = torch.Generator().manual_seed(7)
    links, density, sh = random_grid((512, 512, 512), 1e-3, generator, torch.float32)
    scene = Scene(links, density, sh, *random_rays(1 << 12, generator, torch.float32))
    moved = on_gpu(scene)
    many = moved._replace(origins=moved.origins.repeat(1024, 1), directions=moved.directions.repeat(1024, 1))
    out = ops.render_rays(*many, outputs=("rgb", "depth"))
    for name in ("rgb", "depth"):
        blocks = getattr(out, name).unflatten(0, (1024, -1))
        assert (blocks == blocks[:1]).all()
    expected = ops.render_rays(*scene, outputs=("rgb", "depth"))
    assert_agrees(out.rgb[: 1 << 12], expected.rgb, flips=1)
    assert_agrees(out.depth[: 1 << 12], expected.depth, flips=1)


def test_scenes_in_one_call(render):
    generator = torch.Generator().manual_seed(8)
    resolution, scenes, first_row = (6, 5, 7), [], 0
    origins, directions = random_rays(300, generator, torch.float32)
    stacked = []
    for _ in range(5):
        links, density, sh = random_grid(resolution, 0.4, generator, torch.float32)
        scenes.append((links, density, sh))
        stacked.append(torch.where(links >= 0, links + first_row, -1))
        first_row += len(density)
    index = torch.randint(5, (300,), generator=generator, dtype=torch.int32)
    density, sh = torch.cat([scene[1] for scene in scenes]), torch.cat([scene[2] for scene in scenes])
    together = Scene(torch.stack(stacked).int(), density, sh, origins, directions)
    out = render(on_gpu(together), scene_index=index.cuda())
    for number, grid in enumerate(scenes):
        mine = index == number
        expected = ops.render_rays(*grid, origins[mine], directions[mine])
        for name, value in expected._asdict().items():
            assert_agrees(getattr(out, name).cpu()[mine], value, flips=1)


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
    colors = torch.einsum("vcb,db->vdc", sh.unflatten(1, (3, 9)), _sh_basis(directions)) + 0.5
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


def test_twenty_runs_give_the_same(render):
    scene = on_gpu(scene_of((33, 64, 20)))
    target = torch.zeros_like(scene.origins)
    first = None
    for _ in range(20):
        gradients = torch.zeros_like(scene.density), torch.zeros_like(scene.sh)
        rgb = ops.fit_gradients(*scene, target, *gradients)
        run = (*render(scene), rgb, *gradients)
        first = first or [tensor.clone() for tensor in run]
        for actual, expected in zip(run[:5], first[:5], strict=True):
            assert torch.equal(actual, expected)
        for actual, expected in zip(run[5:], first[5:], strict=True):
            assert_close_to_largest(actual, expected, 1e-5)


def test_a_fit_step_can_be_captured_in_a_graph():
    scene = on_gpu(scene_of((7, 5, 9)))
    target = torch.rand_like(scene.origins)

    def step(density, sh):
        gradients = torch.zeros_like(density), torch.zeros_like(sh)
        touched = torch.zeros_like(density, dtype=torch.bool)
        squares = torch.zeros_like(density), torch.zeros_like(sh)
        ops.fit_gradients(scene.links, density, sh, *scene[3:], target, *gradients, touched=touched)
        ops.tv_gradients(scene.links, sh, gradients[1], 0, 100, scale=1e-3, touched=touched)
        ops.rmsprop_step(density, gradients[0], squares[0], 0.1, touched=touched)
        ops.rmsprop_step(sh, gradients[1], squares[1], 0.01, touched=touched)

    expected = scene.density.clone(), scene.sh.clone()
    step(*expected)
    values = scene.density.clone(), scene.sh.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(*values)
    graph.replay()
    for actual, wanted in zip(values, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-3)


def test_cuda_is_told_from_cpu():
    scene = random_scene(dtype=torch.float32)
    with pytest.raises(RuntimeError, match="one device"):
        ops.render_rays(*scene._replace(origins=scene.origins.cuda()))
    with pytest.raises(RuntimeError, match="float64 runs on the CPU only"):
        ops.render_rays(*on_gpu(random_scene(dtype=torch.float64)))


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name):
    generator = torch.Generator().manual_seed(0)
    links = links_from_rows((5, 4, 6), torch.randperm(120, generator=generator)[:70])
    rays = random_rays(6, generator, torch.float32)
    scene = on_gpu(Scene(links, torch.rand(70) + 0.1, torch.randn(70, 27) * 0.1, *rays))
    arguments = [to_float(argument) for argument in CASES[name](scene)]
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    opcheck(getattr(torch.ops.plenoxel, name).default, tuple(arguments), test_utils=checks)


def to_float(argument):
    """Arguments that a case makes itself are float64 and on the CPU."""
    if not isinstance(argument, Tensor):
        return argument
    return (argument.float() if argument.is_floating_point() else argument).cuda()


def test_opcheck_of_packed_ops():
    scene = on_gpu(random_scene(dtype=torch.float32))
    clamps = torch.zeros_like(scene.density, dtype=torch.bool)
    distance = ops.cell_distance(scene.links)
    arguments = (scene.links, distance, scene.density, clamps)
    opcheck(torch.ops.plenoxel.pack_cells.default, arguments, test_utils="test_schema")
    grid = packed.pack_grid(scene.links, distance, scene.density, scene.sh, "uint8")
    geometry = ray_arguments(scene)[6:]
    opcheck(torch.ops.plenoxel.render_packed.default, (*grid, *scene[3:], *geometry, False, 15, 8))

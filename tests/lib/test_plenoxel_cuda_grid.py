"""Handles of grids on a GPU: the same bits however rays come, packed copies, PyTorch's modes, streams, devices."""

import subprocess
import sys
import weakref

import pytest
import torch

from lib.plenoxel import ops
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions, option_numbers
from tests.lib.cuda_parity import assert_agrees, assert_close_to_largest, needs_cache, needs_gpu, on_gpu, scene_of
from tests.lib.plenoxel_scenes import Scene, random_scene, render, update_with_equal_gradients

pytestmark = needs_gpu

OPTIONS = RenderOptions()


def rendered(grid: GridHandle, scene: Scene, **arguments):
    return ops.render_rays(grid, *scene.rays, OPTIONS, **arguments)


def assert_equal(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("width", [0, 1, 7, 8, 9, 64, 100])
def test_tiles_change_no_bit(width):
    scene = on_gpu(random_scene((7, 5, 9), rays=max(width, 1) * 13, dtype=torch.float32))
    assert_equal(render(scene, image_width=width), render(scene))


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 1000, 8191, 8192, 8193, 20000])
def test_the_number_of_rays_changes_no_bit(count):
    scene = on_gpu(random_scene((33, 64, 20), rays=20000, dtype=torch.float32))
    grid = scene.grid()
    everything = rendered(grid, scene)
    for first in (0, 20000 - count):
        part = slice(first, first + count)
        some = ops.render_rays(grid, scene.origins[part], scene.directions[part], OPTIONS)
        assert_equal(some, [value[part] for value in everything])


def test_a_grid_packed_again_gives_the_same_bits():
    """Cells are numbered in the order in which blocks come; no result depends on it."""
    scene = on_gpu(scene_of((33, 64, 20)))
    for _ in range(5):
        assert_equal(render(scene), rendered(scene.grid(), scene))


def test_packed_copies_follow_changes_that_are_told():
    scene = on_gpu(random_scene((7, 5, 9), rays=900, dtype=torch.float32))
    grid = scene.grid()
    before, kept = rendered(grid, scene), grid.packed
    assert_equal(rendered(grid, scene), before)
    assert grid.packed is kept
    grid.density.mul_(0.5)
    grid.values_changed()
    after = rendered(grid, scene)
    assert not torch.equal(after.rgb, before.rgb)
    assert_equal(after, render(scene))


def test_packed_copies_follow_a_fits_steps():
    scene = on_gpu(random_scene((7, 5, 9), rays=900, dtype=torch.float32))
    grid = scene.grid()
    before = rendered(grid, scene)
    update_with_equal_gradients(grid)
    assert grid.memory()["packed"] == 0
    after = rendered(grid, scene)
    assert not torch.equal(after.rgb, before.rgb)
    assert_equal(after, render(scene))


def test_no_packed_copy_is_kept_of_values_that_an_optimizer_changes():
    scene = on_gpu(random_scene((7, 5, 9), rays=900, dtype=torch.float32))
    grid = scene.grid()
    rendered(grid, scene)  # its copy must not be used below
    grid.density.requires_grad_()
    optimizer = torch.optim.SGD([grid.density], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        rendered(grid, scene).alpha.sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert_equal(rendered(grid, scene), render(scene._replace(density=grid.density.detach())))
    assert grid.memory()["packed"] == 0


def test_an_empty_grid_shows_the_background():
    empty = GridHandle(VoxelIndex.from_mask(torch.zeros(5, 4, 3, dtype=torch.bool)), torch.zeros(0), torch.zeros(0, 27))
    scene = on_gpu(random_scene(dtype=torch.float32))
    out = ops.render_rays(empty.to("cuda"), *scene.rays, RenderOptions(background_brightness=0.25))
    assert (out.rgb == 0.25).all() and not any(value.any() for value in out[1:])


def test_other_values_share_the_table_of_cells_but_not_the_packed_copy():
    scene = on_gpu(random_scene(dtype=torch.float32))
    grid = scene.grid()
    rendered(grid, scene)
    other = grid.with_values(density=scene.density * 2)
    assert other.index.cell_table is grid.index.cell_table and other.memory()["packed"] == 0
    assert_equal(rendered(other, scene), render(scene._replace(density=scene.density * 2)))


def requested_bytes() -> int:
    torch.cuda.synchronize()
    return torch.cuda.memory_stats()["requested_bytes.all.current"]


@needs_cache
def test_memory_is_what_the_allocator_says_and_dropping_the_grid_frees_it():
    scene = on_gpu(random_scene((64, 64, 64), share=0.1, rays=8, dtype=torch.float32))
    before = requested_bytes()
    grid = scene.grid()
    rendered(grid, scene)
    made = weakref.ref(grid.packed.rows)
    parts = grid.memory()
    assert requested_bytes() - before == parts["distance"] + parts["cell_table"] + parts["packed"]
    assert parts["packed"] >= 128 * len(scene.density)
    del grid
    assert made() is None and requested_bytes() == before


def gradients_by(grid: GridHandle, scene: Scene):
    grid.density.requires_grad_(), grid.sh.requires_grad_()
    loss = sum(value.square().sum() for value in rendered(grid, scene))
    return torch.autograd.grad(loss, (grid.density, grid.sh))


def copy_of(scene: Scene) -> Scene:
    return Scene(*(tensor.clone() for tensor in scene))


def test_inference_mode_and_gradients_in_either_order():
    scene = on_gpu(random_scene(dtype=torch.float32))
    expected = gradients_by(copy_of(scene).grid(), scene)
    with torch.inference_mode():
        built = copy_of(scene).grid()
        inferred = rendered(built, scene)
    shown = copy_of(scene).grid()
    with torch.inference_mode():
        assert_equal(rendered(shown, scene), inferred)
    for grid in (built, shown):
        for actual, usual in zip(gradients_by(grid, scene), expected, strict=True):
            assert_close_to_largest(actual, usual.cpu(), 1e-5)
        with torch.inference_mode():
            assert_equal(rendered(grid, scene), inferred)


def compiled_render(grid: GridHandle, backend: str):
    torch._dynamo.reset()
    return torch.compile(
        lambda *rays: tuple(ops.render_rays(grid, *rays, OPTIONS)), fullgraph=True, backend=backend
    )


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_as_a_whole_graph(backend):
    """Packing within the graph; then from what it kept; after a change; in inference mode; with gradients."""
    scene = on_gpu(random_scene(dtype=torch.float32))
    expected = render(scene)
    grid = copy_of(scene).grid()
    compiled = compiled_render(grid, backend)
    for _ in range(2):
        assert_equal(compiled(*scene.rays), expected)
    assert grid.memory()["packed"]
    grid.density.mul_(0.5)
    grid.values_changed()
    changed = scene._replace(density=scene.density * 0.5)
    for _ in range(2):
        assert_equal(compiled(*scene.rays), render(changed))
    with torch.inference_mode():
        assert_equal(compiled(*scene.rays), render(changed))
    wanted = gradients_by(copy_of(changed).grid(), scene)
    grid.density.requires_grad_(), grid.sh.requires_grad_()
    loss = sum(value.square().sum() for value in compiled(*scene.rays))
    for actual, usual in zip(torch.autograd.grad(loss, (grid.density, grid.sh)), wanted, strict=True):
        assert_close_to_largest(actual, usual.cpu(), 1e-5)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_in_inference_mode_first(backend):
    scene = on_gpu(random_scene(dtype=torch.float32))
    grid = copy_of(scene).grid()
    compiled = compiled_render(grid, backend)
    with torch.inference_mode():
        assert_equal(compiled(*scene.rays), render(scene))
    wanted = gradients_by(copy_of(scene).grid(), scene)
    grid.density.requires_grad_(), grid.sh.requires_grad_()
    loss = sum(value.square().sum() for value in compiled(*scene.rays))
    for actual, usual in zip(torch.autograd.grad(loss, (grid.density, grid.sh)), wanted, strict=True):
        assert_close_to_largest(actual, usual.cpu(), 1e-5)


def test_what_one_stream_made_another_may_use_at_once():
    scene = on_gpu(random_scene((65, 65, 65), share=0.1, rays=9000, dtype=torch.float32))
    expected = render(scene)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    for _ in range(3):
        grid = scene.grid()
        with torch.cuda.stream(side):
            torch.cuda._sleep(10_000_000)
            on_side = rendered(grid, scene)  # makes the distance field and packs
        here = rendered(grid, scene)  # without waiting for the other stream
        torch.cuda.synchronize()
        assert_equal(here, expected)
        assert_equal(on_side, expected)


def test_a_grid_dropped_while_another_stream_renders_it_stays_until_it_is_done():
    scene = on_gpu(random_scene((65, 65, 65), share=0.1, rays=9000, dtype=torch.float32))
    expected = render(scene)
    grid = scene.grid()
    sizes = [tensor.numel() * tensor.element_size()
             for tensor in (grid.index.distance, *grid.index.cell_table, *grid.packed[:2])]
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)
        actual = rendered(grid, scene)
    del grid  # made on this stream, on which the next lines take memory of the same sizes
    overwritten = [torch.full((size,), 255, dtype=torch.uint8, device="cuda") for size in sizes]
    torch.cuda.synchronize()
    assert_equal(actual, expected)
    assert all((block == 255).all() for block in overwritten)


@needs_cache
def test_a_view_can_be_captured_once_the_grid_is_packed():
    scene = on_gpu(random_scene(dtype=torch.float32))
    grid = scene.grid()
    with pytest.raises(RuntimeError, match="render once before capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        rendered(grid, scene)
    expected = rendered(grid, scene)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = rendered(grid, scene)
    for value in captured:
        value.zero_()
    graph.replay()
    assert_equal(captured, expected)


def test_a_call_waits_for_nothing():
    """As far as PyTorch knows; the ops themselves wait only where they make what is kept."""
    scene = on_gpu(random_scene(dtype=torch.float32))
    grid = scene.grid()
    rendered(grid, scene)
    trained = scene._replace(density=scene.density.clone().requires_grad_()).grid()
    rendered(trained, scene).rgb.sum().backward()
    index = torch.zeros(64, dtype=torch.int32, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        rendered(grid, scene, scene_index=index)
        rendered(trained, scene).rgb.sum().backward()
        update_with_equal_gradients(grid)
    finally:
        torch.cuda.set_sync_debug_mode("default")


WRONG_SCENE = """
import torch
from tests.lib.cuda_parity import on_gpu, render_plain
from tests.lib.plenoxel_scenes import random_scene, render
scene = on_gpu(random_scene(dtype=torch.float32))
index = torch.zeros(64, dtype=torch.int32, device="cuda")
index[40] = {value}
{renderer}(scene, scene_index=index)
torch.cuda.synchronize()
print("rendered")
"""


@pytest.mark.parametrize("renderer", ["render", "render_plain"])
@pytest.mark.parametrize("value", [1, -1])
def test_a_scene_that_is_not_in_the_stack_ends_the_kernel(renderer, value, request):
    """In a process of its own: CUDA is of no use after such an error."""
    code = WRONG_SCENE.format(value=value, renderer=renderer)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=request.config.rootpath)
    assert done.returncode != 0 and "rendered" not in done.stdout
    assert "CUDA error" in done.stderr


def test_rows_beyond_two_to_the_29():
    """Their numbers lie beyond 2^32; 69 GB of them are never written."""
    rows = 2**29 + 2
    needed = rows * 128 + 2**30
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    scene = on_gpu(random_scene((2, 2, 2), share=1.0, rays=64, dtype=torch.float32))
    grid = scene.grid()
    expected = rendered(grid, scene)
    cells, values, *_ = grid.packed
    moved = cells.clone()
    moved[:, :8] += rows - 8  # bit 30, where colours may clamp, is not touched
    geometry = [grid.index.center, grid.index.radius, option_numbers(OPTIONS), 15, 0]
    far = torch.empty(rows, 32, device="cuda")
    try:
        far[-8:] = values
        actual = torch.ops.plenoxel.render_packed(
            *grid.index.cell_table, moved, far, grid.packed.clamps, None, *scene.rays, None, *geometry
        )
        assert_equal(actual, expected)
    finally:
        del far
        torch.cuda.empty_cache()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
def test_everything_on_the_second_device():
    here = random_scene(rays=900, dtype=torch.float32)
    scene = Scene(*(tensor.to("cuda:1") for tensor in here))
    assert torch.cuda.current_device() == 0
    grid = scene.grid()
    for actual, expected in zip(rendered(grid, scene), render(here), strict=True):
        assert actual.device == torch.device("cuda:1")
        assert_agrees(actual, expected, flips=1)
    pairs = gradients_by(copy_of(scene).grid(), scene), gradients_by(here.grid(), here)
    for actual, expected in zip(*pairs, strict=True):
        assert_close_to_largest(actual, expected, 1e-4)
    weights = torch.zeros_like(scene.density)
    ops.max_weight(grid, *scene.rays, weights, OPTIONS)
    gradients = torch.zeros_like(scene.density), torch.zeros_like(scene.sh)
    ops.fit_gradients(grid, *scene.rays, torch.zeros_like(scene.origins), *gradients, OPTIONS)
    ops.sample_grid(grid, scene.origins)
    assert (weights > 0).any() and gradients[0].any()
    before = rendered(grid, scene).rgb
    update_with_equal_gradients(grid)
    assert not torch.equal(rendered(grid, scene).rgb, before)
    side = torch.cuda.Stream("cuda:1")
    expected = render(scene)
    torch.cuda.synchronize("cuda:1")
    with torch.cuda.stream(side):
        on_side = rendered(scene.grid(), scene)
    torch.cuda.synchronize("cuda:1")
    assert_equal(on_side, expected)

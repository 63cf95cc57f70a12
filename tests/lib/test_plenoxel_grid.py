"""Handles of grids: what an index refuses, what is shared, what is kept, and that PyTorch's modes change nothing."""

import gc
import weakref

import pytest
import torch

from lib.plenoxel import ops
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions
from lib.plenoxel.packed import may_clamp
from tests.lib.plenoxel_scenes import Scene, random_scene, render, update_with_equal_gradients
from utils.spherical_harmonics import sh_basis

OPTIONS = RenderOptions()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda links: links.long(), "int32"),
        (lambda links: links[0], r"\[Rx, Ry, Rz\]"),
        (lambda links: links[:1], "at least 2 voxels"),
        (lambda links: links[None][:0], "at least one grid"),
        (lambda links: links.masked_fill(links == 5, 126), "a row from 0 to 125, found 126"),
        (lambda links: links.masked_fill(links == 5, 2**31 - 1), "found 2147483647"),
        (lambda links: links.masked_fill(links == 5, -7), "found -7"),
        (lambda links: links.masked_fill(links == 5, 6), "126 occupied voxels that name 125"),
        (lambda links: links.masked_fill(links == 5, -1), "125 occupied voxels that name 125"),
        (lambda links: torch.stack((links, links)), "252 occupied voxels that name 126"),
    ],
)
def test_links_that_kernels_could_not_trust_are_refused(change, message):
    scene = random_scene()
    assert len(scene.density) == 126
    with pytest.raises(ValueError, match=message):
        VoxelIndex(change(scene.links), 126)


@pytest.mark.parametrize(
    "resolution, voxels, message",
    [((3, 3), [0], "3 entries"), ((3, 3, 1), [0], "at least 2"), ((3, 3, 3), [0, 27], "outside"),
     ((3, 3, 3), [0, -1], "outside"), ((3, 3, 3), [4, 4], "twice")],
)  # fmt: skip
def test_voxels_outside_the_grid_or_named_twice_are_refused(resolution, voxels, message):
    with pytest.raises(ValueError, match=message):
        VoxelIndex.from_voxels(resolution, torch.tensor(voxels))


def test_the_three_ways_to_an_index_agree():
    links = random_scene().links
    index = VoxelIndex(links, 126)
    assert torch.equal(VoxelIndex.from_voxels(links.shape, index.voxels).links, links)
    in_order = VoxelIndex.from_mask(links >= 0)
    assert torch.equal(in_order.occupied, links >= 0) and torch.equal(in_order.voxels, in_order.voxels.sort().values)
    assert torch.equal(in_order.links[links >= 0], torch.arange(126, dtype=torch.int32))


def test_selected_rows_keep_their_voxels():
    index = VoxelIndex(random_scene().links, 126)
    keep = torch.rand(126, generator=torch.Generator().manual_seed(1)) < 0.5
    selected = index.select(keep)
    assert torch.equal(selected.voxels, index.voxels[keep]) and selected.num_rows == int(keep.sum())
    assert torch.equal(selected.occupied, index.mask_of(keep))
    VoxelIndex(selected.links, selected.num_rows)  # is a right index
    nothing = index.select(torch.zeros(126, dtype=torch.bool))
    assert nothing.num_rows == 0 and not nothing.occupied.any() and not nothing.mask_of(keep[:0]).any()
    assert torch.equal(nothing.select(keep[:0]).links, nothing.links)


@pytest.mark.parametrize("density, sh", [((125,), (126, 27)), ((126,), (125, 27)), ((126, 1), (126, 27))])
def test_values_must_fit_the_index(density, sh):
    index = VoxelIndex(random_scene().links, 126)
    with pytest.raises(ValueError, match="an index of 126 rows needs"):
        GridHandle(index, torch.zeros(density), torch.zeros(sh))


@pytest.mark.parametrize("value", [-1, 2, 2**31 - 1])
def test_scenes_that_are_not_in_the_stack_are_refused(value):
    scene = random_scene()
    links = torch.stack((scene.links, torch.where(scene.links >= 0, scene.links + 126, -1)))
    stack = Scene(links, scene.density.repeat(2), scene.sh.repeat(2, 1), *scene.rays)
    index = torch.ones(64, dtype=torch.int32)
    render(stack, scene_index=index)
    index[40] = value
    with pytest.raises(RuntimeError, match=f"scene_index names grid {value} of a stack of 2"):
        render(stack, scene_index=index)


def test_other_values_share_the_index_and_what_was_made_for_it():
    grid = random_scene().grid()
    assert grid.memory()["distance"] == 0
    distance = grid.index.distance
    other = grid.with_values(density=grid.density * 2)
    assert other.index is grid.index and other.index.distance is distance and other.sh is grid.sh
    assert grid.memory()["distance"] == distance.numel()


def test_memory_is_that_of_the_tensors():
    scene = random_scene(dtype=torch.float32)
    assert scene.grid().memory() == {
        "links": 4 * 7 * 5 * 9, "distance": 0, "cell_table": 0, "density": 4 * 126, "sh": 4 * 126 * 27, "packed": 0
    }  # fmt: skip


def test_dropping_a_grid_frees_what_was_made_for_it():
    scene = random_scene()
    grid = scene.grid()
    ops.render_rays(grid, *scene.rays, OPTIONS)
    made = weakref.ref(grid.index.distance)
    gc.disable()
    try:
        del grid
        assert made() is None
    finally:
        gc.enable()


def test_the_tensors_that_a_grid_is_given_carry_nothing():
    scene = random_scene()
    before = [set(vars(tensor)) for tensor in scene]
    grid = scene.grid()
    ops.render_rays(grid, *scene.rays, OPTIONS)
    update_with_equal_gradients(grid)
    assert [set(vars(tensor)) for tensor in scene] == before == [set()] * 5


def gradients_by(grid: GridHandle, scene: Scene):
    grid.density.requires_grad_(), grid.sh.requires_grad_()
    loss = sum(value.square().sum() for value in ops.render_rays(grid, *scene.rays, OPTIONS))
    return torch.autograd.grad(loss, (grid.density, grid.sh))


def assert_gradients_are_usual(grid: GridHandle, scene: Scene):
    usual = scene._replace(density=scene.density.clone(), sh=scene.sh.clone()).grid()
    for actual, expected in zip(gradients_by(grid, scene), gradients_by(usual, scene), strict=True):
        assert torch.equal(actual, expected)


def test_built_in_inference_mode_and_used_with_gradients():
    scene = random_scene()
    with torch.inference_mode():
        grid = Scene(*(tensor.clone() for tensor in scene)).grid()
        ops.render_rays(grid, *scene.rays, OPTIONS)
    assert_gradients_are_usual(grid, scene)


def test_rendered_in_inference_mode_and_used_with_gradients():
    scene = random_scene()
    grid = scene._replace(density=scene.density.clone(), sh=scene.sh.clone()).grid()
    with torch.inference_mode():
        inferred = ops.render_rays(grid, *scene.rays, OPTIONS)
    assert_gradients_are_usual(grid, scene)
    with torch.inference_mode():
        for again, before in zip(ops.render_rays(grid, *scene.rays, OPTIONS), inferred, strict=True):
            assert torch.equal(again, before)


def compiled_render(grid: GridHandle):
    torch._dynamo.reset()
    return torch.compile(
        lambda *rays: tuple(ops.render_rays(grid, *rays, OPTIONS)), fullgraph=True, backend="aot_eager"
    )


def test_compiled_as_a_whole_graph():
    """From a grid that was never rendered; then in the modes of PyTorch, in this order and the other."""
    scene = random_scene()
    expected = render(scene)
    grid = scene._replace(density=scene.density.clone(), sh=scene.sh.clone()).grid()
    compiled = compiled_render(grid)
    for _ in range(2):
        for actual, wanted in zip(compiled(*scene.rays), expected, strict=True):
            assert torch.equal(actual, wanted)
    assert grid.memory()["distance"]  # made within the graph, and kept
    with torch.inference_mode():
        assert torch.equal(compiled(*scene.rays)[0], expected.rgb)
    grid = scene._replace(density=scene.density.clone(), sh=scene.sh.clone()).grid()
    compiled = compiled_render(grid)
    with torch.inference_mode():
        assert torch.equal(compiled(*scene.rays)[0], expected.rgb)
    wanted = gradients_by(scene._replace(density=scene.density.clone(), sh=scene.sh.clone()).grid(), scene)
    grid.density.requires_grad_(), grid.sh.requires_grad_()
    loss = sum(value.square().sum() for value in compiled(*scene.rays))
    for actual, usual in zip(torch.autograd.grad(loss, (grid.density, grid.sh)), wanted, strict=True):
        assert torch.equal(actual, usual)


def test_compiled_with_values_of_the_functions_own():
    scene = random_scene()
    grid = scene.grid()
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss_of(density):
        return ops.render_rays(grid.with_values(density.exp()), *scene.rays, OPTIONS).rgb.square().sum()

    logarithm = scene.density.abs().log().requires_grad_()
    (actual,) = torch.autograd.grad(loss_of(logarithm), logarithm)
    plain = render(scene._replace(density=logarithm.exp())).rgb.square().sum()
    assert torch.equal(actual, torch.autograd.grad(plain, logarithm)[0]) and actual.any()


def test_may_clamp_is_never_wrong_and_not_always_true():
    generator = torch.Generator().manual_seed(9)
    sh = torch.randn(2000, 27, generator=generator) * 0.25
    sh[:, ::9] += 0.6
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator), dim=-1)
    colors = torch.einsum("vcb,db->vdc", sh.unflatten(1, (3, 9)), sh_basis(directions)) + 0.5
    below, flagged = (colors < 0).any(-1).any(-1), may_clamp(sh)
    assert not (below & ~flagged).any()
    assert below.any() and (~flagged).any()

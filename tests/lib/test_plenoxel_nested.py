"""Nested grids: what a ray meets where, against grids alone and against closed forms."""

import math

import pytest
import torch

from lib.plenoxel import ops
from lib.plenoxel.features import render_features
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions
from tests.lib.plenoxel_scenes import Scene, links_from_rows, random_grid, random_rays, random_scene, render, run

LEVELS = 3


def alone(scene: Scene, level: int) -> Scene:
    """The grid of one level alone, in a box as large as the whole one."""
    links = scene.links[0, level].clone()
    rows = links[links >= 0].long()
    links[links >= 0] = torch.arange(len(rows), dtype=torch.int32)
    return scene._replace(links=links, density=scene.density[rows], sh=scene.sh[rows])


def only(scene: Scene, level: int) -> Scene:
    """The nested grids with voxels of one level."""
    single = alone(scene, level)
    links = torch.full_like(scene.links, -1)
    links[0, level] = single.links
    return single._replace(links=links)


def block(levels: int, size: int, world_density: float) -> Scene:
    """Nested grids all of whose voxels have one density per world length, in a box of radius 1."""
    count = levels * size**3
    links = links_from_rows((1, levels, size, size, size), torch.arange(count))
    level = torch.arange(count) // size**3
    density = world_density * 0.5 ** (levels - 1 - level).double()
    return Scene(
        links, density, torch.zeros(count, 27, dtype=torch.float64), *random_rays(64, torch.Generator(), torch.float64)
    )


def test_one_level_is_a_grid_alone():
    scene = random_scene()
    nested = scene._replace(links=scene.links[None, None])
    for a, b in zip(render(nested), render(scene), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_innermost_grid_is_one_in_a_smaller_box(dtype):
    """Densities are per length of the outermost grid, lengths in its units: four times as far, four times as dense."""
    scene = random_scene((1, LEVELS, 8, 8, 8), dtype=dtype)
    zoom = 2 ** (LEVELS - 1)
    single = alone(scene, 0)
    single = single._replace(density=single.density * zoom)
    small = render(single, radius=(1 / zoom,) * 3)
    for name, a, b in zip(small._fields, render(only(scene, 0)), small, strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_outer_voxels_within_the_inner_box_are_never_seen():
    scene = random_scene((1, LEVELS, 16, 16, 16))
    seen = torch.zeros_like(scene.density)
    run(ops.max_weight, scene._replace(density=scene.density * 0 + 1e-3), seen)
    for level in range(LEVELS):
        links = scene.links[0, level]
        weights = torch.where(links >= 0, seen[links.clamp(min=0).long()], 0.0)
        inner = weights[5:11, 5:11, 5:11]  # the inner box without the layer that cells beside it read
        assert (inner > 0).any() == (level == 0)
        assert (weights[3:5] > 0).any()


def test_a_ray_sees_one_surface_once_where_grids_meet():
    """A block of even density through all levels is as opaque as its length says, and as far."""
    world_density = 0.7
    scene = block(LEVELS, 32, world_density)
    length = 2 / scene.directions.abs().amax(-1)  # through the box, from its middle's plane
    origins = -scene.directions * 3
    out = render(scene._replace(origins=origins), step_size=0.05)
    torch.testing.assert_close(out.alpha, 1 - torch.exp(-world_density * length), atol=4e-3, rtol=0)
    middle = 3 - length / 2 + (1 / world_density - length / torch.expm1(world_density * length))
    torch.testing.assert_close(out.depth / out.alpha, middle, atol=4e-3, rtol=0)


def test_from_within_an_inner_box_outwards():
    world_density = 0.7
    scene = block(LEVELS, 32, world_density)
    out = render(scene._replace(origins=torch.zeros_like(scene.origins)), step_size=0.05)
    length = 1 / scene.directions.abs().amax(-1)
    torch.testing.assert_close(out.alpha, 1 - torch.exp(-world_density * length), atol=4e-3, rtol=0)


def test_near_clip_is_a_world_distance_in_every_level():
    scene = block(LEVELS, 32, 0.7)
    for clip in (0.1, 0.4, 0.8):
        origins = torch.zeros_like(scene.origins)
        clipped = render(scene._replace(origins=origins), step_size=0.05, near_clip=clip)
        moved = render(scene._replace(origins=origins + clip * scene.directions), step_size=0.05)
        torch.testing.assert_close(clipped.alpha, moved.alpha, atol=4e-3, rtol=0)


def test_gradients():
    scene = random_scene((1, 2, 3, 4, 3), share=0.8, rays=6)
    scene = scene._replace(density=scene.density.abs() + 0.1, sh=scene.sh * 0.1)  # no threshold, no clamping

    def image(density, sh):
        index = VoxelIndex(scene.links, len(density))
        out = ops.render_rays(GridHandle(index, density, sh), *scene.rays, RenderOptions(step_size=0.4))
        return out.rgb, out.sh, out.depth, out.alpha

    leaves = scene.density.clone().requires_grad_(), scene.sh.clone().requires_grad_()
    assert torch.autograd.gradcheck(image, leaves, atol=1e-6)


def test_nested_grids_in_a_stack():
    parts = [random_scene((1, LEVELS, 6, 5, 8), seed=seed) for seed in (0, 1)]
    rows = len(parts[0].density)
    second = torch.where(parts[1].links >= 0, parts[1].links + rows, -1).to(torch.int32)
    both = Scene(
        torch.cat((parts[0].links, second)),
        *(torch.cat((a, b)) for a, b in zip(parts[0][1:], parts[1][1:], strict=True)),
    )
    scene_index = torch.tensor([0, 1], dtype=torch.int32).repeat_interleave(64)
    together = render(both, scene_index=scene_index)
    for k, part in enumerate(parts):
        for a, b in zip(together, render(part), strict=True):
            assert torch.equal(a[64 * k : 64 * k + 64], b)


def test_features_are_weighed_as_the_sh_image():
    scene = random_scene((1, LEVELS, 6, 5, 8), share=0.5)
    features = run(lambda grid, *rest: render_features(grid, scene.sh, *rest), scene)
    torch.testing.assert_close(features, render(scene).sh)


def test_number_of_threads_changes_no_bit():
    scene, threads = random_scene((1, LEVELS, 6, 5, 8), rays=900), torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            gradients = torch.zeros_like(scene.density), torch.zeros_like(scene.sh)
            rgb = run(ops.fit_gradients, scene, torch.zeros_like(scene.origins), *gradients)
            results.append((rgb, *gradients))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_wrong_levels_are_named():
    links, density, sh = random_grid((1, 17, 2, 2, 2), 0.5, torch.Generator().manual_seed(0), torch.float32)
    origins = torch.zeros(1, 3)
    with pytest.raises(RuntimeError, match="1 to 16 nested grids"):
        run(ops.render_rays, Scene(links, density, sh, origins, origins + math.sqrt(1 / 3)))

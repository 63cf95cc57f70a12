"""The CUDA renderers against the C++ one (which other files here check against the reference) and the golden files."""

import pytest
import torch

from lib.plenoxel import ops
from lib.plenoxel.index import VoxelIndex
from tests.lib.cuda_parity import OPTIONS, RESOLUTIONS, assert_agrees, each_renderer, needs_gpu, on_gpu, scene_of
from tests.lib.plenoxel_scenes import Scene, golden_named, random_grid, random_rays, random_scene, render, run

pytestmark = needs_gpu


@each_renderer
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_renders_as_the_cpu(renderer, resolution, options):
    scene = scene_of(resolution)
    actual, expected = renderer(on_gpu(scene), **options), render(scene, **options)
    for name, value in actual._asdict().items():
        assert_agrees(value, getattr(expected, name), flips=1)


@each_renderer
@pytest.mark.parametrize("outputs", [("rgb",), ("sh",), ("depth", "alpha"), ("rgb", "alpha")])
def test_renders_only_what_is_asked_for(renderer, outputs):
    scene = on_gpu(scene_of((7, 5, 9)))
    some, everything = renderer(scene, outputs=outputs), renderer(scene)
    for name, value in some._asdict().items():
        assert (value is None) == (name not in outputs)
        if value is not None:
            torch.testing.assert_close(value, getattr(everything, name), rtol=1e-6, atol=1e-6)


@each_renderer
@pytest.mark.parametrize("name", ["cut_0", "cut_1", "svox2_0", "svox2_1", "fork_0", "fork_1"])
@pytest.mark.parametrize("i", range(4))
def test_goldens(renderer, name, i, request):
    golden = golden_named(name, request)
    out = renderer(on_gpu(golden.scene), sh_background=True, **golden.options[i])
    for output, key in (("rgb", "rgb"), ("sh", "sh_image"), ("depth", "depth")):
        if f"{key}_{i}" not in golden.arrays:
            continue
        error = (getattr(out, output).detach().cpu() - golden.arrays[f"{key}_{i}"]).abs()
        if i == 3:  # sigma_thresh 5
            per_ray = error.reshape(len(error), -1).amax(1)
            assert (per_ray > 2e-5).sum() <= golden.flips
            error = error[per_ray <= 2e-5]
        assert error.mean() <= 2e-6
        assert error.flatten().quantile(0.999) <= 2e-5


@pytest.mark.parametrize("resolution", [*RESOLUTIONS, (9, 12, 300), (65, 3, 2)])
@pytest.mark.parametrize("share", [0.0005, 0.02, 0.5])
def test_cell_distance_is_the_cpus(resolution, share):
    links, density, _ = random_grid(resolution, share, torch.Generator().manual_seed(0), torch.float32)
    here, there = VoxelIndex(links, len(density)), VoxelIndex(links.cuda(), len(density))
    assert torch.equal(there.distance.cpu(), here.distance)
    assert there.occupied_cells == int((here.distance == 0).sum())


def test_max_weight_as_the_cpu():
    for resolution in RESOLUTIONS:
        scenes = scene_of(resolution), on_gpu(scene_of(resolution))
        weights = [torch.zeros_like(scene.density) for scene in scenes]
        for scene, largest in zip(scenes, weights, strict=True):
            run(ops.max_weight, scene, largest)
        torch.testing.assert_close(weights[1].cpu(), weights[0], rtol=1e-5, atol=1e-6)


@each_renderer
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 31, 32, 33, 129, 8192])
def test_any_number_of_rays(renderer, count):
    scene = random_scene((7, 5, 9), rays=max(count, 1), dtype=torch.float32)
    scene = scene._replace(origins=scene.origins[:count], directions=scene.directions[:count])
    actual, expected = renderer(on_gpu(scene)), render(scene)
    for name, value in actual._asdict().items():
        assert value.shape == getattr(expected, name).shape
        if count:
            assert_agrees(value, getattr(expected, name), flips=1)


def test_four_million_rays_and_a_large_grid():
    generator = torch.Generator().manual_seed(7)
    links, density, sh = random_grid((512, 512, 512), 1e-3, generator, torch.float32)
    scene = Scene(links, density, sh, *random_rays(1 << 12, generator, torch.float32))
    moved = on_gpu(scene)
    many = moved._replace(origins=moved.origins.repeat(1024, 1), directions=moved.directions.repeat(1024, 1))
    out = render(many, outputs=("rgb", "depth"))
    for name in ("rgb", "depth"):
        blocks = getattr(out, name).unflatten(0, (1024, -1))
        assert (blocks == blocks[:1]).all()
    expected = render(scene, outputs=("rgb", "depth"))
    assert_agrees(out.rgb[: 1 << 12], expected.rgb, flips=1)
    assert_agrees(out.depth[: 1 << 12], expected.depth, flips=1)


@each_renderer
def test_scenes_in_one_call(renderer):
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
    out = renderer(on_gpu(together), scene_index=index.cuda())
    for number, grid in enumerate(scenes):
        mine = index == number
        expected = render(Scene(*grid, origins[mine], directions[mine]))
        for name, value in expected._asdict().items():
            assert_agrees(getattr(out, name).cpu()[mine], value, flips=1)

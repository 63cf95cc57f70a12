"""Fields on a GPU: the same bits however views are rendered, also after a fit's steps, and no waiting in between."""

import pytest
import torch

from dataloader import SceneTransform
from model import PlenoxelGrid, RadianceField, RenderOptions, radiance_field, render_rays
from model.fitting.optimizer import GridOptimizer
from model.fitting.options import FitOptimization, FitRegularization
from model.fitting.ray_sampler import RayBatch
from model.sphere_layers import SphereLayers
from tests.lib.cuda_parity import assert_agrees, needs_gpu
from tests.model.test_grid import random_grid
from tests.model.test_rendering import rays
from utils.cameras import look_at

pytestmark = needs_gpu

SIZE = (31, 40)
INTRINSICS = torch.tensor([[40.0, 0, 20.0], [0, 40.0, 15.5], [0, 0, 1]], dtype=torch.float64)


def layered_grid(**box) -> PlenoxelGrid:
    grid, links_idx, density, sh = random_grid(resolution=(24, 20, 28), voxels=1500)
    grid = PlenoxelGrid.from_sparse(grid.resolution, links_idx, density, sh, **box)
    grid.background = SphereLayers(torch.rand(8, 16, 3, 4, generator=torch.Generator().manual_seed(1)))
    return grid


def field_and_poses() -> tuple[RadianceField, torch.Tensor]:
    transform = SceneTransform(torch.eye(4, dtype=torch.float64), torch.tensor([0.5, -0.3, 1.0]), 0.5)
    eyes = torch.randn(7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    return RadianceField(layered_grid().to("cuda"), transform), look_at(eyes, torch.zeros(7, 3).double())


def assert_equal(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


def test_a_views_bits_do_not_depend_on_those_rendered_with_it():
    field, poses = field_and_poses()
    together = field.render_views(poses, INTRINSICS.expand(7, 3, 3), SIZE)
    assert 7 * SIZE[0] * SIZE[1] > 8192 > SIZE[0] * SIZE[1]
    for k, pose in enumerate(poses):
        assert_equal(field.render_view(pose, INTRINSICS, SIZE), [values[k] for values in together])


@pytest.mark.parametrize("at_once", [1, 1000, 5000])
def test_nor_on_how_views_are_cut(at_once, monkeypatch):
    field, poses = field_and_poses()
    whole = field.render_views(poses, INTRINSICS.expand(7, 3, 3), SIZE)
    monkeypatch.setattr(radiance_field, "RAYS_AT_ONCE", at_once)
    assert_equal(field.render_views(poses, INTRINSICS.expand(7, 3, 3), SIZE), whole)


def test_nor_on_the_shape_of_its_rays():
    field, poses = field_and_poses()
    origins, directions = field.view_rays(poses, INTRINSICS.expand(7, 3, 3), SIZE)
    image = render_rays(field.grid, origins, directions)
    flat = render_rays(field.grid, origins.reshape(-1, 3), directions.reshape(-1, 3))
    assert_equal([values.flatten(0, 2) for values in image], flat)


def test_a_fits_steps_are_shown():
    grid = layered_grid().to("cuda")
    grid.background = None
    batch = [part.cuda() for part in rays(500)]
    optimizer = GridOptimizer(
        grid, FitOptimization(density_rate=(1.0, 1.0)), FitRegularization(), RenderOptions(), 10, torch.Generator()
    )
    frames = torch.zeros(500, dtype=torch.int64, device="cuda")
    for index in range(3):
        before = render_rays(grid, *batch)
        optimizer.step(index, RayBatch(*batch, torch.zeros_like(batch[0]), frames, None), torch.zeros_like(batch[0]))
        after = render_rays(grid, *batch)
        assert not torch.equal(after.rgb, before.rgb)
        assert_equal(after, render_rays(PlenoxelGrid(grid.links, grid.density, grid.sh), *batch))


@pytest.mark.parametrize("box", [{}, {"center": (0.1, 0.2, 0.3), "radius": (1.5, 1.0, 0.8)}])
def test_layers_as_the_cpu_and_without_waiting(box):
    grid, (origins, directions) = layered_grid(**box), rays(60, 40)
    expected = render_rays(grid, origins, directions)
    moved, batch = grid.to("cuda"), (origins.cuda(), directions.cuda())
    actual = render_rays(moved, *batch)
    assert_agrees(actual.rgb.flatten(0, 1), expected.rgb.flatten(0, 1), flips=1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = render_rays(moved, *batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_equal(again, actual)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
def test_views_from_the_second_device():
    field, poses = field_and_poses()
    expected = field.render_view(poses[0], INTRINSICS, SIZE)
    there = field.to("cuda:1").render_view(poses[0], INTRINSICS, SIZE)
    for actual, wanted in zip(there, expected, strict=True):
        assert actual.device == torch.device("cuda:1")
        torch.testing.assert_close(actual.cpu(), wanted.cpu(), rtol=1e-5, atol=1e-5)

"""The structure of patches in a fit's loss."""

from dataclasses import replace

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from lib.plenoxel import ops
from model import RenderOptions
from model.fitting.background import BackgroundOptimizer
from model.fitting.frames import Frames
from model.fitting.optimizer import GridOptimizer
from model.fitting.options import FitBackground, FitOptimization, FitRegularization
from model.fitting.ray_sampler import RayBatch, RaySampler
from model.fitting.similarity import similarity_map, structure_gradient
from model.grid import PlenoxelGrid
from model.sphere_layers import SphereLayers
from utils.errors import UserError

SIDE = 12


def generator():
    return torch.Generator().manual_seed(0)


def random_grid():
    occupied = torch.rand(8, 8, 8, generator=generator()) < 0.7
    count = int(occupied.sum())
    return PlenoxelGrid.from_mask(
        occupied, 3 * torch.rand(count, generator=generator()), 0.3 * torch.randn(count, 27, generator=generator())
    )


def frames(masked=False, size=(20, 16)):
    cameras = torch.eye(4).double().repeat(3, 1, 1)
    cameras[:, :3, 3] = torch.tensor([[0.0, 0, -3], [0.2, 0, -3], [0, 0.3, -3]])
    valid = torch.ones(3, *size, dtype=torch.bool)
    valid[0, 4:] = False
    valid[1, 0, 0] = valid[2, 13, 15] = False
    return Frames(
        images=torch.randint(256, (3, *size, 3), dtype=torch.uint8, generator=generator()),
        depths=torch.zeros(3, 2, 2, dtype=torch.int16),
        camera_to_world=cameras,
        intrinsics=torch.tensor([[20.0, 0, 8], [0, 20, 10], [0, 0, 1]]).double(),
        indices=[0, 1, 2], valid=valid if masked else None,
    )  # fmt: skip


def sampler(of):
    return RaySampler(of, of.camera_to_world, 1.0, generator())


def optimizer(grid, regularization, background=None):
    rates = FitOptimization(density_rate=(1.0, 1.0))
    return GridOptimizer(grid, rates, regularization, RenderOptions(), 11, generator(), background)


def test_the_gradient_is_that_of_the_measure():
    rendered, target = torch.rand(2, 2 * SIDE**2, 3, generator=generator())
    patches = [values.double().unflatten(0, (2, SIDE, SIDE)).movedim(-1, 1) for values in (rendered, target)]
    patches[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda image: similarity_map(image, patches[1]), patches[0])
    (expected,) = torch.autograd.grad(1 - similarity_map(*patches).mean(), patches[0])
    found = structure_gradient(rendered, target, SIDE)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.movedim(1, -1).reshape(-1, 3), rtol=1e-5, atol=1e-9)


def test_windows_are_those_of_the_measure():
    image, target = torch.rand(2, 3, 40, 30, generator=generator()).double()
    _, whole = structural_similarity_index_measure(image[None], target[None], data_range=1.0, return_full_image=True)
    torch.testing.assert_close(similarity_map(image, target), whole[0, :, 5:-5, 5:-5], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("layers", [False, True])
def test_a_step_has_the_gradient_of_both_losses(layers):
    grid, batch = random_grid(), sampler(frames())
    squares = batch.draw_patches(2, SIDE)
    rays = RayBatch.together([batch.draw(100), squares])
    targets, count = rays.colors, len(squares.colors)
    background = None
    if layers:
        texture = SphereLayers(torch.rand(6, 12, 4, 4, generator=generator()))
        background = BackgroundOptimizer(texture, FitBackground(layers=4, rows=6), RenderOptions(), 11)
    weights = FitRegularization(structure=0.3, structure_share=count / len(targets), structure_side=SIDE)
    tested = optimizer(grid, weights, background=background)
    behind = background.render(rays, 0.25) if layers else 0.25
    tested._add_ray_gradients(rays, tested._with_structure(rays, targets, behind), behind)

    values = [grid.density.clone().requires_grad_(), grid.sh.clone().requires_grad_()]
    seen = ops.render_rays(grid.handle.with_values(*values), rays.origins, rays.directions, RenderOptions())
    rgb = seen.rgb + (1 - seen.alpha)[:, None] * (behind - RenderOptions().background_brightness)
    patches = [part[-count:].unflatten(0, (2, SIDE, SIDE)).movedim(-1, 1) for part in (rgb, targets)]
    loss = ((rgb - targets) ** 2).mean() + 0.3 * (1 - similarity_map(*patches).mean())
    for found, expected in zip((tested._grad_density, tested._grad_sh), torch.autograd.grad(loss, values), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        assert expected.abs().max() > 0


@pytest.mark.parametrize("masked", [False, True])
def test_patches_are_whole_squares_of_one_photograph(masked):
    of = frames(masked)
    rays = sampler(of).draw_patches(2000, SIDE)
    squares = rays.colors.unflatten(0, (-1, SIDE, SIDE))
    found = set()
    for square, frame in zip(squares, rays.frames[:: SIDE**2].tolist(), strict=True):
        image = of.images[frame].float() / 255
        places = [(row, column) for row in range(9) for column in range(5)
                  if torch.equal(image[row : row + SIDE, column : column + SIDE], square)]  # fmt: skip
        assert len(places) == 1
        found.add((frame, *places[0]))
    everywhere = {(frame, row, column) for frame in range(3) for row in range(9) for column in range(5)}
    if masked:
        everywhere = {(frame, row, column) for frame, row, column in everywhere
                      if of.valid[frame, row : row + SIDE, column : column + SIDE].all()}  # fmt: skip
        assert len(everywhere) == 44 + 45 - 7 and not any(frame == 0 for frame, *_ in everywhere)
    assert found == everywhere  # 135 at most


def test_no_square_without_a_masked_pixel_is_an_error():
    with pytest.raises(UserError, match="16x20 pixels has a square of 17 .*structure_side"):
        sampler(frames()).draw_patches(1, 17)
    with pytest.raises(UserError, match="structure = 0"):
        sampler(replace(frames(masked=True), valid=torch.zeros(3, 20, 16, dtype=torch.bool))).draw_patches(1, SIDE)


@pytest.mark.parametrize("values", [{"structure": -1.0}, {"structure_side": 10}, {"structure_share": 0.0}])
def test_impossible_options_are_named(values):
    with pytest.raises(UserError, match=next(iter(values))):
        FitRegularization(**values)

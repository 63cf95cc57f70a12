"""Fields on one grid: densities, colours and renders against what they were."""

import pytest
import torch

from model import PlenoxelGrid, RenderOptions, render_rays
from model.export.options import GridOptions
from model.export.single_grid import on_one_grid
from tests.model.export.shapes import ball, field_of
from utils.errors import UserError


def rays(count=400):
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 3
    targets = (torch.rand(count, 3, generator=generator) - 0.5) * 0.8
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1)


def haze(resolution, levels, density=1.5):
    """Everything within 0.9 is filled; of nested grids it is stored so that a voxel of any size is as opaque."""
    field = field_of(ball(0.9), resolution, levels, color=lambda points: (points + 1) / 2)
    level = field.links_idx // resolution**3
    return field.replace(density=density * 0.5 ** (levels - 1 - level).float())


def test_the_same_resolution_is_the_same_grid():
    grid = haze(16, 1)
    again = on_one_grid(grid, GridOptions(resolution=16, least_opacity=0.0))
    rows = again.mask_of(torch.ones(again.num_voxels, dtype=torch.bool)) & grid.occupied
    assert rows.sum() == grid.num_voxels == again.num_voxels
    torch.testing.assert_close(again.density, grid.density, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(again.sh, grid.sh, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("resolution, tolerance", [(64, 0.02), (32, 0.03)])
def test_light_is_lost_as_in_nested_grids(resolution, tolerance):
    """Three grids of 16, whose smallest voxels are those of 64^3; half as many cells see means of eight of them."""
    nested = haze(16, 3)
    single = on_one_grid(nested, GridOptions(resolution=resolution, least_opacity=0.0))
    assert single.levels == 1 and single.resolution == (resolution,) * 3
    options = RenderOptions(step_size=0.1)
    before, after = (render_rays(grid, *rays(), options) for grid in (nested, single))
    assert before.alpha.mean() > 0.8
    assert (before.alpha - after.alpha).abs().mean() < tolerance
    assert (before.rgb - after.rgb).abs().mean() < tolerance


def test_a_thin_sheet_keeps_its_opacity_in_coarser_cells():
    """One layer of 64 with optical depth 2 becomes one or two layers of 16 with the same light behind them."""
    mask = torch.zeros(64, 64, 64, dtype=torch.bool)
    mask[30] = True
    sheet = PlenoxelGrid.from_mask(mask, torch.full((64 * 64,), 2 * 32.0), torch.zeros(64 * 64, 27))
    coarse = on_one_grid(sheet, GridOptions(resolution=16, least_opacity=0.0))
    origin, direction = torch.tensor([[-3.0, 0.01, 0.02]]), torch.tensor([[1.0, 0, 0]])
    alphas = [float(render_rays(grid, origin, direction, RenderOptions(step_size=0.02)).alpha) for grid in
              (sheet, coarse)]  # fmt: skip
    assert alphas[0] == pytest.approx(1 - 0.1353, abs=0.01) and alphas[1] == pytest.approx(alphas[0], abs=0.01)


def test_hardly_opaque_cells_are_left_out_but_for_neighbours():
    """A ball of two densities, half of each: the thin half stays in the layer beside the other only."""
    grid = haze(16, 1)
    thick = grid.voxel_centers()[:, 0] > 0
    grid = grid.replace(density=torch.where(thick, 1.5, 0.01))
    kept = on_one_grid(grid, GridOptions(resolution=16, least_opacity=0.1))
    x = kept.voxel_centers()[:, 0]
    assert float(x.min()) == pytest.approx(-1 / 16) and (kept.density[x > 0] > 1.4).all()
    assert int((x > 0).sum()) == int(thick.sum())
    with pytest.raises(UserError, match="none of the 16.3 cells has an opacity of GridOptions.least_opacity = 0.99"):
        on_one_grid(grid, GridOptions(resolution=16, least_opacity=0.99))

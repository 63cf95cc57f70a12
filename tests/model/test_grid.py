"""The grid: what it stores where, what it refuses, and the round trip through PeRFception's format."""

import pytest
import torch

from dataloader import SceneTransform, load_perfception_scene
from model import PlenoxelGrid, RenderOptions, render_rays
from model.voxel_masks import dilate, resize_mask
from tests.model.grid_fixture import dense, voxel_centers


def random_grid(resolution=(5, 4, 6), voxels=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = resolution[0] * resolution[1] * resolution[2]
    links_idx = torch.randperm(cells, generator=generator)[:voxels]
    density = torch.rand(voxels, generator=generator) * 40
    sh = torch.randn(voxels, 27, generator=generator) * 0.3
    return PlenoxelGrid.from_sparse(resolution, links_idx, density, sh), links_idx, density, sh


def test_rows_stand_at_their_cells():
    grid, links_idx, density, sh = random_grid()
    dense_density, dense_sh = dense(grid)
    for row in range(len(links_idx)):
        index = int(links_idx[row])
        i, j, k = index // 24, index // 6 % 4, index % 6  # (i * Ry + j) * Rz + k
        assert dense_density[i, j, k] == density[row]
        assert torch.equal(dense_sh[i, j, k], sh[row])
    assert int(grid.occupied.sum()) == grid.num_voxels == 30
    assert torch.equal(grid.links_idx, links_idx)


def test_voxels_lie_in_the_world_where_the_format_says():
    """FACTS: voxel i's centre is at (i + 0.5) * 2 / R - 1. Trilinear surfaces begin a voxel before a centre."""
    voxels = torch.tensor([[0, 0, 0], [7, 3, 1], [2, 1, 1]])
    links_idx = (voxels[:, 0] * 4 + voxels[:, 1]) * 2 + voxels[:, 2]
    grid = PlenoxelGrid.from_sparse((8, 4, 2), links_idx, torch.full((3,), 1e5), torch.zeros(3, 27))
    assert grid.voxel_size == (0.25, 0.5, 1.0)
    centers = (voxels + 0.5) * 2 / torch.tensor([8, 4, 2]) - 1
    assert torch.equal(voxel_centers(voxels[:, 0], 8), centers[:, 0])
    for axis, size in enumerate(grid.voxel_size):
        for way in (1.0, -1.0):
            direction = torch.zeros(3, 3)
            direction[:, axis] = way
            out = render_rays(grid, centers - 3 * direction, direction, RenderOptions(step_size=0.01))
            outermost = ((voxels == 0) if way > 0 else (voxels == torch.tensor([7, 3, 1])))[:, axis]
            begin = torch.where(outermost, 3 - size / 2, 3 - size)  # beyond the border the border's value goes on
            assert (out.alpha > 0.999).all()
            assert ((out.depth - begin).abs() < 0.03 * size).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"links_idx": torch.tensor([0, 1, 1])}, "twice"),
        ({"links_idx": torch.tensor([0, 1, 27])}, "outside"),
        ({"links_idx": torch.tensor([0, -1, 2])}, "outside"),
        ({"links_idx": torch.tensor([0, 1])}, "shape"),
        ({"sh": torch.zeros(3, 9)}, "sh must be"),
        ({"density": torch.tensor([1.0, torch.nan, 1.0])}, "NaN"),
        ({"density": torch.zeros(3, 1)}, "density must be"),
        ({"resolution": (3, 3)}, "3 entries"),
        ({"radius": (1.0, 0.0, 1.0)}, "radius"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {
        "resolution": (3, 3, 3), "links_idx": torch.tensor([0, 1, 2]), "density": torch.ones(3),
        "sh": torch.zeros(3, 27), **change,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        PlenoxelGrid.from_sparse(**arguments)


def test_replaced_values_share_the_index():
    grid, _, density, sh = random_grid()
    other = grid.replace(density=density * 2)
    assert other.handle.index is grid.handle.index and other.sh is grid.sh
    assert torch.equal(other.density, density * 2) and torch.equal(grid.density, density)
    assert grid.replace().handle is grid.handle and grid.to("cpu").handle is grid.handle
    for name, wrong in (("density", density.double()), ("density", density[1:]), ("sh", sh[:, :9])):
        with pytest.raises(ValueError, match=f"{name}"):
            grid.replace(**{name: wrong})


def test_links_are_looked_at():
    grid, *_ = random_grid()
    assert torch.equal(PlenoxelGrid(grid.links, grid.density, grid.sh).links_idx, grid.links_idx)
    for links in (grid.links + 1, grid.links.clamp(max=0), grid.links.long(), grid.links[None]):
        with pytest.raises(ValueError, match="links"):
            PlenoxelGrid(links, grid.density, grid.sh)


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_save_and_load(tmp_path, bits):
    grid, links_idx, density, sh = random_grid()
    transform = SceneTransform(torch.eye(4), torch.tensor([1.0, 2.0, 3.0]), 0.25, ["0", "8"])
    grid.save(tmp_path / "scene", transform, bits)
    loaded = PlenoxelGrid.load(tmp_path / "scene")
    assert loaded.resolution == grid.resolution
    assert torch.equal(loaded.links_idx.sort().values, links_idx.sort().values)
    dense_density, dense_sh = dense(loaded)
    assert torch.equal(dense_density, dense(grid)[0])
    error = (dense_sh - dense(grid)[1]).abs().amax((0, 1, 2))
    spread = sh.amax(0) - sh.amin(0)
    bound = {32: 0 * spread, 16: sh.abs().amax(0) * 2**-11, 8: spread / 510, 4: spread / 30}[bits]
    assert (error <= bound * 1.001 + 1e-7).all()
    assert load_perfception_scene(tmp_path / "scene").transform.scene_scale == 0.25


@pytest.mark.parametrize(("levels", "bits"), [(1, 32), (1, 16), (1, 8), (1, 4), (1, 2), (2, 32), (2, 16), (2, 8)])
def test_a_loaded_grid_knows_what_bytes_its_coefficients_were(tmp_path, levels, bits):
    shape, generator = (4, 4, 4) if levels == 1 else (1, levels, 4, 4, 4), torch.Generator().manual_seed(0)
    values = torch.rand(64 * levels, generator=generator), torch.randn(64 * levels, 27, generator=generator)
    grid = PlenoxelGrid.from_mask(torch.ones(shape, dtype=torch.bool), *values)
    grid.save(tmp_path / "scene", bits=bits)
    handle = PlenoxelGrid.load(tmp_path / "scene").handle
    if bits > 8:
        assert handle.quantization is None
        return
    low, scale = handle.quantization
    codes = ((handle.sh - low) / scale).round()
    assert codes.min() == 0 and codes.max() == 2**bits - 1
    assert torch.equal(codes * scale + low, handle.sh)
    assert handle.with_values(density=handle.density * 2).quantization is handle.quantization
    assert handle.with_values(sh=handle.sh).quantization is None
    handle.values_changed()
    assert handle.quantization is None


def test_only_grids_of_the_format_are_saved(tmp_path):
    grid = PlenoxelGrid.from_sparse((3, 3, 3), torch.tensor([0]), torch.ones(1), torch.zeros(1, 27), radius=(1, 1, 2))
    with pytest.raises(ValueError, match="radius 1"):
        grid.save(tmp_path / "scene")


def test_selected_rows_keep_their_values_and_voxels():
    grid, links_idx, density, sh = random_grid()
    keep = torch.rand(30, generator=torch.Generator().manual_seed(1)) < 0.5
    smaller, mask = grid.select(keep), grid.mask_of(keep)
    assert torch.equal(smaller.occupied, mask)
    assert torch.equal(dense(smaller)[0], dense(grid)[0] * mask)
    assert torch.equal(dense(smaller)[1], dense(grid)[1] * mask[..., None])
    nothing = grid.select(torch.zeros(30, dtype=torch.bool))
    assert nothing.num_voxels == 0 and not nothing.occupied.any()


def test_dilate_against_a_loop():
    mask = torch.rand(6, 5, 7, generator=torch.Generator().manual_seed(2)) < 0.05
    expected = torch.zeros_like(mask)
    for i, j, k in mask.nonzero().tolist():
        expected[max(0, i - 2) : i + 3, max(0, j - 2) : j + 3, max(0, k - 2) : k + 3] = True
    assert torch.equal(dilate(mask, 2), expected)


@pytest.mark.parametrize("sizes", [(4, 8), (8, 4), (6, 4), (5, 7)])
def test_resize_mask_takes_the_cell_a_centre_lies_in(sizes):
    old, new = sizes
    mask = torch.rand(old, old, old, generator=torch.Generator().manual_seed(3)) < 0.5
    resized = resize_mask(mask, (new, new, new))
    for i in range(new):
        for j in range(new):
            source = [int((n + 0.5) * old / new) for n in (i, j, 0)]
            assert resized[i, j, 0] == mask[tuple(source)]

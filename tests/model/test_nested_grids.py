"""Nested grids on the model's side: apart and together, masks across levels, and their file."""

import numpy as np
import pytest
import torch

from dataloader.nested_field import NESTED_FILE
from dataloader.verification import inspect_field
from model import PlenoxelGrid, RenderOptions, render_rays
from model.fitting.placement import Placement
from model.nested_grids import dilate_levels, map_levels, nest_grids, shell_mask, split_grids
from model.sphere_layers import SphereLayers
from utils.errors import UserError
from utils.identity import field_inputs, tensor_identity

LEVELS, SIDE = 3, 8


def random_grids(seed=0) -> list[PlenoxelGrid]:
    generator = torch.Generator().manual_seed(seed)
    grids = []
    for level in range(LEVELS):
        mask = torch.rand(SIDE, SIDE, SIDE, generator=generator) < 0.4
        if level:
            mask &= shell_mask(SIDE)
        count = int(mask.sum())
        density = torch.rand(count, generator=generator) * 5
        grids.append(PlenoxelGrid.from_mask(mask, density, torch.randn(count, 27, generator=generator) * 0.2))
    return grids


def random_rays(count=200):
    generator = torch.Generator().manual_seed(1)
    origins = torch.randn(count, 3, generator=generator)
    targets = torch.rand(count, 3, generator=generator) - 0.5
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1)


def test_apart_and_together_again():
    grids = random_grids()
    nested = nest_grids(grids)
    assert nested.levels == LEVELS and nested.resolution == (SIDE,) * 3
    assert nested.num_voxels == sum(grid.num_voxels for grid in grids)
    for before, after in zip(grids, split_grids(nested), strict=True):
        assert torch.equal(before.links, after.links)
        assert torch.equal(before.density, after.density) and torch.equal(before.sh, after.sh)
    again = nest_grids(split_grids(nested))
    assert torch.equal(again.links, nested.links) and torch.equal(again.density, nested.density)


def test_rows_in_another_order_keep_their_voxels():
    grids = random_grids()
    order = torch.randperm(grids[1].num_voxels, generator=torch.Generator().manual_seed(2))
    one = grids[1]
    grids[1] = PlenoxelGrid.from_sparse(one.resolution, one.links_idx[order], one.density[order], one.sh[order])
    for a, b in zip(
        render_rays(nest_grids(grids), *random_rays()),
        render_rays(nest_grids(random_grids()), *random_rays()),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_centers_shrink_with_the_levels():
    nested = nest_grids(random_grids())
    centers, start = nested.voxel_centers(), 0
    for level, grid in enumerate(split_grids(nested)):
        own = centers[start : start + grid.num_voxels]
        start += grid.num_voxels
        torch.testing.assert_close(own, grid.voxel_centers() * 0.5 ** (LEVELS - 1 - level))
    reach = centers[: int((nested.links[0, 0] >= 0).sum())].abs().max()
    assert 0.2 < reach < 0.25
    torch.testing.assert_close(nested.voxel_centers(torch.tensor([3, 0])), centers[[3, 0]])


def test_a_shell_keeps_one_layer_of_what_is_within():
    mask = shell_mask(16)
    assert (
        mask[4, 4, 4] and mask[4, 8, 8] and not mask[5, 5, 5] and not mask[8, 8, 8] and mask[11, 8, 8] and mask[3, 8, 8]
    )
    with pytest.raises(ValueError, match="that 4 divides"):
        shell_mask(6)


@pytest.mark.parametrize("voxels", [1, 2])
def test_dilation_crosses_from_level_to_level(voxels):
    """A voxel at the inner box's face grows out of it, and one beside the box grows in."""
    inner, outer = torch.zeros(2, 16, 16, 16, dtype=torch.bool)
    inner[15, 8, 8] = True  # touches the face at the outer grid's x = 12
    grown = dilate_levels([inner, outer], voxels)
    assert grown[0][15 - voxels : 16, 8, 8].all() and not grown[0][14 - voxels].any()
    assert grown[1][12 : 12 + voxels, 8, 8].all() and not grown[1][12 + voxels].any()
    assert not (grown[1] & ~shell_mask(16)).any()

    inner[:] = False
    outer[12, 8, 8] = True
    grown = dilate_levels([inner, outer], voxels)
    assert grown[0][16 - voxels : 16, 8, 8].all() and not grown[0][15 - voxels].any()
    assert grown[1][12 : 13 + voxels, 8, 8].all()


def test_without_dilation_nothing_changes():
    masks = [torch.rand(8, 8, 8) < 0.5, (torch.rand(8, 8, 8) < 0.5) & shell_mask(8)]
    for before, after in zip(masks, dilate_levels(masks, 0), strict=True):
        assert torch.equal(before, after)


def test_levels_are_changed_one_by_one_and_the_background_stays():
    nested = nest_grids(random_grids())
    nested.background = SphereLayers.around(4, 8, torch.device("cpu"))
    doubled = map_levels(nested, lambda level, part: part.replace(density=part.density * (level + 1)))
    assert doubled.background is nested.background
    for level, (before, after) in enumerate(zip(split_grids(nested), split_grids(doubled), strict=True)):
        assert torch.equal(after.density, before.density * (level + 1))


def test_placements_halve_about_the_middle():
    placement = Placement(torch.tensor([-3.0, 1.0, 0.0]).double(), torch.tensor([1.0, 5.0, 4.0]).double())
    inner = placement.inner(2)
    assert torch.equal(inner.middle, placement.middle)
    assert inner.scale == pytest.approx(4 * placement.scale, rel=1e-12)


@pytest.mark.parametrize(("bits", "error"), [(32, 0.0), (16, 1e-3), (8, 1e-2)])
@pytest.mark.parametrize("layers", [0, 4])
def test_saved_and_read(tmp_path, bits, error, layers):
    nested = nest_grids(random_grids())
    if layers:
        nested.background = SphereLayers.around(layers, 8, torch.device("cpu"))
    nested.save(tmp_path, bits=bits)
    assert not (tmp_path / "last.ckpt").exists() and "nested.npz" in field_inputs(tmp_path).files
    loaded = PlenoxelGrid.load(tmp_path)
    assert torch.equal(loaded.links, nested.links) and torch.equal(loaded.density, nested.density)
    assert (loaded.sh - nested.sh).abs().max() <= error
    assert (loaded.background is None) == (not layers)
    out, expected = (render_rays(grid, *random_rays(), RenderOptions()) for grid in (loaded, nested))
    torch.testing.assert_close(out.rgb, expected.rgb, atol=2 * error + 1e-6, rtol=0)
    assert not [finding for finding in inspect_field(tmp_path)[0] if finding.broken]


def test_the_same_grids_give_the_same_bytes(tmp_path):
    for name in "ab":
        nest_grids(random_grids()).save(tmp_path / name)
    assert (tmp_path / "a" / NESTED_FILE).read_bytes() == (tmp_path / "b" / NESTED_FILE).read_bytes()


def test_damage_is_named(tmp_path):
    nest_grids(random_grids()).save(tmp_path)
    arrays = dict(np.load(tmp_path / NESTED_FILE))
    arrays["density"][3] += 1
    np.savez(tmp_path / NESTED_FILE, **arrays)
    with pytest.raises(UserError, match=r"nested\.npz .*checksum does not fit"):
        PlenoxelGrid.load(tmp_path)
    with pytest.raises(UserError, match="saved with 8, 16 or 32"):
        nest_grids(random_grids()).save(tmp_path, bits=4)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("size", lambda size: size * 0 + 4000, "expected the number of levels and three resolutions"),
        ("size", lambda size: np.array([3, 4000, 4000, 4000]), "too few for so many cells: fit the scene again"),
        ("size", lambda size: np.array([1, 8, 8, 8]), "voxel indices run from .* names another resolution"),
        ("voxels", lambda voxels: voxels.astype(np.int32), "voxels are torch.int32"),
        ("density", lambda density: density[:-1], "one density for each voxel"),
        ("density", lambda density: density * np.nan, "not finite"),
        ("background_links", lambda links: links + 1, "the background's data are"),
        ("background_links", lambda links: links[:-1], r"expected \[2 R, R\]"),
    ],
)
def test_numbers_that_make_no_grid_are_named(tmp_path, name, change, message):
    """With a checksum that fits: whoever writes such a file can compute it."""
    nested = nest_grids(random_grids())
    nested.background = SphereLayers.around(4, 8, torch.device("cpu"))
    nested.save(tmp_path)
    arrays = dict(np.load(tmp_path / NESTED_FILE))
    arrays[name] = np.ascontiguousarray(change(arrays[name]))
    order = ("size", "voxels", "density", "sh", "sh_low", "sh_scale", "background", "background_links")
    arrays["checksum"] = np.array(tensor_identity(*(torch.from_numpy(arrays[key]) for key in order)))
    np.savez(tmp_path / NESTED_FILE, **arrays)
    with pytest.raises(UserError, match=message):
        PlenoxelGrid.load(tmp_path)

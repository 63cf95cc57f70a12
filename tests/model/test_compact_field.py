"""Fields in few bytes: the same numbers in the same rows."""

import pytest
import torch

from dataloader import SceneTransform
from model import RadianceField
from model.compact_field import CompactField
from model.nested_grids import nest_grids, shell_mask
from model.sphere_layers import SphereLayers
from tests.lib.cuda_parity import needs_gpu
from tests.model.grid_fixture import filled

TRANSFORM = SceneTransform(torch.eye(4), torch.tensor([0.1, 0.2, 0.3]), 0.5)


def stored_field(folder, bits: int) -> RadianceField:
    generator = torch.Generator().manual_seed(0)
    grid = filled(torch.rand(20, 24, 28, generator=generator) < 0.3, density=3.0)
    grid.density[:] = torch.rand(grid.density.shape, generator=generator) * 50
    grid.sh[:] = torch.randn(grid.sh.shape, generator=generator)
    grid.save(folder, TRANSFORM, bits=bits)
    return RadianceField.load(folder)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_stored_fields_come_back_exactly(tmp_path, bits, device):
    field = stored_field(tmp_path, bits).to(device)
    field.grid.background = SphereLayers(torch.rand(4, 8, 2, 4, device=device))
    compact = CompactField.of(field)
    rows = field.grid.num_voxels
    assert compact.nbytes == rows * (4 + 4 + 27) + 2 * 27 * 4 + 4 * 8 * 2 * 4 * 4
    found = compact.unpack()
    for name in ("links", "density", "sh"):
        assert torch.equal(getattr(found.grid, name), getattr(field.grid, name)), name
    assert found.grid.background is field.grid.background and found.transform is field.transform
    assert found.grid.device == field.grid.device
    assert torch.equal(found.grid.handle.quantization, field.grid.handle.quantization)
    if device == "cuda":  # the order of its cells differs from time to time
        packed, expected = found.grid.handle.packed, field.grid.handle.packed
        assert torch.equal(packed.rows, expected.rows) and packed.rows.dtype == torch.uint8
        assert packed.cells.shape == expected.cells.shape and packed.clamps == expected.clamps
        assert torch.equal(packed.cells.unique(dim=0), expected.cells.unique(dim=0))


def test_nested_grids_come_back_exactly(tmp_path):
    generator = torch.Generator().manual_seed(0)
    grids = []
    for mask in (torch.rand(8, 8, 8, generator=generator) < 0.5, shell_mask(8)):
        grids.append(filled(mask, density=3.0))
        grids[-1].sh[:] = torch.randn(grids[-1].sh.shape, generator=generator)
    nest_grids(grids).save(tmp_path, TRANSFORM)
    field = RadianceField.load(tmp_path)
    found = CompactField.of(field).unpack()
    assert found.grid.levels == 2 and torch.equal(found.grid.links, field.grid.links)
    assert torch.equal(found.grid.sh, field.grid.sh) and torch.equal(found.grid.density, field.grid.density)


def test_values_that_are_no_longer_those_of_the_bytes_are_left_as_they_are(tmp_path):
    field = stored_field(tmp_path, 8)
    field.grid.sh[7, 3] += 1e-3
    assert CompactField.of(field) is None


def test_fields_of_more_bits_are_left_as_they_are(tmp_path):
    assert CompactField.of(stored_field(tmp_path, 32)) is None

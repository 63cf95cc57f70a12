"""The CUDA ops as PyTorch sees them: devices, types, fake functions and schemas."""

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from lib.plenoxel.packed import pack_grid
from tests.lib.cuda_parity import needs_gpu, on_gpu, render_plain
from tests.lib.plenoxel_scenes import Scene, links_from_rows, random_rays, random_scene, render
from tests.lib.test_plenoxel_registration import CASES, ray_arguments

pytestmark = needs_gpu


def test_cuda_is_told_from_cpu():
    scene = random_scene(dtype=torch.float32)
    with pytest.raises(RuntimeError, match="one device"):
        render(scene._replace(origins=scene.origins.cuda()))
    with pytest.raises(RuntimeError, match="one device"):
        render(on_gpu(scene)._replace(origins=scene.origins))
    for renderer in (render, render_plain):
        with pytest.raises(RuntimeError, match="float64 runs on the CPU only"):
            renderer(on_gpu(random_scene(dtype=torch.float64)))


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name):
    generator = torch.Generator().manual_seed(0)
    links = links_from_rows((5, 4, 6), torch.randperm(120, generator=generator)[:70])
    rays = random_rays(6, generator, torch.float32)
    scene = on_gpu(Scene(links, torch.rand(70) + 0.1, torch.randn(70, 27) * 0.1, *rays))
    arguments = [to_float(argument) for argument in CASES[name](scene)]
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    opcheck(getattr(torch.ops.plenoxel, name).default, tuple(arguments), test_utils=checks)


def to_float(argument):
    """Arguments that a case makes itself are float64 and on the CPU."""
    if not isinstance(argument, Tensor):
        return argument
    return (argument.float() if argument.is_floating_point() else argument).cuda()


def test_opcheck_of_packed_ops():
    """The table of cells is numbered in the order in which blocks come: a repeated call need not give the same."""
    scene = on_gpu(random_scene(dtype=torch.float32))
    grid, index = scene.grid(), scene.grid().index
    checks = ("test_schema", "test_faketensor")
    may_clamp = torch.ones_like(scene.density, dtype=torch.bool)
    values = (scene.links, index.cell_table.words, scene.density, scene.sh, may_clamp, index.occupied_cells, None)
    opcheck(torch.ops.plenoxel.cell_table.default, (index.distance,), test_utils=checks)
    opcheck(torch.ops.plenoxel.pack_grid.default, values, test_utils=checks)
    quantization = torch.rand(2, 27, device="cuda")
    opcheck(torch.ops.plenoxel.pack_grid.default, (*values[:-1], quantization), test_utils=checks)
    geometry = ray_arguments(scene)[6:]
    for packed in (grid.packed, pack_grid(index, scene.density, scene.sh, quantization)):
        arguments = (*index.cell_table, *packed, *scene.rays, *geometry, 15, 8)
        opcheck(torch.ops.plenoxel.render_packed.default, arguments)

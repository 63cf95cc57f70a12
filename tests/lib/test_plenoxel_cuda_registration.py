"""The CUDA ops as PyTorch sees them: devices, types, fake functions and schemas."""

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from lib.plenoxel import ops, packed
from tests.lib.cuda_parity import needs_gpu, on_gpu
from tests.lib.plenoxel_scenes import Scene, links_from_rows, random_rays, random_scene
from tests.lib.test_plenoxel_registration import CASES, ray_arguments

pytestmark = needs_gpu


def test_cuda_is_told_from_cpu():
    scene = random_scene(dtype=torch.float32)
    with pytest.raises(RuntimeError, match="one device"):
        ops.render_rays(*scene._replace(origins=scene.origins.cuda()))
    with pytest.raises(RuntimeError, match="float64 runs on the CPU only"):
        ops.render_rays(*on_gpu(random_scene(dtype=torch.float64)))


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
    scene = on_gpu(random_scene(dtype=torch.float32))
    clamps = torch.zeros_like(scene.density, dtype=torch.bool)
    distance = ops.cell_distance(scene.links)
    arguments = (scene.links, distance, scene.density, clamps)
    opcheck(torch.ops.plenoxel.pack_cells.default, arguments, test_utils="test_schema")
    grid = packed.pack_grid(scene.links, distance, scene.density, scene.sh, "uint8")
    geometry = ray_arguments(scene)[6:]
    opcheck(torch.ops.plenoxel.render_packed.default, (*grid, *scene[3:], *geometry, False, 15, 8))

"""What the tests of the CUDA ops share: scenes, both renderers, and how close results must be to the C++ ops'.

With gradients a GPU renders from a grid's tensors, eight lanes a ray; without, from a packed copy, one lane a ray.
"""

import os

import pytest
import torch
from torch import Tensor

from tests.lib.plenoxel_scenes import Scene, awkward_rays, random_grid, random_rays, render

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_cache = pytest.mark.skipif(
    "PYTORCH_NO_CUDA_MEMORY_CACHING" in os.environ, reason="captures and figures of memory need PyTorch's cache"
)

NESTED = (1, 3, 12, 16, 20)
# A ray's voxels are all kept, or too many; a lane finds too many cells; grids are nested.
TRACED = [(7, 5, 9), (150, 4, 3), (700, 4, 3), NESTED]
RESOLUTIONS = [(2, 2, 2), (2, 3, 40), (7, 5, 9), (33, 64, 20), NESTED]
OPTIONS = [
    {},
    {"step_size": 0.05},
    {"step_size": 0.37, "near_clip": 0.4, "background_brightness": 0.3, "stop_thresh": 1e-2, "sh_background": True},
    {"center": (0.2, -0.1, 0.0), "radius": (1.5, 1.0, 0.7), "sigma_thresh": 1.0},
]


def on_gpu(scene):
    return type(scene)(*(tensor.cuda() for tensor in scene))


def render_plain(scene: Scene, **options):
    return render(scene._replace(density=scene.density.detach().requires_grad_()), **options)


each_renderer = pytest.mark.parametrize("renderer", [render_plain, render], ids=["plain", "packed"])


def scene_of(resolution, share=0.4, seed=0) -> Scene:
    """Random and awkward rays; strong coefficients, so that colours are clamped often."""
    generator = torch.Generator().manual_seed(seed)
    grid = random_grid(resolution, share, generator, torch.float32)
    origins, directions = (torch.cat(pair) for pair in zip(
        random_rays(500, generator, torch.float32), awkward_rays(torch.float32), strict=True))
    return Scene(*grid, origins, directions)


def assert_agrees(actual: Tensor, expected: Tensor, flips: int = 0):
    """Rounding apart; `flips` rays may have taken a sample more or less at a threshold."""
    error = (actual.cpu() - expected.cpu()).abs().reshape(len(expected), -1)
    assert torch.isfinite(error).all()
    worst = error.amax(1).sort().values
    worst = worst[: len(worst) - flips] if len(worst) > flips else worst
    assert worst.max() <= 1e-4
    assert error.mean() <= 2e-6 + flips * 1e-5


def assert_close_to_largest(actual: Tensor, expected: Tensor, tolerance: float = 1e-5):
    assert (actual.cpu() - expected.cpu()).abs().max() <= tolerance * expected.abs().max()

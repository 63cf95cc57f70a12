"""Small grids and rays that the Plenoxel tests share."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.plenoxel import ops
from lib.plenoxel.grid import GridHandle
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions


class Scene(NamedTuple):
    links: Tensor
    density: Tensor
    sh: Tensor
    origins: Tensor
    directions: Tensor

    @property
    def rays(self) -> tuple[Tensor, Tensor]:
        return self.origins, self.directions

    def grid(self, **box) -> GridHandle:
        """A new handle; `box` is the grid's center and radius."""
        return GridHandle(VoxelIndex(self.links, len(self.density), **box), self.density, self.sh)


_BOX = ("center", "radius")
_RENDER_OPTIONS = {field.name for field in fields(RenderOptions)}


def run(op: Callable, scene: Scene, *tensors: Tensor, **arguments) -> Any:
    """Calls an op on a scene's rays, or its reference.

    Args:
        arguments: of the grid's box, of RenderOptions and of the op itself.
    """
    box = {name: arguments.pop(name) for name in _BOX if name in arguments}
    options = {name: arguments.pop(name) for name in _RENDER_OPTIONS & arguments.keys()}
    return op(scene.grid(**box), *scene.rays, *tensors, RenderOptions(**options), **arguments)


def render(scene: Scene, **arguments):
    return run(ops.render_rays, scene, **arguments)


def links_from_rows(resolution, occupied: Tensor) -> Tensor:
    """Links of shape `resolution` in which voxel occupied[row] has this row."""
    links = torch.full((int(np.prod(resolution)),), -1, dtype=torch.int32)
    links[occupied] = torch.arange(len(occupied), dtype=torch.int32)
    return links.view(*resolution)


def random_grid(resolution, share: float, generator: torch.Generator, dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A random grid with `share` of its voxels occupied; a quarter of the densities are negative."""
    voxels = int(np.prod(resolution))
    occupied = torch.randperm(voxels, generator=generator)[: max(1, round(share * voxels))]
    density = torch.rand(len(occupied), generator=generator, dtype=dtype) * 40 - 10
    sh = torch.randn(len(occupied), 27, generator=generator, dtype=dtype) * 0.4
    return links_from_rows(resolution, occupied), density, sh


def random_rays(count: int, generator: torch.Generator, dtype) -> tuple[Tensor, Tensor]:
    """Rays that start in and around the cube [-1, 1]^3 and mostly cross it."""
    origins = torch.randn(count, 3, generator=generator, dtype=dtype)
    targets = torch.rand(count, 3, generator=generator, dtype=dtype) * 2.4 - 1.2
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1)


def random_scene(resolution=(7, 5, 9), share=0.4, rays=64, seed=0, dtype=torch.float64) -> Scene:
    """`resolution` is links' shape: three sizes, or five where grids are nested."""
    generator = torch.Generator().manual_seed(seed)
    return Scene(*random_grid(resolution, share, generator, dtype), *random_rays(rays, generator, dtype))


def update_with_equal_gradients(grid: GridHandle) -> None:
    """One step of `update_grid` with the gradient 1 everywhere."""
    gradients = torch.ones_like(grid.density), torch.ones_like(grid.sh)
    means = torch.zeros_like(grid.density), torch.zeros_like(grid.sh)
    touched = torch.ones_like(grid.density, dtype=torch.bool)
    ops.update_grid(grid, *gradients, *means, touched, lr_density=1.0, lr_sh=0.01)


def variation_gradients(scene: Scene, weight: float) -> tuple[Tensor, Tensor]:
    """By densities and coefficients, in double precision: with running means of 1, RMSProp steps by the gradient."""
    scene = scene._replace(density=scene.density.double(), sh=scene.sh.double())
    moved = scene._replace(density=scene.density.clone(), sh=scene.sh.clone()).grid()
    gradients = torch.zeros_like(moved.density), torch.zeros_like(moved.sh)
    means = torch.ones_like(moved.density), torch.ones_like(moved.sh)
    touched = torch.zeros_like(moved.density, dtype=torch.bool)
    ops.update_grid(moved, *gradients, *means, touched, lr_density=1.0, lr_sh=1.0, beta=1.0, epsilon=0.0,
                    tv_density=weight, tv_sh=weight)  # fmt: skip
    return scene.density - moved.density, scene.sh - moved.sh


def awkward_rays(dtype) -> tuple[Tensor, Tensor]:
    """Rays along axes and face diagonals from inside, outside, beside, behind, on a face and through a corner."""
    starts = [(0, 0, 0), (0.3, -0.2, 0.1), (-3, 0, 0), (3, 0.2, 0.1), (0.1, -3, 0.2), (1, 0, 0), (-1, -1, -1),
              (0, 1, 0), (0, 0, 1.5), (2, 2, 2), (-3, 1, 0), (-3, 1.001, 0)]
    ways = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1), (1, 1, 0), (1, 0, -1), (1, 1, 1)]
    pairs = [(start, way) for start in starts for way in ways]
    origins = torch.tensor([start for start, _ in pairs], dtype=dtype)
    directions = torch.tensor([way for _, way in pairs], dtype=dtype)
    return origins, torch.nn.functional.normalize(directions, dim=-1)


class Golden(NamedTuple):
    """What svox2 and the paper's fork of it computed for one grid, see FACTS: arrays by name, options by number.

    Gradients and variations stand for the rows named with them. ``flips``: so many rays may have taken a sample more
    or less in the last option set, where a density rounds to the other side of the threshold.
    """

    scene: Scene
    arrays: dict[str, Tensor]
    options: list[dict]
    graded: Tensor
    varied: Tensor
    flips: int

    def fit_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Origins, directions and target colours of as many rays as the loss was a mean over; some miss the grid."""
        origins, directions, target = self.scene.origins, self.scene.directions, self.arrays["gt"]
        missing = (GOLDEN_BATCH - len(origins), -1)
        beyond = torch.full_like(origins[:1], 3.0)
        return (
            torch.cat((origins, beyond.expand(missing))),
            torch.cat((directions, torch.nn.functional.normalize(beyond, dim=-1).expand(missing))),
            torch.cat((target, beyond.expand(missing))),
        )


GOLDEN_BATCH = 2048
GOLDEN_CUT = Path(__file__).parents[1] / "data" / "golden.npz"
"""Part of the golden files; ``cut_golden.py`` beside it says which, and makes it."""


def load_golden(path: Path) -> Golden:
    """The whole of one golden file."""
    with np.load(path, allow_pickle=False) as file:
        options, arrays = str(file["options"]), {name: file[name] for name in file.files if name != "options"}
    rows = np.arange(len(arrays["sigma"]))
    return _golden({**arrays, "grad_rows": rows, "tv_rows": rows}, options, flips=4)


def load_golden_cut(number: int) -> Golden:
    """The checked-in part of the golden files of one grid."""
    with np.load(GOLDEN_CUT, allow_pickle=False) as file:
        prefix = f"grid_{number}/"
        arrays = {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}
        return _golden(arrays, str(file["options"]), flips=0)


def _golden(arrays: dict[str, np.ndarray], options: str, flips: int) -> Golden:
    arrays = {name: torch.from_numpy(values) for name, values in arrays.items()}
    links = links_from_rows(arrays["reso"].tolist(), arrays["links_idx"])
    scene = Scene(links, arrays["sigma"], arrays["sh"], arrays["origins"], arrays["dirs"])
    return Golden(scene, arrays, json.loads(options), arrays["grad_rows"].long(), arrays["tv_rows"].long(), flips)


def golden_named(name: str, request: pytest.FixtureRequest) -> Golden:
    """``"cut_0"``, which every clone has, or a whole file such as ``"svox2_0"``, without which the test skips."""
    if name.startswith("cut_"):
        return load_golden_cut(int(name.removeprefix("cut_")))
    return load_golden(request.getfixturevalue("shared_dir") / "golden" / f"{name}.npz")

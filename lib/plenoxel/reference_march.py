"""Walking rays through a grid in plain PyTorch: what `reference.py` is built on, with its naming.

Nested grids (see `index.VoxelIndex`) are walked in up to 2 L - 1 parts, each with the samples of one level: inwards
from shell to shell, through the innermost box, and out again. `t` is arc length along a ray in voxels, `delta` the
world length of one voxel along that ray, `tau` the optical depth of one step, `weight` what a sample adds to its ray
(weights of a ray sum to at most 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lib.plenoxel.grid import GridHandle
from lib.plenoxel.index import VoxelIndex
from lib.plenoxel.options import RenderOptions
from utils.spherical_harmonics import BASIS_SIZE, SH_CHANNELS

CORNERS = tuple((x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1))


class Sample(NamedTuple):
    distance: Tensor  # [N] world
    sigma: Tensor  # [N]
    coefficients: Tensor  # [N, 27]
    rows: Tensor  # [N, 8] row of each corner, -1 where empty
    corner_weights: Tensor  # [N, 8] trilinear share of each corner, empty or not
    weight: Tensor  # [N], 0 where the ray takes no sample
    active: Tensor  # [N] bool


class RaysInGrid(NamedTuple):
    level: int  # of nested grids
    origins: Tensor  # [N, 3] voxels
    directions: Tensor  # [N, 3] unit length in voxels
    delta: Tensor  # [N], of the outermost level
    world: float  # world length of t is t * delta * world
    start: Tensor  # [N], at the near clip
    entry: Tensor  # [N]
    exit: Tensor  # [N], below `entry` where the ray misses the box


def rays_in_grid(
    index: VoxelIndex,
    origins: Tensor,  # [N, 3] world
    directions: Tensor,  # [N, 3] world, unit
    near_clip: float,
    level: int,
) -> RaysInGrid:
    """World rays in voxel units, with the parameters where they enter and leave the box [-0.5, R - 0.5] of a level."""
    size = origins.new_tensor([float(r) for r in index.resolution])
    scale = size / (2 * origins.new_tensor(list(index.radius)))
    world = 0.5 ** (index.levels - 1 - level)
    grid_origins = (origins - origins.new_tensor(list(index.center))) * scale / world + size / 2 - 0.5
    scaled = directions * scale
    delta = 1 / scaled.norm(dim=-1)
    grid_directions = scaled * delta[:, None]
    parallel = grid_directions == 0
    inverse = 1 / torch.where(parallel, torch.ones_like(scaled), grid_directions)
    low, high = (-0.5 - grid_origins) * inverse, (size - 0.5 - grid_origins) * inverse
    outside = (grid_origins < -0.5) | (grid_origins > size - 0.5)
    infinity = torch.full_like(low, torch.inf)
    first = torch.where(parallel, torch.where(outside, infinity, -infinity), torch.minimum(low, high))
    last = torch.where(parallel, infinity, torch.maximum(low, high))
    start = near_clip / (delta * world)
    entry = torch.maximum(first.amax(-1), start)
    return RaysInGrid(level, grid_origins, grid_directions, delta, world, start, entry, last.amin(-1))


def parts_of_rays(index: VoxelIndex, origins: Tensor, directions: Tensor, near_clip: float) -> list[RaysInGrid]:
    """The parts of world rays, front to back; of a part that a ray does not have, `exit` is below `entry`."""
    whole = [rays_in_grid(index, origins, directions, near_clip, level) for level in range(index.levels)]
    inwards, outwards = [whole[0]], []
    for inner, outer in zip(whole[:-1], whole[1:], strict=True):
        met, never = inner.entry <= inner.exit, torch.full_like(outer.exit, -torch.inf)
        before = torch.where(met, inner.entry / 2, outer.exit)
        inwards.insert(0, outer._replace(exit=torch.where(met & (inner.entry <= inner.start), never, before)))
        outwards.append(outer._replace(entry=inner.exit / 2, exit=torch.where(met, outer.exit, never)))
    return inwards + outwards


def interpolate(grid: GridHandle, points: Tensor, level: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Trilinear interpolation at `points` [N, 3] (voxels, clamped to the grid) of a level.

    Returns sigma [N], coefficients [N, 27], the corners' rows [N, 8] and weights [N, 8]; empty corners count as 0.
    """
    limit = torch.tensor(grid.index.resolution, device=points.device)
    clamped = torch.minimum(points.clamp_min(0), (limit - 1).to(points))
    cell = torch.minimum(clamped.floor().long(), limit - 2)  # [N, 3]
    fraction = clamped - cell
    sigma, coefficients = torch.zeros_like(points[:, 0]), points.new_zeros(len(points), SH_CHANNELS)
    links = grid.index.links.reshape(-1, *grid.index.resolution)[level]
    all_rows, all_weights = [], []
    for corner in CORNERS:
        offset = torch.tensor(corner, device=points.device)
        rows = links[tuple((cell + offset).unbind(-1))].long()
        weight = torch.where(offset == 1, fraction, 1 - fraction).prod(-1)
        kept = (rows >= 0) * weight
        sigma = sigma + kept * grid.density[rows.clamp_min(0)]
        coefficients = coefficients + kept[:, None] * grid.sh[rows.clamp_min(0)]
        all_rows.append(rows)
        all_weights.append(weight)
    return sigma, coefficients, torch.stack(all_rows, -1), torch.stack(all_weights, -1)


class March:
    """Walks all rays in step: iterate over `samples()`, then read the `transmittance` that is left.

    Attributes:
        delta: [N], world length of a voxel along each ray, of the outermost level.
        hits: bool [N], whether a ray meets the box at all.
    """

    def __init__(self, grid: GridHandle, origins: Tensor, directions: Tensor, options: RenderOptions):
        self.grid, self.options = grid, options
        self._parts = parts_of_rays(grid.index, origins, directions, options.near_clip)
        whole = rays_in_grid(grid.index, origins, directions, options.near_clip, grid.index.levels - 1)
        self.delta, self.hits = whole.delta, whole.entry <= whole.exit
        self.tau = torch.zeros_like(self.delta)  # optical depth passed so far
        self.stopped = torch.zeros_like(self.hits)

    @property
    def transmittance(self) -> Tensor:
        """What passes through to the background [N]; 0 for a ray that was stopped."""
        return torch.where(self.stopped, torch.zeros_like(self.tau), torch.exp(-self.tau))

    def samples(self) -> Iterator[Sample]:
        if self.grid.index.num_rows:
            for part in self._parts:
                yield from self._samples_of(part)

    def _samples_of(self, rays: RaysInGrid) -> Iterator[Sample]:
        t, previous = rays.entry, torch.full_like(self.tau, -1)
        step_size = self.options.step_size
        while True:
            moving = t > previous  # false where the ray comes from so far away that a step is lost in rounding
            inside = moving & (t <= rays.exit) & ~self.stopped
            if not inside.any():
                return
            safe_t = torch.where(inside, t, torch.zeros_like(t))
            points = rays.origins + safe_t[:, None] * rays.directions
            sigma, coefficients, rows, corner_weights = interpolate(self.grid, points, rays.level)
            active = inside & (sigma > self.options.sigma_thresh)
            tau = torch.where(active, sigma * step_size * rays.delta, torch.zeros_like(sigma))
            weight = torch.exp(-self.tau) * -torch.expm1(-tau)
            distance = safe_t * rays.delta * rays.world
            yield Sample(distance, sigma, coefficients, rows, corner_weights, weight, active)
            self.tau = self.tau + tau
            self.stopped = self.stopped | (active & (torch.exp(-self.tau) < self.options.stop_thresh))
            t, previous = t + step_size, t


def colors(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Colours [N, 3] of `coefficients` [N, 27] seen along directions whose SH basis is `basis` [N, 9]."""
    channels = coefficients.unflatten(-1, (3, BASIS_SIZE))
    return ((channels * basis[:, None]).sum(-1) + 0.5).clamp_min(0)

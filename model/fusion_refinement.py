"""From fused predictions of voxels to classes: what a class's voxels look like to the network, and what is around them.

A network errs in the same way from most views, so more views do not help: thin chairs look half like the table behind
them, a cabinet half like a wall. The mean over a voxel's views is therefore compared with the mean that each class's
voxels have (Dawid and Skene's estimate of an observer's confusions, 1979), which is learnt from the scene itself and
needs no labels: with M [V, C] the fused probabilities and P the classes' posterior,

    confusions[a, b] = sum_v evidence_v P[v, a] M[v, b],  each row divided by its sum
    log P[v, a] = trust * sum_b M[v, b] log confusions[a, b] + log prior[a] + smoothing * mean of P[., a] around v

a few times, from P = M. For perfect predictions the confusions are the identity, and nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import gin
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, normalize

from model.grid import PlenoxelGrid
from utils.spherical_harmonics import BASIS_SIZE

_RARE = 1e-4  # share of the evidence that every class is given
_CONFUSED = 1e-3  # share of it that is spread evenly over all pairs of classes
_DENSEST = 200.0  # world units; above it a voxel is opaque, and its density says nothing about the surface's direction
_CONSTANT_BASIS = 0.28209479177387814


@gin.configurable
@dataclass(frozen=True)
class RefinementOptions:
    """How fused predictions become classes.

    Attributes:
        steps: how often confusions, prior and posterior are estimated; 0 leaves the fused probabilities as they are.
        trust: how many independent observations the mean over a voxel's views counts as.
        smoothing: weight of what similar voxels nearby are; 0 for none.
        reach: metres, of 'nearby'.
        color_reach: difference of colour, of a range of 1, of 'similar'.
        normal_reach: difference of the surfaces' unit normals, of 'similar'.
        partitions: random divisions of the voxels into groups of similar ones over which means are taken.
    """

    steps: int = 7
    trust: float = 3.5
    smoothing: float = 3.0
    reach: float = 0.6
    color_reach: float = 0.15
    normal_reach: float = 0.6
    partitions: int = 4

    def __post_init__(self) -> None:
        if self.steps < 0 or self.partitions < 1 or self.smoothing < 0:
            raise ValueError("RefinementOptions.steps and .smoothing must not be negative, .partitions at least 1; "
                             f"found {self.steps}, {self.smoothing}, {self.partitions}")
        if min(self.trust, self.reach, self.color_reach, self.normal_reach) <= 0:
            raise ValueError("RefinementOptions.trust and the reaches must be positive, found "
                             f"{self.trust}, {self.reach}, {self.color_reach}, {self.normal_reach}")


@torch.no_grad()
def refine_fused(
    grid: PlenoxelGrid,
    fused: Tensor,  # [V, C]
    evidence: Tensor,  # [V]
    metre: float,
    options: RefinementOptions | None = None,
) -> Tensor:
    """Probabilities ``[V, C]`` of the classes; 0 for voxels where all are 0, and in channels that are 0 everywhere.

    Args:
        grid: the field's voxels.
        fused: mean probabilities of :func:`model.fusion.fuse_views`.
        evidence: how much each voxel was seen.
        metre: its length in world units of the grid.
        options: default ``RefinementOptions()``.
    """
    options = options or RefinementOptions()
    seen, present = (fused > 0).any(1).nonzero()[:, 0], (fused > 0).any(0).nonzero()[:, 0]
    if not options.steps or not len(seen) or not len(present):
        return fused
    mean = fused[seen][:, present]
    mean = mean / mean.sum(1, keepdim=True).clamp(min=1e-9)
    weight = evidence[seen]
    posterior = mean
    similar = _similarity(grid, seen, metre, options) if options.smoothing else None
    generator = torch.Generator().manual_seed(0)
    for _ in range(options.steps):
        score = _log_posterior(posterior, mean, weight, options.trust)
        if similar is not None:
            score += options.smoothing * _means(posterior, weight, similar, options.partitions, generator)
        posterior = score.softmax(1)
    refined = torch.zeros_like(fused)
    refined[seen[:, None], present] = posterior
    return refined


def _log_posterior(
    posterior: Tensor,  # [S, C]
    mean: Tensor,  # [S, C]
    weight: Tensor,  # [S]
    trust: float,
) -> Tensor:  # [S, C]
    """Up to a constant, from the confusions and the prior that the present posterior implies."""
    share = posterior * (weight / weight.sum())[:, None]
    confusions = share.T @ mean + _CONFUSED / mean.shape[1] ** 2
    prior = share.sum(0) + _RARE
    confusions = confusions / confusions.sum(1, keepdim=True)
    return trust * (mean @ confusions.log().T) + (prior / prior.sum()).log()


def _similarity(grid: PlenoxelGrid, rows: Tensor, metre: float, options: RefinementOptions) -> Tensor:
    """Position, colour and normal ``[S, 9]`` of voxels, in units of their reaches."""
    voxel = grid.links_idx[rows]
    position = grid.voxel_centers(rows) / metre
    color = (grid.sh[rows][:, ::BASIS_SIZE] * _CONSTANT_BASIS + 0.5).clamp(0, 1)
    normal = _normals(grid, voxel)
    return torch.cat(
        (position / options.reach, color / options.color_reach, normal / options.normal_reach), -1
    ).float()


def _normals(grid: PlenoxelGrid, voxel: Tensor) -> Tensor:
    """Unit normals ``[S, 3]`` of the surfaces at voxels: where density grows, averaged over their neighbours."""
    density = torch.zeros(grid.levels * math.prod(grid.resolution), device=grid.device)
    density[grid.links_idx] = grid.density.clamp(0, _DENSEST).sqrt()
    smooth = avg_pool3d(density.view(grid.levels, 1, *grid.resolution), 3, 1, 1)[:, 0]
    slopes = [(smooth.roll(-1, axis) - smooth.roll(1, axis)).reshape(-1)[voxel] for axis in (1, 2, 3)]
    return normalize(torch.stack(slopes, -1), dim=-1)


def _means(
    values: Tensor,  # [S, C]
    weight: Tensor,  # [S]
    similar: Tensor,  # [S, F]
    partitions: int,
    generator: torch.Generator,
) -> Tensor:  # [S, C]
    """Weighted means over similar voxels: over groups of voxels in one cell of a randomly shifted grid of features.

    The average over many shifts is a mean with a kernel that falls off with the distance of features in each axis
    (random binning, Rahimi and Recht 2007).
    """
    total = torch.zeros_like(values)
    weighted = torch.cat((values * weight[:, None], weight[:, None]), 1)
    for group, count in _partitions(similar, partitions, generator):
        sums = weighted.new_zeros(count, weighted.shape[1]).index_add_(0, group, weighted)
        total += (sums[:, :-1] / sums[:, -1:].clamp(min=1e-12))[group]
    return total / partitions


def _partitions(similar: Tensor, count: int, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    """Each voxel's group ``[S]``, and how many groups there are."""
    for _ in range(count):
        shift = torch.rand(similar.shape[1], generator=generator).to(similar)
        cell = (similar + shift).floor().long()
        cell -= cell.amin(0)
        number = torch.zeros_like(cell[:, 0])
        for column, size in zip(cell.T, (cell.amax(0) + 1).tolist(), strict=True):
            number = number * size + column
        groups, group = number.unique(return_inverse=True)
        yield group, len(groups)

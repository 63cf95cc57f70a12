"""Class probabilities of a scene's views, fused on the voxels of its field.

A voxel gets the mean of what the rays that see it were predicted to show, each ray counted by its rendering weight
there, by how certain its prediction is, and by its distance. No labels are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gin
import torch
from torch import Tensor

from lib.plenoxel.options import RenderOptions
from model.features import spread_features
from model.grid import PlenoxelGrid
from model.rendering import configured_options, render_rays
from model.view_rays import grid_rays
from utils.cameras import scale_intrinsics
from utils.lenses import Lens

if TYPE_CHECKING:
    from dataloader import SceneTransform

_RAYS_AT_ONCE = 1 << 18
_LEAST_EVIDENCE = 1e-6  # weights are differences of transmittances, which are rounded to 6e-8
_LEAST_PROBABILITY = 1e-6


@gin.configurable
@dataclass(frozen=True)
class FusionOptions:
    """How much a prediction counts.

    Attributes:
        certainty: a ray counts in proportion to exp(-certainty * entropy of its probabilities); 0: all alike.
        context_distance: metres; up to it a ray counts in proportion to the distance that it looks. A near view fills
            a voxel with many pixels, and shows little of what is around. 0: all alike.
        temperature: logits are divided by it, that is, probabilities raised to its inverse and brought to the sum of 1,
            before anything else; more than 1 for a network that is too sure of itself.
    """

    certainty: float = 1.0
    context_distance: float = 3.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("certainty", "context_distance"):
            if getattr(self, name) < 0:
                raise ValueError(f"FusionOptions.{name} must not be negative, found {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"FusionOptions.temperature must be a positive number, found {self.temperature}")


def fuse_views(
    grid: PlenoxelGrid,
    probabilities: Tensor | Iterable[Tensor],  # [N, C, h, w]
    camera_to_world: Tensor,  # [N, 4, 4]
    intrinsics: Tensor,  # [N, 3, 3]
    size: tuple[int, int],
    transform: SceneTransform,
    weights: Tensor | None = None,  # [N] or [N, h, w]
    options: FusionOptions | None = None,
    rendering: RenderOptions | None = None,
    lens: Lens | None = None,
) -> Tensor:
    """Class probabilities ``[V, C]`` of a grid's voxels from those of views; 0 for voxels that no ray sees.

    Predictions may have fewer pixels than the views: rays go through the centres of theirs.

    Args:
        grid: the field's voxels.
        probabilities: of the classes, not negative; or an iterator over those of single views ``[C, h, w]`` or of
            several at a time ``[n, C, h, w]``, so that memory does not grow with N.
        camera_to_world: in the scene's world, metres.
        intrinsics: in pixels of images of ``size``.
        size: (height, width) that the intrinsics belong to.
        transform: from the world into the grid's frame.
        weights: how much views, or their pixels, count besides; default 1.
        options: default ``FusionOptions()``.
        rendering: default ``RenderOptions()``.
        lens: of all views; None for pinholes. Pixels that it does not see do not count.

    Raises:
        ValueError: shapes disagree, or there are more or fewer predictions than views.
    """
    sums, evidence = accumulate_views(
        grid, probabilities, camera_to_world, intrinsics, size, transform, weights, options, rendering, lens
    )
    return mean_of(sums, evidence)


def mean_of(
    sums: Tensor,  # [V, C]
    evidence: Tensor,  # [V]
) -> Tensor:  # [V, C]
    """Sums divided by evidence; 0 where there is hardly any."""
    return torch.where(evidence > _LEAST_EVIDENCE, 1 / evidence.clamp(min=_LEAST_EVIDENCE), 0)[:, None] * sums


@torch.no_grad()
def accumulate_views(
    grid: PlenoxelGrid,
    probabilities: Tensor | Iterable[Tensor],
    camera_to_world: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    transform: SceneTransform,
    weights: Tensor | None = None,
    options: FusionOptions | None = None,
    rendering: RenderOptions | None = None,
    lens: Lens | None = None,
) -> tuple[Tensor, Tensor]:
    """What :func:`fuse_views` divides: weighted sums ``[V, C]`` of probabilities, and the weights' sums ``[V]``."""
    options, rendering = options or FusionOptions(), rendering or configured_options()
    poses = transform.to_grid(camera_to_world.double())
    total, first = None, 0
    for part in _batches(probabilities, len(poses)):
        part = tempered(part.to(grid.device).float(), options.temperature)
        views = slice(first, first + len(part))
        height, width = part.shape[-2:]
        scaled = scale_intrinsics(intrinsics[views], size, (height, width))
        rays = tuple(r.reshape(-1, width, 3) for r in grid_rays(grid, poses[views], scaled, (height, width), lens))
        counts = _counts(grid, part, rays, transform, weights, views, options, rendering)
        values = torch.cat((part * counts[:, None], counts[:, None]), dim=1).movedim(1, -1)
        sums, _ = spread_features(grid, values.reshape(-1, width, values.shape[-1]), *rays, rendering)
        total = sums if total is None else total.add_(sums)
        first = views.stop
    return total[:, :-1], total[:, -1]


def _counts(
    grid: PlenoxelGrid,
    part: Tensor,  # [n, C, h, w]
    rays: tuple[Tensor, Tensor],  # [n * h, w, 3]
    transform: SceneTransform,
    weights: Tensor | None,
    views: slice,
    options: FusionOptions,
    rendering: RenderOptions,
) -> Tensor:  # [n, h, w]
    """How much each ray counts."""
    counts = torch.ones_like(part[:, 0])
    if weights is not None:
        chosen = weights[views].to(part)
        counts = counts * (chosen[:, None, None] if chosen.dim() == 1 else chosen)
    if options.certainty:
        counts = counts * torch.exp(-options.certainty * entropy(part))
    if options.context_distance:
        distance = render_rays(grid, *rays, rendering, outputs=("depth",)).depth / transform.scene_scale
        counts = counts * (distance.reshape(counts.shape) / options.context_distance).clamp(max=1)
    return counts


def tempered(
    probabilities: Tensor,  # [N, C, ...]
    temperature: float,
) -> Tensor:  # [N, C, ...]
    """Probabilities of logits that are divided by ``temperature``; what is 0 stays 0."""
    if temperature == 1:
        return probabilities
    largest = probabilities.amax(1, keepdim=True).clamp(min=_LEAST_PROBABILITY)
    powers = (probabilities / largest) ** (1 / temperature)  # which do not vanish all at once
    return powers / powers.sum(1, keepdim=True).clamp(min=_LEAST_PROBABILITY)


def entropy(
    probabilities: Tensor,  # [N, C, ...]
) -> Tensor:
    """Entropy ``[N, ...]`` in nats of class probabilities."""
    return -(probabilities * probabilities.clamp(min=_LEAST_PROBABILITY).log()).sum(1)


def _batches(probabilities: Tensor | Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """Predictions ``[n, C, h, w]`` of as many views as make a batch of rays; checks that there are ``count`` in all."""
    waiting: list[Tensor] = []
    seen, shape = 0, None
    for part in probabilities:
        part = part[None] if part.dim() == 3 else part
        if part.dim() != 4 or shape not in (None, part.shape[1:]):
            raise ValueError(f"probabilities must be [C, h, w] or [n, C, h, w] of one shape, found {list(part.shape)}")
        shape = part.shape[1:]
        seen += len(part)
        if seen > count:
            raise ValueError(f"there are predictions of more than the {count} views")
        most = max(1, _RAYS_AT_ONCE // (shape[1] * shape[2]))
        for view in part:
            waiting.append(view)
            if len(waiting) == most:
                yield torch.stack(waiting)
                waiting = []
    if waiting:
        yield torch.stack(waiting)
    if seen != count or not count:
        raise ValueError(f"there are predictions of {seen} views, and {count} views")

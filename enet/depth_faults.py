"""How depths of training views are made worse, so that a network does not rely on fields with perfect geometry.

Fields of generated rooms are fitted from exact depth; those of real captures have surfaces that bulge, and none where
a depth camera saw nothing. Normals and heights follow from the depth, so they are as wrong as such fields make them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from enet.appearance import noise_of
from enet.draws import Draws
from enet.options import AugmentationOptions

_CELL = 8  # pixels of the views between two independent values of what is smooth
_OTHER = 0.5  # added to a seed: bulges and holes do not follow each other


def worsen(
    depth: Tensor | None,  # [B, H, W] metres along the optical axis, times opacity
    alpha: Tensor,  # [B, H, W] 0..1
    draws: Draws,
    options: AugmentationOptions,
) -> tuple[Tensor | None, Tensor]:
    """Depth and opacity of a field that knows less: another scale, bulges, holes; None stays None."""
    size = tuple(alpha.shape[-2:])
    if depth is not None and options.depth_scale:
        depth = depth * (1 + options.depth_scale * (2 * draws.depth_scale - 1))[:, None, None]
    if depth is not None and options.depth_bulges:
        strength = options.depth_bulges * draws.depth_bulges[:, None, None]
        depth = depth * (1 + strength * smooth_noise(draws.depth_seed, size)).clamp(0.5, 2)
    if options.depth_holes:
        hole = _lowest(smooth_noise((draws.depth_seed + _OTHER) % 1, size), options.depth_holes * draws.depth_holes)
        alpha = torch.where(hole, 0, alpha)
        depth = None if depth is None else torch.where(hole, 0, depth)
    return depth, alpha


def smooth_noise(
    seeds: Tensor,  # [B], in [0, 1)
    size: tuple[int, int],
) -> Tensor:
    """Noise float32 [B, H, W] that varies over some pixels, with mean 0 and deviation 1 where its values are drawn."""
    height, width = (-(-side // _CELL) + 1 for side in size)
    drawn = noise_of(seeds, (1, height, width))
    whole = (_CELL * (height - 1) + 1, _CELL * (width - 1) + 1)
    return F.interpolate(drawn, whole, mode="bilinear", align_corners=True)[:, 0, : size[0], : size[1]]


def _lowest(
    values: Tensor,  # [B, H, W]
    share: Tensor,  # [B] 0..1
) -> Tensor:
    """Bool [B, H, W]: that share of each image's pixels which have its lowest values."""
    ordered = values.flatten(1).sort(1).values
    last = (share * ordered.shape[1]).long().clamp(max=ordered.shape[1] - 1)
    return values < ordered.gather(1, last[:, None])[:, :, None]

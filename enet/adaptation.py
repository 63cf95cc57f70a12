"""A network's batch normalisation, adapted to views without labels.

What a network's normalisations expect was measured on the views that it was trained on. Views of other cameras, other
fields or real instead of generated rooms have other statistics in every layer; measuring these anew needs no labels
and trains nothing (Li et al., "Adaptive batch normalization for practical domain adaptation", 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dataloader import ViewStore
from enet.module import SegmentationModule
from enet.view_inputs import ViewInputs
from utils.errors import UserError

LEAST_VIEWS = 8  # fewer say little of what other views are like


@torch.no_grad()
def adapt_norms(module: SegmentationModule, stores: Sequence[ViewStore], share: float, batch_size: int) -> None:
    """Move the running statistics of all batch normalisations towards those of stores' views, which need no labels.

    Each layer sees what the layers before it give when they are normalised by a batch's own statistics, as in training.
    Every batch holds views from all over the stores, and the statistics are the mean over the batches, so that they
    depend on the views and the batch size alone.

    Args:
        module: changed in place; left in evaluation mode.
        share: of the new statistics, 0..1; the rest are the old ones.
        batch_size: most views of a batch.

    Raises:
        UserError: there are too few views, the network has no batch normalisation, a store lacks a channel that it
            takes, or a statistic is not finite.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats]
    if not norms:
        raise UserError("the network has no batch normalisation, whose statistics could be adapted")
    views = torch.cat([torch.stack((torch.full((len(store),), number), torch.arange(len(store))), 1)
                       for number, store in enumerate(stores)])  # fmt: skip
    if len(views) < LEAST_VIEWS:
        raise UserError(f"{len(views)} views are too few to adapt a network to; expected {LEAST_VIEWS} or more")
    inputs = [ViewInputs(module, store) for store in stores]
    module.eval()
    before = [(norm.running_mean.clone(), norm.running_var.clone(), norm.momentum) for norm in norms]
    try:
        for number, chosen in enumerate(spread_batches(len(views), batch_size)):
            for norm in norms:
                norm.train()
                norm.momentum = 1 / (number + 1)  # the mean over batches so far
            module(**_joined(inputs, views[chosen]))
    finally:
        module.eval()
        for norm, (_, _, momentum) in zip(norms, before, strict=True):
            norm.momentum = momentum
    for norm, (mean, variance, _) in zip(norms, before, strict=True):
        for found, old in ((norm.running_mean, mean), (norm.running_var, variance)):
            if not torch.isfinite(found).all():
                raise UserError("the network gives NaN or infinity on these views; is it a network of such views?")
            found.copy_(torch.lerp(old, found, share))


def spread_batches(count: int, batch_size: int) -> list[Tensor]:
    """Batches of nearly equal size that hold every number below ``count`` once, each from all over the range."""
    batches = -(-count // batch_size)
    return [torch.arange(first, count, batches) for first in range(batches)]


def _joined(inputs: Sequence[ViewInputs], views: Tensor) -> dict[str, Tensor]:
    """Inputs of a batch's views, [n, 2]: number of the store, and of the view in it."""
    parts = [inputs[store](views[views[:, 0] == store, 1].tolist()) for store in views[:, 0].unique().tolist()]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

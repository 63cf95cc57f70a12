"""How far the surface is that a stored view shows."""

from __future__ import annotations

import torch
from torch import Tensor

from dataloader import ViewStore

_MIN_ALPHA = 0.5
DEPTH_CHANNELS = ("depth", "depth_mesh", "alpha")


def surface_depth(
    store: ViewStore, view: int
) -> Tensor:  # float32 [H, W], metres along the optical axis, 0 = no surface known
    """The mesh's depth where the store has it, else the field's.

    The field's depth is a sum of weights that add up to alpha; it is divided by alpha, and pixels that are less than
    half opaque have no surface.
    """
    if "depth_mesh" in store.channels:
        return store.read("depth_mesh", view)
    return field_depth(store, view)


def field_depth(store: ViewStore, view: int) -> Tensor:
    """The field's own depth, see :func:`surface_depth`."""
    depth = store.read("depth", view)
    if "alpha" not in store.channels:
        return depth
    alpha = store.read("alpha", view)
    return torch.where(alpha >= _MIN_ALPHA, depth / alpha.clamp(min=_MIN_ALPHA), 0.0)

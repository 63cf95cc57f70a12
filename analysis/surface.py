"""Depth of the surfaces in a stored view."""

from __future__ import annotations

import torch
from torch import Tensor

from dataloader import ViewStore

_OPAQUE = 0.5  # from this alpha on, a pixel's depth is a surface's
DEPTH_CHANNELS = ("depth", "depth_mesh", "alpha")


def surface_depth(
    store: ViewStore, view: int
) -> Tensor:  # float32 [H, W], metres along the optical axis, 0 = no surface known
    """The mesh's depth where the store has it, else the field's own."""
    if "depth_mesh" in store.channels:
        return store.read("depth_mesh", view)
    return field_depth(store, view)


def field_depth(store: ViewStore, view: int) -> Tensor:
    """The field's own depth; 0 where it is less than half opaque."""
    depth = store.read("depth", view)
    if "alpha" not in store.channels:
        return depth
    return opaque_depth(depth, store.read("alpha", view))


def opaque_depth(depth: Tensor, alpha: Tensor) -> Tensor:
    """Depth of the surface from a field's expected depth, all ``[H, W]``; 0 where alpha is less than a half.

    Expected depth is a sum over weights that add up to alpha, so it is divided by alpha.
    """
    return torch.where(alpha >= _OPAQUE, depth / alpha.clamp(min=_OPAQUE), 0.0)

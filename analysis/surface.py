"""Depth of the surfaces in a stored view."""

from __future__ import annotations

from torch import Tensor

from dataloader import ViewStore
from utils.cameras import opaque_depth

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

"""Views ready for the network, and batches that become them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class ViewBatch:
    """Views ready for the network, up to normalisation.

    Attributes:
        color: float32 [B, 3, H, W], 0..1.
        sh: float32 [B, 27, H, W], or None.
        label: uint8 [B, H, W], class indices.
        weight: float32 [B, H, W], 0..1, weight of each pixel in the loss, or None.
    """

    color: Tensor
    sh: Tensor | None
    label: Tensor
    weight: Tensor | None = None

    def first(self, count: int) -> ViewBatch:
        """The first ``count`` views."""
        return ViewBatch(*(None if values is None else values[:count] for values in vars(self).values()))


class DeferredBatch:
    """A batch on the device that uses it, in its source's own form.

    Decoding or rendering waits until the network needs it, so that a training step can be compiled as a whole. The
    parts are the source's own: Lightning, which converts the tensors of collections and dataclasses to the
    training's precision, does not look into this class.

    Attributes:
        make: makes the views of ``parts``: decodes or renders, augments if requested. It does not synchronise
            the host with the device.
        parts: tensors, and what holds them.
    """

    def __init__(self, make: Callable[..., ViewBatch], *parts: Any):
        self.make, self.parts = make, parts

    def resolve(self) -> ViewBatch:
        """The views."""
        return self.make(*self.parts)

"""The segmentation network: ENet, the stems that take SH images, its training and its metrics."""

from typing import Any

import utils  # noqa: F401  (before PyTorch: see utils/cores.py)
from enet.network import ENet

__all__ = ["ENet", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    """``load_checkpoint`` on demand, since it imports Lightning, which takes seconds."""
    if name != "load_checkpoint":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from enet.checkpoints import load_checkpoint

    return load_checkpoint

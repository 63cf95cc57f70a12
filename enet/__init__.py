"""The segmentation network: ENet, the stems that take SH images, its training and its metrics."""

import utils  # noqa: F401  (before PyTorch: see utils/cores.py)
from enet.network import ENet

__all__ = ["ENet"]

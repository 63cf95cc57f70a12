"""The segmentation network: ENet, the stems that take in SH images, its training and its measure."""

import utils  # noqa: F401  (before PyTorch: see utils/cores.py)
from enet.network import ENet

__all__ = ["ENet"]

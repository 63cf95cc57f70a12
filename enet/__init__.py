"""The segmentation network: ENet, the stems that take in SH images, its training and its measure."""

from enet.network import ENet

__all__ = ["ENet"]

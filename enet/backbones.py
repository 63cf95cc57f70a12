"""The networks that can be trained, by name."""

from __future__ import annotations

from torch import nn

from enet.network import ENet
from enet.options import NetworkOptions
from utils.errors import UserError
from utils.labels import NUM_CLASSES


def build_network(options: NetworkOptions) -> nn.Module:
    """The network with random weights; raises :class:`UserError` for unknown names."""
    if options.backbone == "enet":
        return ENet(NUM_CLASSES, options.stem, tuple(options.dropout))
    raise UserError(f"NetworkOptions.backbone = {options.backbone!r} is unknown; use 'enet'")

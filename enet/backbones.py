"""The networks that can be trained, by name.

A backbone is a function from :class:`enet.options.NetworkOptions` to a network, entered in :data:`BACKBONES`. A network
is called with colour, SH and geometry, normalised, and gives logits of the images' size; it has the attributes
``beside`` (:class:`enet.inputs.Beside`, what it takes beside the colour), ``uses_sh`` and ``num_classes``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from enet.efficientnet import EfficientNetLite0, load_imagenet
from enet.network import ENet
from enet.options import NetworkOptions
from enet.pyramid_network import PyramidNetwork, first_channels
from enet.segformer import MixTransformer
from enet.stems import STEMS
from utils.errors import UserError, check_choice
from utils.labels import label_set


@dataclass(frozen=True)
class Backbone:
    """One of the networks.

    Attributes:
        make: it, with random weights.
        stems: values of ``NetworkOptions.stem`` that it has.
        load_pretrained: gives a network the weights that were learned elsewhere; None where there are none.
    """

    make: Callable[[NetworkOptions], nn.Module]
    stems: tuple[str, ...]
    load_pretrained: Callable[[nn.Module], None] | None = None


def _enet(options: NetworkOptions) -> nn.Module:
    return ENet(label_set().num_classes, options.stem, tuple(options.dropout), options.inputs)


def _segformer_b0(options: NetworkOptions) -> nn.Module:
    encoder = MixTransformer(first_channels(options.beside), options.drop_path)
    return PyramidNetwork(encoder, label_set().num_classes, options.beside, options.dropout[1])


def _efficientnet_lite0(options: NetworkOptions) -> nn.Module:
    encoder = EfficientNetLite0(first_channels(options.beside), options.drop_path)
    return PyramidNetwork(encoder, label_set().num_classes, options.beside, options.dropout[1])


BACKBONES = {
    "enet": Backbone(_enet, tuple(STEMS)),
    "segformer_b0": Backbone(_segformer_b0, ("rgb", "concat")),
    "efficientnet_lite0": Backbone(
        _efficientnet_lite0, ("rgb", "concat"), lambda network: load_imagenet(network.encoder)
    ),
}  # fmt: skip


def build_network(options: NetworkOptions) -> nn.Module:
    """The network with random weights.

    Raises:
        UserError: there is no such network, or it does not have the stem.
    """
    return _backbone(options).make(options)


def start_network(network: nn.Module, options: NetworkOptions) -> None:
    """Give a network that is to be trained the weights that it begins with.

    Raises:
        UserError: it is to begin with learned weights, and there are none.
    """
    if not options.pretrained:
        return
    load = _backbone(options).load_pretrained
    if load is None:
        known = ", ".join(name for name, backbone in BACKBONES.items() if backbone.load_pretrained)
        raise UserError(f"NetworkOptions.pretrained: there are no learned weights for {options.backbone!r}, only for "
                        f"{known}; set it to False")
    load(network)


def _backbone(options: NetworkOptions) -> Backbone:
    check_choice("NetworkOptions.backbone", options.backbone, tuple(BACKBONES))
    backbone = BACKBONES[options.backbone]
    if options.stem not in backbone.stems:
        stems = " and ".join(map(repr, backbone.stems))
        raise UserError(f"NetworkOptions.stem = {options.stem!r} is ENet's; {options.backbone} has {stems}")
    return backbone

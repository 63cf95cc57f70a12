"""The networks that can be trained, by name: ENet, and a larger one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enet.inputs import SH, Beside
from enet.network import ENet
from enet.options import NetworkOptions
from enet.stems import COLOR_CHANNELS
from utils.errors import UserError
from utils.labels import NUM_CLASSES


class SegFormer(nn.Module):
    """SegFormer-B0 (Xie et al., NeurIPS 2021) with random weights, ten times ENet's parameters.

    Args:
        num_classes: output channels.
        stem: ``"rgb"``, or ``"concat"`` for colour and the images of ``inputs`` together.
        inputs: some of :data:`enet.inputs.INPUTS`.

    Raises:
        UserError: the ``transformers`` package is missing, or the stem is another.
    """

    def __init__(self, num_classes: int, stem: str = "rgb", inputs: Sequence[str] = (SH,)):
        super().__init__()
        if stem not in ("rgb", "concat"):
            raise UserError(f"NetworkOptions.stem = {stem!r} is ENet's; segformer_b0 has 'rgb' and 'concat'")
        try:
            from transformers import SegformerConfig, SegformerForSemanticSegmentation
        except ModuleNotFoundError:
            raise UserError("segformer_b0 needs transformers; install it: pip install transformers") from None
        self.beside = Beside() if stem == "rgb" else Beside.of(inputs)
        self.uses_sh = self.beside.uses_sh
        channels = COLOR_CHANNELS + self.beside.channels
        self.segformer = SegformerForSemanticSegmentation(
            SegformerConfig(num_channels=channels, num_labels=num_classes)
        )

    def forward(
        self,
        color: Tensor,  # [B, 3, H, W]
        sh: Tensor | None = None,  # [B, 27, H, W]
        geometry: Tensor | None = None,  # [B, G, H, W]
    ) -> Tensor:
        """Logits [B, num_classes, H, W]: SegFormer's, at a quarter of the size, interpolated.

        Raises:
            ValueError: the images are smaller than 32x32.
        """
        if min(color.shape[-2:]) < 32:
            raise ValueError(f"images must be at least 32x32, found {color.shape[-2]}x{color.shape[-1]}")
        extra = self.beside.join(color, sh, geometry)
        image = color if extra is None else torch.cat([color, extra], dim=1)
        logits = self.segformer(image.contiguous()).logits
        return F.interpolate(logits, size=color.shape[-2:], mode="bilinear", align_corners=False)


def build_network(options: NetworkOptions) -> nn.Module:
    """The network with random weights; raises :class:`UserError` for unknown names."""
    if options.backbone == "enet":
        return ENet(NUM_CLASSES, options.stem, tuple(options.dropout), options.inputs)
    if options.backbone == "segformer_b0":
        return SegFormer(NUM_CLASSES, options.stem, options.inputs)
    raise UserError(f"NetworkOptions.backbone = {options.backbone!r} is unknown; use 'enet' or 'segformer_b0'")

"""ENet (Paszke et al., 2016, arXiv:1606.02147) with a stem that can take SH images and geometry."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from enet.blocks import DownsamplingBottleneck, PReLU, RegularBottleneck, UpsamplingBottleneck
from enet.inputs import SH, Beside
from enet.stems import STEM_CHANNELS, STEMS

MINIMUM_SIZE = 7


class ENet(nn.Module):
    """Encoder of three stages at 1/2, 1/4 and 1/8 of the size, and a small decoder that unpools twice.

    351,948 parameters with the ``rgb`` stem and the ScanNet benchmark's classes, 355,836 with ``conv_sum``.

    Args:
        num_classes: output channels.
        stem: ``"rgb"``, ``"concat"``, ``"conv_concat"`` or ``"conv_sum"``; all but the first need the images of
            ``inputs``.
        dropout: probability of dropping a channel of an extension in the encoder's first stage, and after it.
        inputs: what the stem takes beside the colour, some of :data:`enet.inputs.INPUTS`.
    """

    def __init__(
        self,
        num_classes: int,
        stem: str = "rgb",
        dropout: tuple[float, float] = (0.01, 0.1),
        inputs: Sequence[str] = (SH,),
    ):
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem {stem!r} is unknown; use one of {', '.join(STEMS)}")
        first, later = dropout
        self.num_classes = num_classes
        self.beside = Beside() if stem == "rgb" else Beside.of(inputs)
        self.uses_sh = self.beside.uses_sh
        self.stem = STEMS[stem](self.beside.channels)
        self.downsample1 = DownsamplingBottleneck(STEM_CHANNELS, 64, PReLU, first)
        self.stage1 = nn.Sequential(*(RegularBottleneck(64, PReLU, first) for _ in range(4)))
        self.downsample2 = DownsamplingBottleneck(64, 128, PReLU, later)
        self.stage2 = _context_stage(later)
        self.stage3 = _context_stage(later)
        self.upsample4 = UpsamplingBottleneck(128, 64, nn.ReLU, later)
        self.stage4 = nn.Sequential(*(RegularBottleneck(64, nn.ReLU, later) for _ in range(2)))
        self.upsample5 = UpsamplingBottleneck(64, STEM_CHANNELS, nn.ReLU, later)
        self.stage5 = RegularBottleneck(STEM_CHANNELS, nn.ReLU, later)
        self.classifier = nn.ConvTranspose2d(STEM_CHANNELS, num_classes, 3, stride=2, padding=1, bias=False)

    def forward(
        self,
        color: Tensor,  # [B, 3, H, W]
        sh: Tensor | None = None,  # [B, 27, H, W]; left unused where the network does not take it
        geometry: Tensor | None = None,  # [B, G, H, W], see enet.inputs; likewise
    ) -> Tensor:
        """Logits [B, num_classes, H, W] of normalised images of any size from 7x7.

        Raises:
            ValueError: the stem needs images and got none or of other shape, or the images are too small.
        """
        height, width = color.shape[-2:]
        if min(height, width) < MINIMUM_SIZE:
            raise ValueError(f"images must be at least 7x7, found {height}x{width}")
        half = self.stem(color, self.beside.join(color, sh, geometry))
        quarter, winners_half = self.downsample1(half)
        quarter = self.stage1(quarter)
        eighth, winners_quarter = self.downsample2(quarter)
        eighth = self.stage3(self.stage2(eighth))
        x = self.stage4(self.upsample4(eighth, winners_quarter, tuple(quarter.shape[-2:])))
        x = self.stage5(self.upsample5(x, winners_half, tuple(half.shape[-2:])))
        return self.classifier(x, output_size=tuple(color.shape[-2:]))


def _context_stage(dropout: float) -> nn.Sequential:
    """Two rounds of regular, dilated, asymmetric, dilated bottlenecks; dilations 2, 4, 8, 16."""
    blocks: list[nn.Module] = []
    for dilations in ((2, 4), (8, 16)):
        blocks += [
            RegularBottleneck(128, PReLU, dropout),
            RegularBottleneck(128, PReLU, dropout, dilation=dilations[0]),
            RegularBottleneck(128, PReLU, dropout, asymmetric=True),
            RegularBottleneck(128, PReLU, dropout, dilation=dilations[1]),
        ]
    return nn.Sequential(*blocks)

"""Losses for segmentation with unannotated pixels, one a file."""

from enet.losses.cross_entropy import weighted_cross_entropy
from enet.losses.dice import dice_loss
from enet.losses.lovasz import lovasz_softmax_loss
from enet.losses.pixel_weights import ExpectedPixelWeights, pixel_weights

__all__ = ["ExpectedPixelWeights", "dice_loss", "lovasz_softmax_loss", "pixel_weights", "weighted_cross_entropy"]

"""Stored views as batches for the network."""

from __future__ import annotations

from typing import Any

from dataloader import SegmentationDataModule
from enet.options import AugmentationOptions, ViewOptions
from enet.view_decoder import NetworkDecoding


def view_data(
    options: ViewOptions, uses_sh: bool, augmentation: AugmentationOptions | None = None, **data: Any
) -> SegmentationDataModule:
    """A data module whose batches the network takes.

    Args:
        options: what the network sees of a view.
        uses_sh: whether it takes SH images.
        augmentation: of training views.
        data: stores, batch size, and whatever else :class:`dataloader.SegmentationDataModule` is to be told.
    """
    return SegmentationDataModule(
        inputs="rgb+sh" if uses_sh else "rgb",
        color=options.color,
        num_workers=options.workers,
        decoding=NetworkDecoding(options.sh_frame, augmentation or AugmentationOptions()),
        **{"cache": options.cache, **data},
    )

"""Pictures of rendered views and label images."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from analysis.false_color import depth_color, sh_false_color
from model.radiance_field import RenderedView
from utils.cameras import opaque_depth
from utils.images import resize_image, resize_nearest
from utils.labels import UNANNOTATED, colorize

COLOR, SH_CHANNEL, SH_GRADIENT, DEPTH, ALPHA, QUALITY, ANNOTATION, PREDICTION, FUSED, CONFIDENCE, NOTHING = MODES = (
    "colour", "SH channel", "SH gradient", "depth", "alpha", "quality", "annotation", "prediction", "fused labels",
    "fused confidence", "nothing",
)  # fmt: skip
_COLORMAPS = {SH_CHANNEL: "coolwarm", DEPTH: "viridis_r", QUALITY: "viridis", CONFIDENCE: "viridis", ALPHA: "gray"}
_OUTPUTS = {COLOR: ("rgb",), QUALITY: ("rgb",), SH_CHANNEL: ("sh",), SH_GRADIENT: ("sh",)}
_CAPTION_HEIGHT = 22
_GAP = 4
WHITE = 255
_INK = (31, 41, 51)
_COOLWARM, _VIRIDIS = (
    torch.from_numpy(matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3].copy())
    for name in ("coolwarm", "viridis")
)


def outputs_of(mode: str) -> tuple[str, ...]:
    """Outputs of :meth:`model.RadianceField.render_view` that a mode needs; depth and alpha always."""
    return (*_OUTPUTS.get(mode, ()), "depth", "alpha")


def mode_colormap(mode: str) -> str:
    """Name of the colours that a mode with a scale has, from its low to its high end."""
    return _COLORMAPS[mode]


def mode_picture(
    view: RenderedView, mode: str, channel: int = 0, limit: float = 1.0, depth_limit: float | None = None
) -> Tensor:
    """A rendered view as uint8 ``[3, H, W]``.

    ``channel`` and ``limit`` are for a single SH channel; depth goes from 0 to ``depth_limit`` metres.

    It is made on the view's device, so that only three bytes a pixel leave a GPU.
    """
    if mode == COLOR:
        return (view.rgb.clamp(0, 1) * 255).round().to(torch.uint8)
    if mode == SH_CHANNEL:
        return signed_picture(view.sh[channel], limit)
    if mode == SH_GRADIENT:
        return sh_false_color(view.sh)
    if mode == DEPTH:
        limits = None if depth_limit is None else (0.0, depth_limit)
        return depth_color(opaque_depth(view.depth, view.alpha), limits)
    return (view.alpha.clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1)


def signed_picture(
    values: Tensor,  # [H, W]
    limit: float,
) -> Tensor:  # uint8 [3, H, W]
    """Blue for -limit and below, grey for 0, red for limit and above."""
    index = ((values / max(limit, 1e-12) * 0.5 + 0.5).clamp(0, 1) * 255).round().long()
    return _COOLWARM.to(index.device)[index].movedim(-1, 0)


def quality_picture(
    quality: Tensor,  # float32 [H, W] 0..1
) -> Tensor:  # uint8 [3, H, W]
    """Dark violet for quality 0, yellow for quality 1; a confidence likewise."""
    return _VIRIDIS[(quality.clamp(0, 1) * 255).round().long()].movedim(-1, 0)


def class_picture(labels: Tensor, hidden: Collection[int] = ()) -> Tensor:
    """Class indices ``[H, W]`` in the label set's colours, uint8 ``[3, H, W]``; hidden ones like unannotated pixels."""
    shown = labels.clone()
    for index in hidden:
        shown[labels == index] = UNANNOTATED
    return colorize(shown)


def captioned_grid(pictures: Mapping[str, Tensor], cell: tuple[int, int], columns: int = 2) -> np.ndarray:
    """Pictures ``[3, h, w]`` in rows of ``columns``, each brought to ``cell`` and under its caption.

    Float pictures (0..1) are interpolated; uint8 ones, which may show labels, are not.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    height, width = cell
    rows = -(-len(pictures) // columns)
    row_height = height + _CAPTION_HEIGHT
    sheet = Image.new(
        "RGB", (columns * width + (columns - 1) * _GAP, rows * row_height), (WHITE, WHITE, WHITE)
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for number, (caption, picture) in enumerate(pictures.items()):
        left, top = (number % columns) * (width + _GAP), (number // columns) * row_height
        draw.text((left + 2, top + 2), caption, fill=_INK, font=font)
        sheet.paste(Image.fromarray(_to_cell(picture, cell)), (left, top + _CAPTION_HEIGHT))
    return np.asarray(sheet)


def _to_cell(picture: Tensor, cell: tuple[int, int]) -> np.ndarray:
    if picture.dtype == torch.uint8:
        resized = resize_nearest(picture, cell)
    else:
        resized = (resize_image(picture.float(), cell).clamp(0, 1) * 255).round().to(torch.uint8)
    return resized.permute(1, 2, 0).contiguous().numpy()

"""A confusion matrix as a picture with the classes' names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from utils.labels import label_set

_CELL, _LINE = 26, 11  # pixels
_DARK = (31, 41, 51)


def confusion_picture(confusion: Tensor, names: Sequence[str] | None = None) -> Tensor:
    """Picture uint8 ``[3, H, W]``: rows are true classes and sum to 100 (per cent), columns predicted ones.

    Args:
        confusion: counts ``[C, C]``, rows ground truth.
        names: of the classes; by default the label set's.
    """
    names = label_set().names if names is None else names
    share = (confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)).cpu().numpy()
    font = ImageFont.load_default(size=_LINE)
    margin = 12 + max(int(font.getlength(name)) for name in names)
    side = _CELL * len(names)
    picture = Image.new("RGB", (margin + side, margin + side), "white")
    draw = ImageDraw.Draw(picture)
    for row, name in enumerate(names):
        middle = margin + _CELL * row + _CELL // 2
        draw.text((margin - 6, middle), name, _DARK, font, anchor="rm")
        upright = Image.new("L", (margin, _CELL))
        ImageDraw.Draw(upright).text((6, _CELL // 2), name, 255, font, anchor="lm")
        upright = upright.rotate(90, expand=True)
        picture.paste(_DARK, (middle - _CELL // 2, 0), upright)
        for column in range(len(names)):
            value = share[row, column]
            corner = margin + _CELL * column, margin + _CELL * row
            draw.rectangle((*corner, corner[0] + _CELL - 1, corner[1] + _CELL - 1), _color(value), (228, 231, 235))
            if value >= 0.005:
                draw.text((corner[0] + _CELL // 2, corner[1] + _CELL // 2), f"{100 * value:.0f}",
                          "white" if value > 0.5 else _DARK, font, anchor="mm")  # fmt: skip
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _color(share: float) -> tuple[int, int, int]:
    """White for none, blue for all."""
    return tuple(round(255 + share * (end - 255)) for end in (8, 81, 156))

"""The overview picture: photograph, render, SH image and annotation of the same views, with their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from analysis.false_color import sh_false_color
from dataloader import ViewStore
from utils.labels import colorize

_COLUMNS = ("photograph", "render", "SH image", "annotation")
_CAPTION_HEIGHT = 24


def overview_picture(views_dir: Path, scenes: int = 3, enlarge: int = 2) -> Tensor | None:
    """A picture uint8 ``[3, H, W]`` with one row a scene under a line of names, or None when no store has all channels.

    Each scene shows the view in which most classes are seen.
    """
    rows = []
    for path in sorted(Path(views_dir).iterdir()) if Path(views_dir).is_dir() else []:
        if not (path / "meta.json").exists():
            continue
        store = ViewStore.open(path)
        if not {"photo", "rgb", "sh", "label"} <= set(store.channels):
            continue
        index = max(range(len(store)), key=lambda view: len(store.read_stored("label", view).unique()))
        images = [
            store.read("photo", index), store.read("rgb", index), sh_false_color(store.read("sh", index)),
            colorize(store.read("label", index)),
        ]
        rows.append(torch.cat([_to_uint8(image) for image in images], dim=-1))
        if len(rows) == scenes:
            break
    if not rows or len({row.shape for row in rows}) > 1:
        return None
    picture = torch.cat(rows, dim=-2).repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
    return torch.cat((_captions(picture.shape[-1]), picture), dim=-2)


def _captions(width: int) -> Tensor:
    """A white line uint8 ``[3, h, width]`` with a name over the middle of each column."""
    line = Image.new("RGB", (width, _CAPTION_HEIGHT), "white")
    draw, font = ImageDraw.Draw(line), ImageFont.load_default(size=_CAPTION_HEIGHT * 2 // 3)
    for number, name in enumerate(_COLUMNS):
        middle = (number + 0.5) * width / len(_COLUMNS), _CAPTION_HEIGHT / 2
        draw.text(middle, name, (31, 41, 51), font, anchor="mm")
    return torch.from_numpy(np.array(line)).permute(2, 0, 1)


def _to_uint8(image: Tensor) -> Tensor:
    return image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)

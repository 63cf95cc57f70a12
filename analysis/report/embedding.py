"""Pictures as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import imageio.v3 as iio
import torch
from matplotlib.figure import Figure
from torch import Tensor

from utils.images import read_image, resize_image


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def embed_figure(figure: Figure) -> str:
    """A matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return _data_uri(buffer.getvalue(), "png")


def embed_photo(image: Tensor, max_width: int = 1200) -> str:
    """A picture with continuous tones, uint8 ``[3, H, W]``, as JPEG of at most ``max_width`` pixels."""
    height, width = image.shape[-2:]
    if width > max_width:
        size = (max(1, round(height * max_width / width)), max_width)
        image = (resize_image(image.float() / 255, size) * 255).round().clamp(0, 255).to(torch.uint8)
    return _data_uri(_encoded(image, ".jpg", quality=88, subsampling=0), "jpeg")


def embed_drawing(image: Tensor) -> str:
    """A picture with flat colours, uint8 ``[3, H, W]``, as PNG at its own size."""
    return _data_uri(_encoded(image, ".png"), "png")


def embed_file(path: str | Path) -> str:
    """An image file: PNG as it is, anything else as :func:`embed_photo` makes it."""
    path = Path(path)
    if path.suffix.lower() == ".png":
        return _data_uri(path.read_bytes(), "png")
    return embed_photo(read_image(path))


def _encoded(image: Tensor, extension: str, **options: int) -> bytes:
    return iio.imwrite("<bytes>", image.permute(1, 2, 0).contiguous().numpy(), extension=extension, **options)

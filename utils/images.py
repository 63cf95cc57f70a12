"""Image files and resizing. Images are channels-first tensors."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

from utils.files import atomic_path
from utils.pictures import decode_picture

_LARGE_PIXELS = 1 << 26
_large_image_lock = threading.Lock()


@contextlib.contextmanager
def one_large_image(size: tuple[int, int]) -> Iterator[None]:
    """Held while an image of ``size`` (height, width) is in memory at full size: one large image at a time."""
    with _large_image_lock if size[0] * size[1] > _LARGE_PIXELS else contextlib.nullcontext():
        yield


def read_image(path: str | Path, background: float | None = None, turned: bool = True) -> Tensor:
    """A colour image as uint8 ``[3, H, W]``, a pixel's values side by side in memory; see :mod:`utils.pictures`.

    Args:
        path: the file.
        background: grey level, 0 to 1, that shows through transparent pixels; None ignores transparency.
        turned: as its EXIF tag says.

    Raises:
        UserError: the file is absent, damaged, or no picture of 8 or 16 bits.
    """
    color, alpha = decode_picture(path, turned=turned)
    if background is not None and alpha is not None:
        opacity = alpha[..., None].astype(np.float32) / 255
        color = np.rint(color * opacity + 255 * background * (1 - opacity)).astype(np.uint8)
    return torch.from_numpy(color).movedim(-1, 0)


def read_alpha(path: str | Path, turned: bool = True) -> Tensor:
    """The opacity of an image as uint8 ``[1, H, W]``; 255 everywhere when it is opaque.

    Raises:
        UserError: as :func:`read_image`.
    """
    color, alpha = decode_picture(path, turned=turned)
    return torch.from_numpy(np.full((1, *color.shape[:2]), 255, np.uint8) if alpha is None else alpha[None])


def _to_pixels(image: Tensor) -> np.ndarray:
    if image.dtype not in (torch.uint8, torch.uint16):
        image = (image.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return image.cpu().numpy()


def write_image(path: str | Path, image: Tensor, quality: int = 95) -> None:
    """Write ``[3, H, W]`` or ``[H, W]``, uint8 or float in 0..1, atomically; the suffix chooses the format.

    uint16 is for PNG only, ``quality`` for JPEG only.
    """
    pixels = _to_pixels(image)
    if pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    suffix = Path(path).suffix.lower()
    options = {"quality": quality, "subsampling": 0} if suffix in (".jpg", ".jpeg") else {}
    if suffix == ".png":
        options["compress_level"] = 1  # four times faster than the default for a tenth more bytes
    with atomic_path(path, flushed=False) as temporary:
        iio.imwrite(temporary, pixels, **options)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize float or uint8 images ``[..., C, H, W]`` to ``size``, anti-aliased bilinear.

    Pixel centres map as u' = u * W'/W, which is what :func:`utils.cameras.scale_intrinsics` assumes. 8-bit values are
    rounded after rows and after columns, and so differ by one at most from a rounded result in float; they take a fifth
    of the time.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image.reshape(-1, *image.shape[-3:])
    resized = torch.nn.functional.interpolate(
        batch, size=tuple(size), mode="bilinear", align_corners=False, antialias=True
    )
    return resized.reshape(*image.shape[:-2], *size)


def resize_nearest(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``[..., H, W]`` of any dtype to ``size`` by the nearest pixel centre: floor((i + 0.5) * S / s)."""
    index = [
        (((torch.arange(new, device=image.device) + 0.5) * old / new).floor().long()).clamp(max=old - 1)
        for old, new in zip(image.shape[-2:], size, strict=True)
    ]
    return image[..., index[0], :][..., index[1]]

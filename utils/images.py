"""Image files and resizing. Images are channels-first tensors."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.errors import UserError, reading
from utils.files import atomic_path, regular_file

_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others would start programs, or are no photographs
_END_MARKS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}
_END_BYTES = 1024  # some cameras write padding after the end marker
_SMALL_PIXELS, _LARGE_PIXELS = 1 << 24, 1 << 26
_PIXELS_PER_BYTE = 1100  # no photograph is packed tighter; deflate packs zeros 1032 to one
_REPLACE = "replace it or remove the frame"
_large_image_lock = threading.Lock()
# Pillow refuses 200 megapixels, which phones take. What open_image allows follows the file's length instead.
Image.MAX_IMAGE_PIXELS = None


@contextlib.contextmanager
def open_image(
    source: str | Path | bytes, kind: str = "colour", name: str | Path | None = None
) -> Iterator[Image.Image]:
    """An image file or its bytes, opened by Pillow: the header is read, pixels when asked for.

    Whatever fails within, such as decoding, is reported as a damaged image.

    Args:
        kind: "colour" or "depth", for messages.
        name: of what holds the bytes, for messages.

    Raises:
        UserError: absent, damaged, of a format that photographs do not have, or announcing many times more pixels
            than its bytes can hold.
    """
    what = f"a {kind} image"
    is_file = not isinstance(source, bytes)
    name = source if name is None else name
    if is_file:
        regular_file(source, what)
    opened = source if is_file else io.BytesIO(source)
    with reading(name, what, _REPLACE), Image.open(opened, formats=_FORMATS) as image:
        length = os.path.getsize(source) if is_file else len(source)
        if image.width * image.height > max(_SMALL_PIXELS, _PIXELS_PER_BYTE * length):
            raise UserError(f"{name} announces {image.width}x{image.height} pixels in {length} bytes; the file is "
                            f"damaged: {_REPLACE}")
        yield image


def decode_image(source: str | Path | bytes, kind: str = "colour", name: str | Path | None = None) -> np.ndarray:
    """Pixels ``[H, W]`` or ``[H, W, C]`` of an image file or its bytes, in its own dtype; palettes are applied.

    Raises:
        UserError: as :func:`open_image`.
    """
    with open_image(source, kind, name) as image:
        if image.mode == "P":
            image = image.convert(image.palette.mode)
        elif image.mode == "I" and image.format == "PNG":
            image = image.convert("I;16")
        return np.array(image)


@contextlib.contextmanager
def one_large_image(size: tuple[int, int]) -> Iterator[None]:
    """Held while an image of ``size`` (height, width) is in memory at full size: one large image at a time."""
    with _large_image_lock if size[0] * size[1] > _LARGE_PIXELS else contextlib.nullcontext():
        yield


def read_image(path: str | Path, background: float | None = None) -> Tensor:
    """A colour image as uint8 ``[3, H, W]``, a pixel's values side by side in memory. Grey images are repeated.

    Args:
        path: the file.
        background: grey level, 0 to 1, that shows through transparent pixels; None drops the alpha channel.

    Raises:
        UserError: the file is absent, damaged, or not 8-bit.
    """
    image = _read_bytes(path)
    color = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if background is not None and image.shape[-1] in (2, 4):
        alpha = image[..., -1:].astype(np.float32) / 255
        color = np.rint(color * alpha + 255 * background * (1 - alpha)).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(color)).movedim(-1, 0)


def read_alpha(path: str | Path) -> Tensor:
    """The alpha channel of an image as uint8 ``[1, H, W]``; 255 everywhere when it has none.

    Raises:
        UserError: the file is absent, damaged, or not 8-bit.
    """
    image = _read_bytes(path)
    alpha = image[..., -1] if image.shape[-1] in (2, 4) else np.full(image.shape[:2], 255, np.uint8)
    return torch.from_numpy(np.ascontiguousarray(alpha[None]))


def _read_bytes(path: str | Path) -> np.ndarray:
    """Pixels uint8 ``[H, W, C]`` with C = 1, 2 (grey and alpha), 3 or 4."""
    image = decode_image(path)
    if image.dtype != np.uint8:
        raise UserError(f"{path} holds {image.dtype} values; expected an 8-bit colour image")
    return image[..., None] if image.ndim == 2 else image


def is_truncated(path: str | Path) -> bool:
    """Whether a JPEG or PNG file lacks its end marker; reads its last bytes only. False for other formats."""
    end = _END_MARKS.get(Path(path).suffix.lower())
    if end is None:
        return False
    with open(path, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _END_BYTES, 0))
        return end not in file.read()


def read_depth(path: str | Path, scale: float = 1000.0) -> Tensor:
    """A 16-bit depth image as float32 metres ``[H, W]``; ``scale`` is units per metre, 0 stays "no depth".

    Raises:
        UserError: the file is absent, damaged, or has more than one channel.
    """
    image = decode_image(path, "depth")
    if image.ndim != 2 or image.dtype.kind not in "ui":
        raise UserError(f"{path} holds {image.dtype} {list(image.shape)}; expected one 16-bit depth channel")
    return torch.from_numpy(image.astype(np.float32) / np.float32(scale))


def _to_uint8(image: Tensor) -> np.ndarray:
    if image.dtype != torch.uint8:
        image = (image.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return image.cpu().numpy()


def write_image(path: str | Path, image: Tensor, quality: int = 95) -> None:
    """Write ``[3, H, W]`` or ``[H, W]``, uint8 or float in 0..1, atomically; the suffix chooses the format.

    ``quality`` is for JPEG only.
    """
    pixels = _to_uint8(image)
    if pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    suffix = Path(path).suffix.lower()
    options = {"quality": quality, "subsampling": 0} if suffix in (".jpg", ".jpeg") else {}
    if suffix == ".png":
        options["compress_level"] = 1  # four times faster than the default for a tenth more bytes
    with atomic_path(path, flushed=False) as temporary:
        iio.imwrite(temporary, pixels, **options)


def write_depth(path: str | Path, depth: Tensor, scale: float = 1000.0) -> None:
    """Write metres ``[H, W]`` as a 16-bit PNG, rounded; values outside 0..65535 units are clamped."""
    units = (depth.double() * scale).round().clamp(0, 65535)
    with atomic_path(path, flushed=False) as temporary:
        iio.imwrite(temporary, units.cpu().numpy().astype(np.uint16))


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

"""Opening picture files of the formats that cameras write: told by their content, whatever their names say."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from utils.errors import UserError, reading
from utils.files import regular_file

_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others would start programs, or are no photographs
_SMALL_PIXELS = 1 << 24
_PIXELS_PER_BYTE = 1100  # no photograph is packed tighter; deflate packs zeros 1032 to one
_REPLACE = "replace it or remove the frame"
_CONVERT = "convert it to PNG or JPEG"
# Pillow refuses 200 megapixels, which phones take. What open_image allows follows the file's length instead.
Image.MAX_IMAGE_PIXELS = None

_TAIL = 1024  # bytes: some cameras write padding behind the end mark
_JPEG, _PNG, _RIFF = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF"
_END_OF_JPEG, _END_OF_PNG = b"\xff\xd9", b"IEND"
_OTHER_FORMATS = (  # where a content's mark begins, the mark, what it is, what to do
    (0, b"GIF8", "a GIF picture", _CONVERT),
    (4, b"ftyphei", "a HEIF picture, as some phones take", _CONVERT),
    (4, b"ftyphev", "a HEIF picture, as some phones take", _CONVERT),
    (4, b"ftypmif1", "a HEIF picture, as some phones take", _CONVERT),
    (4, b"ftypavif", "an AVIF picture", _CONVERT),
    (4, b"ftyp", "a film", "replace it by a picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", _CONVERT),
    (0, b"\xff\x0a", "a JPEG XL picture", _CONVERT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture", _CONVERT),
    (0, b"v/1\x01", "an OpenEXR picture", _CONVERT),
    (0, b"8BPS", "a Photoshop document", _CONVERT),
    (0, b"%PDF", "a PDF document", _CONVERT),
    (0, b"<!DOCTYPE", "a web page, as failed downloads leave", "download it again"),
    (0, b"<html", "a web page, as failed downloads leave", "download it again"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "run git lfs pull"),
)


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
    with reading(name, what, _REPLACE), _identified(source, what, name) as image:
        length = os.path.getsize(source) if is_file else len(source)
        if image.width * image.height > max(_SMALL_PIXELS, _PIXELS_PER_BYTE * length):
            raise UserError(f"{name} announces {image.width}x{image.height} pixels in {length} bytes; the file is "
                            f"damaged: {_REPLACE}")
        yield image


def _identified(source: str | Path | bytes, what: str, name: str | Path) -> Image.Image:
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS)
    except UnidentifiedImageError:
        start = source[:32] if isinstance(source, bytes) else _start_of(source)
        for at, mark, found, advice in _OTHER_FORMATS:
            if start[at : at + len(mark)] == mark:
                raise UserError(f"{name} cannot be read as {what}: it is {found}; {advice}") from None
        raise


def _start_of(path: str | Path, count: int = 32) -> bytes:
    with open(path, "rb") as file:
        return file.read(count)


def is_truncated(path: str | Path) -> bool:
    """Whether a JPEG, PNG or WebP file ends before its picture does; what stands behind the picture is no matter.

    Told by the content, from the file's last bytes where its end mark stands there. False for other formats.
    """
    with open(path, "rb") as file:
        start, length = file.read(12), file.seek(0, os.SEEK_END)
        if start[:4] == _RIFF:
            return length < 8 + int.from_bytes(start[4:8], "little")
        mark = _END_OF_JPEG if start[:2] == _JPEG else _END_OF_PNG if start[:8] == _PNG else None
        if mark is None:
            return False
        file.seek(max(length - _TAIL, 0))
        if mark in file.read():
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return not (_jpeg_ends(content) if mark is _END_OF_JPEG else _png_ends(content))


def _jpeg_ends(content: mmap.mmap) -> bool:
    """Whether the end mark follows the first scan's beginning. Segments before it may hold pictures of their own."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker, size = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xDA:
            return content.find(_END_OF_JPEG, at) >= 0
        at += 2 + size
    return False


def _png_ends(content: mmap.mmap) -> bool:
    at = 8
    while at + 12 <= len(content):
        if content[at + 4 : at + 8] == _END_OF_PNG:
            return True
        at += 12 + int.from_bytes(content[at : at + 4])
    return False

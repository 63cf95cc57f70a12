"""What a picture file shows: 8-bit RGB and opacity, from any way in which photographs are stored.

All colour pictures of all readers are decoded here, by Pillow, from what the file holds and not from its name: grey,
palettes, CMYK, YCbCr, L*a*b*, 16 bits, transparency of every kind, EXIF orientation, and colour profiles, which become
sRGB. What cannot be shown so is refused by name.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from utils.errors import UserError
from utils.image_files import is_truncated, open_image

_ORIENTATION = 0x0112
_SUBFILE_TYPE, _SMALLER_OR_MASK = 254, 0b101
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_TRANSPOSE = Image.Transpose
_TURNS = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT, 3: _TRANSPOSE.ROTATE_180, 4: _TRANSPOSE.FLIP_TOP_BOTTOM, 5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270, 7: _TRANSPOSE.TRANSVERSE, 8: _TRANSPOSE.ROTATE_90,
}  # fmt: skip
_TURNS_BACK = {**_TURNS, 6: _TRANSPOSE.ROTATE_90, 8: _TRANSPOSE.ROTATE_270}
_WITH_ALPHA = {"LA": "L", "La": "L", "PA": "RGB", "RGBA": "RGB", "RGBa": "RGB"}
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}


class Picture(NamedTuple):
    """Colours uint8 ``[H, W, 3]`` in sRGB, and opacity uint8 ``[H, W]``; None where all is opaque."""

    color: np.ndarray
    alpha: np.ndarray | None


class PictureHeader(NamedTuple):
    """What is known before pixels are read.

    Attributes:
        size: (height, width), turned as its EXIF tag says.
        stored_size: (height, width) as stored.
        turn: the EXIF tag: 1 where nothing is turned, 5 to 8 where height and width are exchanged.
        transparent: whether it can be transparent somewhere.
        kind: format, mode and whatever else makes it be read in another way: pictures of one kind are read alike.
    """

    size: tuple[int, int]
    stored_size: tuple[int, int]
    turn: int
    transparent: bool
    kind: str


def read_header(path: str | Path, whole: bool = True, kind: str = "colour") -> PictureHeader:
    """The header of a picture file; no pixels are read.

    Args:
        path: the file.
        whole: whether a file that ends too early is refused.
        kind: "colour", "mask" or "label", for messages.

    Raises:
        UserError: absent, damaged, or a file of several pictures.
    """
    with open_image(path, kind) as image:
        _one_picture(image, path)
        if whole and is_truncated(path):
            raise UserError(f"{path} ends before its picture does; copy or download it again, or remove the frame")
        turn, size = _turn(image), (image.height, image.width)
        turned = image.format == "TIFF" and turn > 4 and image.size != _tiff_size(image)
        stored = size[::-1] if turned else size
        profile = ", with a colour profile" if image.info.get("icc_profile") else ""
        transparent = _is_transparent(image)
        described = f"{image.format} {image.mode}{', transparent' if transparent else ''}{profile}" + (
            f", turned ({turn})" if turn != 1 else ""
        )
        return PictureHeader(stored[::-1] if turn > 4 else stored, stored, turn, transparent, described)


def decode_picture(
    source: str | Path | bytes, name: str | Path | None = None, turned: bool = True, kind: str = "colour"
) -> Picture:
    """Decode a picture file or its bytes; see the module's docstring.

    Args:
        source: the file or its content.
        name: of what holds the bytes, for messages.
        turned: as the EXIF tag says; False reads pixels as they are stored, for cameras that were calibrated so.
        kind: "colour", "mask" or "label", for messages.

    Raises:
        UserError: absent, damaged, several pictures in one file, or values that are no 8- or 16-bit colours.
    """
    name = source if name is None and not isinstance(source, bytes) else name
    with open_image(source, kind, name) as image:
        _one_picture(image, name)
        if image.mode in ("I", "F") and not _is_grey16(image):
            raise UserError(f"{name} holds {'float' if image.mode == 'F' else '32-bit'} values; expected a picture of "
                            "8 or 16 bits: convert it to PNG")
        turn = _turn(image)
        image.load()
        if turn != 1 and (by_pillow := image.format == "TIFF" and _turn(image) == 1) != turned:
            image = _transposed(image, (_TURNS_BACK if by_pillow else _TURNS)[turn])
        return _split(image)


def _transposed(image: Image.Image, how: Image.Transpose) -> Image.Image:
    turned = image.transpose(how)
    turned.info = dict(image.info)
    return turned


def _one_picture(image: Image.Image, name: object) -> None:
    """Phones' files hold previews and TIFF files reductions besides the picture; films and books are refused."""
    count = getattr(image, "n_frames", 1)
    if image.format == "MPO" or count == 1:
        return
    if image.format == "TIFF":
        pages = []
        for page in range(1, count):
            image.seek(page)
            pages.append(image.tag_v2.get(_SUBFILE_TYPE, 0))
        image.seek(0)
        if all(page & _SMALLER_OR_MASK for page in pages):
            return
    raise UserError(f"{name} holds {count} pictures; expected one: write the one that is meant into a file of its own")


def _turn(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; PNG's is read only where it stands before the pixels."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"} & set(image.info):
        return 1
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data, which no viewer minds
        return 1
    return turn if turn in _TURNS else 1


def _tiff_size(image: Image.Image) -> tuple[int, int]:
    return int(image.tag_v2[256]), int(image.tag_v2[257])


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in _WITH_ALPHA or "transparency" in image.info or (
        image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA"
    )  # fmt: skip


def _is_grey16(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _split(image: Image.Image) -> Picture:
    """Colours and opacity of a loaded image."""
    profile = image.info.get("icc_profile")
    if _is_grey16(image):
        image, alpha = _from_16_bits(image)
    elif _is_transparent(image):
        with_alpha = image.convert("RGBA") if image.mode != "La" else image.convert("LA")
        alpha = np.array(with_alpha.getchannel("A"))
        if image.mode == "RGB":  # one colour is transparent; Pillow keeps the higher 8 of 16 bits
            alpha = _color_key(image)
        image = with_alpha.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    else:
        alpha = None
        image = image.convert({"1": "L", "P": "RGB", "YCbCr": "RGB", "HSV": "RGB", "RGBX": "RGB"}.get(image.mode,
                                                                                                   image.mode))
    if alpha is not None and (alpha == 255).all():
        alpha = None
    return Picture(np.array(_to_srgb(image, profile)), alpha)


def _from_16_bits(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """Grey of 8 bits, and opacity where one level is transparent."""
    levels = np.array(image).astype(np.int64)
    key = image.info.get("transparency")
    alpha = np.where(levels == key, 0, 255).astype(np.uint8) if isinstance(key, int) else None
    grey = np.rint(levels.clip(0, 65535) / 257).astype(np.uint8)
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey), alpha


def _color_key(image: Image.Image) -> np.ndarray:
    key = image.info["transparency"]
    if any(value > 255 for value in key):
        key = [value >> 8 for value in key]
    return np.where((np.array(image) == np.array(key)).all(-1), 0, 255).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    convert = _conversion(image.mode, profile) if profile or image.mode == "LAB" else None
    return image.convert("RGB") if convert is None else convert(image)


@lru_cache(maxsize=16)
def _conversion(mode: str, profile: bytes | None) -> Callable[[Image.Image], Image.Image] | None:
    """To sRGB, from a profile that fits the mode; None where there is nothing to convert.

    A profile that is damaged or of another kind of colours is passed over, as viewers do.
    """
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile)) if profile else None
        if source is None or source.profile.xcolor_space.strip() != _PROFILE_SPACES.get(mode):
            if mode != "LAB":
                return None
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif "sRGB" in ImageCms.getProfileDescription(source) and mode == "RGB":
            return None
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL, ImageCms.Flags.NOCACHE
        )
    except ImageCms.PyCMSError:
        return None
    return lambda image: ImageCms.applyTransform(image, transform)

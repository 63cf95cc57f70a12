"""Depth maps in files: 16-bit pictures (PNG, TIFF, PGM), float TIFF, and NumPy arrays; told by their content."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.arrays import read_header, read_npy
from utils.errors import UserError, reading
from utils.files import atomic_path, regular_file
from utils.image_files import open_image

DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".pgm", ".npy")
MILLIMETRES = 1000.0
_NO_MEASUREMENT = 65535


def read_depth(path: str | Path, scale: float = MILLIMETRES, float_scale: float = 1.0) -> Tensor:
    """A depth map as float32 metres ``[H, W]``, 0 = none.

    Args:
        path: of a picture with one channel, or an array ``[H, W]`` or ``[H, W, 1]``.
        scale: units per metre of whole numbers; the largest 16-bit one is no measurement (7-Scenes, saturation).
        float_scale: units per metre of floats; what is not finite or not positive is no measurement.

    Raises:
        UserError: the file is absent, damaged, or has more than one channel.
    """
    values = _read_array(path) if str(path).lower().endswith(".npy") else _read_picture(path)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise UserError(f"{path} holds {values.dtype} {list(values.shape)}; expected one depth channel: 16-bit whole "
                        "numbers or floats; write the depth itself, not a coloured picture of it")
    if values.dtype.kind == "f":
        metres = values.astype(np.float32) / np.float32(float_scale)
        metres = np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))
    else:
        metres = values.astype(np.float32) / np.float32(scale)
        metres = np.where(values == _NO_MEASUREMENT, np.float32(0), metres) if values.dtype == np.uint16 else metres
        metres = metres if values.dtype.kind == "u" else metres.clip(min=0)
    return torch.from_numpy(metres)


def depth_size(path: str | Path) -> tuple[tuple[int, int], str]:
    """(height, width) of a depth map, and the kind of its numbers, such as "PNG I;16"; reads no pixels.

    Raises:
        UserError: absent, damaged, or no depth map.
    """
    if str(path).lower().endswith(".npy"):
        with reading(path, "a depth map"), open(regular_file(path, "a depth map"), "rb") as file:
            header = read_header(file)
            shape = header.shape[:2] if header.shape[2:] in ((), (1,)) else header.shape
            if len(shape) != 2:
                raise ValueError(f"an array of shape {header.shape}")
            return shape, f"NPY {header.dtype}"
    with open_image(path, "depth") as image:
        return (image.height, image.width), f"{image.format} {image.mode}"


def _read_array(path: str | Path) -> np.ndarray:
    return read_npy(path, "a depth map")


def _read_picture(path: str | Path) -> np.ndarray:
    """Numbers as they are stored, ``[H, W]`` or ``[H, W, C]``."""
    with open_image(path, "depth") as image:
        if getattr(image, "n_frames", 1) != 1:
            raise UserError(f"{path} holds {image.n_frames} pictures; expected one depth map: write each into a file "
                            "of its own")
        stretched = _stretched_by(image)
        values = np.array(image.convert(image.palette.mode) if image.mode == "P" else image)
        return values if stretched is None else np.rint(values / stretched).astype(np.uint16)


def _stretched_by(image: Image.Image) -> float | None:
    """What Pillow multiplies a PGM's numbers by, so that its largest one becomes 255 or 65535."""
    if image.format != "PPM" or not image.tile or not str(image.tile[0][0]).startswith("ppm"):
        return None
    largest = image.tile[0][3][-1]
    return (65535 if image.mode == "I" else 255) / largest


def write_depth(path: str | Path, depth: Tensor, scale: float = MILLIMETRES) -> None:
    """Write metres ``[H, W]`` as a 16-bit PNG, rounded; values outside 0..65535 units are clamped."""
    units = (depth.double() * scale).round().clamp(0, 65535)
    with atomic_path(path, flushed=False) as temporary:
        iio.imwrite(temporary, units.cpu().numpy().astype(np.uint16))

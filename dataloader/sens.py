"""ScanNet's ``.sens`` streams, read frame by frame; at no time is more than one frame in memory.

Version 4, little-endian: u32 version; u64 length and name; four 4x4 f32 matrices (colour intrinsics and extrinsics,
depth intrinsics and extrinsics); i32 colour coding (0 raw, 1 png, 2 jpeg); i32 depth coding (0 raw, 1 zlib, 2 occi);
u32 colour width and height, depth width and height; f32 depth units per metre; u64 number of frames. Per frame: 4x4 f32
camera-to-world, u64 colour and depth timestamps, u64 colour and depth bytes, the data. Inertial data follow (not read).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError, reading
from utils.pictures import decode_picture

_VERSION = 4
_LONGEST_NAME = 4096
_MOST_PIXELS = 1 << 26
_DOWNLOAD_AGAIN = "download the file again"
_COLOR_CODINGS = {0: "raw", 1: "png", 2: "jpeg"}
_DEPTH_CODINGS = {0: "raw", 1: "zlib", 2: "occi"}
_FRAME_HEADER = struct.Struct("<16f4Q")


@dataclass(frozen=True)
class SensHeader:
    """A stream's header.

    Attributes:
        name: of the sensor.
        color_intrinsics, color_extrinsics, depth_intrinsics, depth_extrinsics: float64 ``[4, 4]``.
        color_coding: "raw", "png" or "jpeg".
        depth_coding: "raw", "zlib" or "occi" (which is not read).
        color_size, depth_size: (height, width).
        depth_units: stored units per metre.
        num_frames: frames in the stream.
    """

    name: str
    color_intrinsics: Tensor
    color_extrinsics: Tensor
    depth_intrinsics: Tensor
    depth_extrinsics: Tensor
    color_coding: str
    depth_coding: str
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_units: float
    num_frames: int


@dataclass(frozen=True)
class SensFrame:
    """One frame; images are still coded.

    Attributes:
        index: in the stream.
        camera_to_world: float64 ``[4, 4]``; -inf where tracking was lost.
        color_data, depth_data: bytes in the stream's codings.
    """

    index: int
    camera_to_world: Tensor
    color_data: bytes
    depth_data: bytes


class SensReader:
    """A stream opened for reading; use as a context manager."""

    def __init__(self, path: str | Path):
        """Open and read the header.

        Raises:
            UserError: absent, truncated, or not a version 4 stream.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{self.path} does not exist; expected ScanNet's SCENE.sens there: download it")
        self._length = self.path.stat().st_size
        self._file: BinaryIO = open(self.path, "rb")  # noqa: SIM115 - closed by __exit__
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SensReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def frames(self, step: int = 1, wanted: set[int] | None = None) -> Iterator[SensFrame]:
        """Every ``step``-th frame from the first, of those in ``wanted`` if given; the others' data are skipped.

        Raises:
            UserError: the stream ends within a frame.
        """
        for index in range(self.header.num_frames):
            values = _FRAME_HEADER.unpack(self._read(_FRAME_HEADER.size, f"frame {index}"))
            color_bytes, depth_bytes = values[18], values[19]
            if index % step or (wanted is not None and index not in wanted):
                self._skip(color_bytes + depth_bytes, f"frame {index}")
                continue
            yield SensFrame(
                index,
                torch.tensor(values[:16], dtype=torch.float64).reshape(4, 4),
                self._read(color_bytes, f"the colour image of frame {index}"),
                self._read(depth_bytes, f"the depth image of frame {index}"),
            )

    def decode_color(self, frame: SensFrame) -> Tensor:
        """Colour image uint8 ``[3, H, W]``; raises UserError where the data are damaged."""
        with reading(self.path, f"a stream: the colour image of frame {frame.index} is damaged", _DOWNLOAD_AGAIN):
            if self.header.color_coding == "raw":
                image = np.frombuffer(frame.color_data, np.uint8).reshape(*self.header.color_size, 3)
            else:
                image = decode_picture(frame.color_data, f"{self.path}, frame {frame.index}", turned=False).color
            if image.shape[:2] != self.header.color_size:
                raise ValueError(f"it is {list(image.shape)}, the header says {self.header.color_size}")
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def decode_depth(self, frame: SensFrame) -> Tensor | None:
        """Depth in metres, float32 ``[H, W]``; None where the frame has none. Raises UserError where damaged."""
        if not frame.depth_data:
            return None
        with reading(self.path, f"a stream: the depth image of frame {frame.index} is damaged", _DOWNLOAD_AGAIN):
            data = self._inflated(frame.depth_data) if self.header.depth_coding == "zlib" else frame.depth_data
            units = np.frombuffer(data, "<u2").reshape(self.header.depth_size)
        return torch.from_numpy(units.astype(np.float32) / np.float32(self.header.depth_units))

    def _inflated(self, data: bytes) -> bytes:
        """The bytes of a depth image, and one at most of what is too long."""
        wanted = 2 * math.prod(self.header.depth_size)
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(data, wanted + 1)
        if len(inflated) != wanted or not inflater.eof:
            raise ValueError(f"it holds {len(inflated)} bytes or more, expected {wanted}")
        return inflated

    def _read_header(self) -> SensHeader:
        (version,) = self._unpack("<I")
        if version != _VERSION:
            raise UserError(f"{self.path} has version {version}; expected a ScanNet .sens stream of version "
                            f"{_VERSION}: check the path")
        (name_length,) = self._unpack("<Q")
        if name_length > _LONGEST_NAME:
            raise UserError(f"{self.path} has a sensor name of {name_length} bytes; it is not a ScanNet .sens stream "
                            "or is damaged: download it again")
        name = self._read(name_length, "the header").decode("utf-8", "replace")
        matrices = [torch.tensor(self._unpack("<16f"), dtype=torch.float64).reshape(4, 4) for _ in range(4)]
        color_coding, depth_coding = self._unpack("<2i")
        if color_coding not in _COLOR_CODINGS or depth_coding not in _DEPTH_CODINGS:
            raise UserError(f"{self.path} has colour coding {color_coding} and depth coding {depth_coding}; known are "
                            f"{_COLOR_CODINGS} and {_DEPTH_CODINGS}: the file is damaged")
        color_width, color_height, depth_width, depth_height = self._unpack("<4I")
        (depth_units,) = self._unpack("<f")
        (num_frames,) = self._unpack("<Q")
        if not 0 < depth_units < math.inf:
            raise UserError(f"{self.path} has {depth_units} depth units per metre; expected 1000: the file is damaged")
        if max(color_height * color_width, depth_height * depth_width) > _MOST_PIXELS:
            raise UserError(f"{self.path} has images of {color_width}x{color_height} and {depth_width}x{depth_height}, "
                            "which no sensor takes: the file is damaged")
        if not all(torch.isfinite(matrix).all() for matrix in matrices):
            raise UserError(f"{self.path} has intrinsics or extrinsics with NaN or infinity: the file is damaged")
        possible = (self._length - self._file.tell()) // _FRAME_HEADER.size
        if num_frames > possible:
            raise self._truncated(f"frame {possible} of {num_frames}")
        return SensHeader(
            name, *matrices, _COLOR_CODINGS[color_coding], _DEPTH_CODINGS[depth_coding], (color_height, color_width),
            (depth_height, depth_width), depth_units, num_frames,
        )  # fmt: skip

    def _unpack(self, layout: str) -> tuple:
        return struct.unpack(layout, self._read(struct.calcsize(layout), "the header"))

    def _read(self, count: int, what: str) -> bytes:
        # Compared first, so that a damaged length cannot ask for more memory than the file is long.
        if count > self._length - self._file.tell():
            raise self._truncated(what)
        data = self._file.read(count)
        if len(data) < count:
            raise self._truncated(what)
        return data

    def _skip(self, count: int, what: str) -> None:
        if count > self._length - self._file.tell():
            raise self._truncated(what)
        self._file.seek(count, io.SEEK_CUR)

    def _truncated(self, what: str) -> UserError:
        return UserError(f"{self.path} ends within {what} ({self._length} bytes long); the download is incomplete: "
                         "fetch it again")

"""Writes small ``.sens`` streams after the format's description, independently of the reader."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

COLOR_SIZE, DEPTH_SIZE = (12, 16), (6, 8)
_CODINGS = {"raw": 0, "png": 1, "jpeg": 2}


def color_image(frame: int) -> np.ndarray:
    return np.random.default_rng(frame).integers(0, 256, (*COLOR_SIZE, 3), dtype=np.uint8)


def depth_image(frame: int) -> np.ndarray:
    return np.random.default_rng(100 + frame).integers(0, 8000, DEPTH_SIZE, dtype=np.uint16)


def pose(frame: int) -> np.ndarray:
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, 3] = (0.1 * frame, 1 / 3, -2)
    return np.full((4, 4), -np.inf, np.float32) if frame == 2 else matrix


def write_sens(path: Path, frames: int = 12, color: str = "png", depth: str = "zlib", units: float = 1000.0) -> bytes:
    """Write the stream and return its bytes; frame 2 has a lost pose, and inertial data follow."""
    intrinsics = np.diag([14.0, 13.0, 1.0, 1.0]).astype("<f4")
    intrinsics[0, 2], intrinsics[1, 2] = COLOR_SIZE[1] / 2, COLOR_SIZE[0] / 2
    depth_intrinsics = np.diag([0.5, 0.5, 1.0, 1.0]).astype("<f4") @ intrinsics
    stream = io.BytesIO()
    stream.write(struct.pack("<IQ", 4, 9) + b"Structure")
    for matrix in (intrinsics, np.eye(4), depth_intrinsics, np.eye(4)):
        stream.write(np.ascontiguousarray(matrix, "<f4").tobytes())
    stream.write(struct.pack("<2i", _CODINGS[color], {"raw": 0, "zlib": 1, "occi": 2}[depth]))
    stream.write(struct.pack("<4IfQ", COLOR_SIZE[1], COLOR_SIZE[0], DEPTH_SIZE[1], DEPTH_SIZE[0], units, frames))
    for frame in range(frames):
        color_data = _encode_color(frame, color)
        depth_data = depth_image(frame).astype("<u2").tobytes()
        depth_data = zlib.compress(depth_data) if depth == "zlib" else depth_data
        stream.write(pose(frame).astype("<f4").tobytes())
        stream.write(struct.pack("<4Q", frame, frame, len(color_data), len(depth_data)) + color_data + depth_data)
    stream.write(struct.pack("<Q", 3) + b"inertial data")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue())
    return stream.getvalue()


def _encode_color(frame: int, coding: str) -> bytes:
    if coding == "raw":
        return color_image(frame).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(color_image(frame)).save(buffer, coding)
    return buffer.getvalue()


def expected_pose(frame: int) -> torch.Tensor:
    return torch.from_numpy(pose(frame).astype(np.float64))

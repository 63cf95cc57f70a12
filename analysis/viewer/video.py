"""Writing a camera path as a video."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_path


def require_ffmpeg() -> None:
    """Raise :class:`UserError` where imageio's ffmpeg plugin is not installed."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError("writing a video needs imageio-ffmpeg; install it: pip install 'imageio[ffmpeg]'")


def write_video(path: str | Path, frames: Iterable[np.ndarray], frames_per_second: int) -> int:
    """Write frames uint8 ``[H, W, 3]`` of one size as H.264; an odd last row or column is cut off.

    Returns:
        How many frames were written.

    Raises:
        UserError: imageio's ffmpeg plugin is not installed.
    """
    require_ffmpeg()
    import imageio.v2

    count = 0
    with atomic_path(path) as temporary:
        writer = imageio.v2.get_writer(
            temporary, format="FFMPEG", fps=frames_per_second, codec="libx264", quality=8, macro_block_size=2
        )
        with writer:
            for frame in frames:
                height, width = frame.shape[:2]
                writer.append_data(np.ascontiguousarray(frame[: height // 2 * 2, : width // 2 * 2]))
                count += 1
    return count

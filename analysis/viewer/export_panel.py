"""Buttons that render pictures and videos, which the browser downloads."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as iio
import numpy as np

from analysis.viewer.camera_math import BrowserCamera, interpolate_path
from analysis.viewer.display import Display
from analysis.viewer.scene_state import TRAJECTORY
from analysis.viewer.video import require_ffmpeg, write_video
from utils.errors import UserError

if TYPE_CHECKING:
    import viser

_KEYS = "chosen views"
_SCREENSHOT_SECONDS = 30.0
_MOST_PATH_KEYS = 24  # a hand-held trajectory is shaky: a path through every n-th camera is smoother
_HEIGHTS = ("240", "480", "720", "1080")


class ExportPanel:
    """Screenshots, and videos along the trajectory or through chosen views, in the current mode."""

    def __init__(self, display: Display):
        self._display = display
        self._keys: list[BrowserCamera] = []
        self._writing = threading.Lock()
        gui = display.server.gui
        self._height = gui.add_dropdown("Rows", _HEIGHTS, initial_value="480")
        gui.add_button("Rendered picture", hint="Without mesh and cameras, with that many rows").on_click(
            lambda event: self._report(event.client, self._picture)
        )
        gui.add_button("Screenshot", hint="With mesh and cameras, as large as the window").on_click(
            lambda event: self._report(event.client, self._screenshot)
        )
        gui.add_divider()
        paths = ([TRAJECTORY] if TRAJECTORY in display.state.sources else []) + [_KEYS]
        self._path = gui.add_dropdown("Video along", paths, initial_value=paths[0])
        gui.add_button("Add this view").on_click(lambda event: self._add_key(event.client))
        gui.add_button("Clear chosen views").on_click(lambda _: self._clear_keys())
        self._count = gui.add_markdown("")
        self._seconds = gui.add_slider("Seconds", 1, 60, 1, 8)
        self._rate = gui.add_slider("Frames per second", 5, 60, 5, 25)
        gui.add_button("Write video").on_click(lambda event: self._report(event.client, self._video))
        self._progress = gui.add_progress_bar(0.0, visible=False)
        self._clear_keys()

    def set_video(self, seconds: int, frames_per_second: int, rows: str) -> None:
        """Set the sliders of videos; ``rows`` is one of the choices and also applies to rendered pictures."""
        self._seconds.value, self._rate.value, self._height.value = seconds, frames_per_second, rows

    def _add_key(self, client: viser.ClientHandle) -> None:
        self._keys.append(self._display.browser_camera(client))
        self._path.value = _KEYS
        self._count.content = f"{len(self._keys)} views chosen"

    def _clear_keys(self) -> None:
        self._keys.clear()
        self._count.content = "No views chosen yet."

    @staticmethod
    def _report(client: viser.ClientHandle, action) -> None:
        """Run a button's action; a UserError is shown in the browser."""
        try:
            action(client)
        except UserError as error:
            client.add_notification("Not possible", str(error), color="red")

    def _picture(self, client: viser.ClientHandle) -> None:
        picture = self._display.renderer.draw(self._display.browser_camera(client), int(self._height.value))
        self._send(client, picture.image)

    def _screenshot(self, client: viser.ClientHandle) -> None:
        height, width = client.camera.image_height, client.camera.image_width
        shown = client.get_render(height, width, transport_format="png", timeout=_SCREENSHOT_SECONDS)
        self._send(client, shown[..., :3])

    def _send(self, client: viser.ClientHandle, image: np.ndarray) -> None:
        buffer = io.BytesIO()
        iio.imwrite(buffer, image, extension=".png")
        client.send_file_download(f"{self._display.state.name}.png", buffer.getvalue(), save_immediately=True)

    def _video(self, client: viser.ClientHandle) -> None:
        require_ffmpeg()
        path = video_path(self._key_cameras(), self._seconds.value * self._rate.value)
        if not self._writing.acquire(blocking=False):
            raise UserError("a video is being written already; wait until it is finished")
        try:
            self._progress.visible = True
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"{self._display.state.name}.mp4"
                write_video(file, self._frames(path), self._rate.value)
                client.send_file_download(file.name, file.read_bytes(), save_immediately=True)
        finally:
            self._progress.visible = False
            self._writing.release()

    def _key_cameras(self) -> Sequence[BrowserCamera]:
        if self._path.value == _KEYS:
            return self._keys
        source = self._display.state.sources[TRAJECTORY]
        return [source.browser_camera(index) for index in range(len(source.cameras))]

    def _frames(self, path: Sequence[BrowserCamera]) -> Iterator[np.ndarray]:
        for number, camera in enumerate(path):
            self._progress.value = 100.0 * number / len(path)
            yield self._display.renderer.draw(camera, int(self._height.value)).image


def video_path(cameras: Sequence[BrowserCamera], frames: int) -> list[BrowserCamera]:
    """A path through the cameras, or through evenly chosen ones where there are many.

    Raises:
        UserError: fewer than two cameras.
    """
    if len(cameras) < 2:
        raise UserError(f"a video needs at least two views, {len(cameras)} are chosen; add views, or choose another "
                        "path")
    chosen = np.linspace(0, len(cameras) - 1, min(len(cameras), _MOST_PATH_KEYS)).round().astype(int)
    return interpolate_path([cameras[index] for index in chosen], max(frames, 2))

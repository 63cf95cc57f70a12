"""Why cameras were rejected, written beside them.

viser, up to 1.1 at least, reports no hovering over scene nodes and has no tooltips, and panels in the scene are large
enough to cover the cameras. So labels show the reasons of many cameras at once: in each browser those nearest to the
centre of the view, as many as fit without overlap. A click on a camera shows its details.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from analysis.viewer.camera_math import BrowserCamera
from analysis.viewer.legend import short_reason
from analysis.viewer.scene_state import CameraSource
from utils.cameras import project

if TYPE_CHECKING:
    import viser

MOST_LABELS = 40
_REST_SECONDS = 0.2  # without motion for so long a view rests: labels would flicker while it moves
_CHARACTER_WIDTH, _LINE_HEIGHT = 7, 18  # pixels of the page, of viser's labels at their usual size

ViewOf = Callable[["viser.ClientHandle"], BrowserCamera]


class ReasonLabels:
    """Labels of rejected cameras, off at first; they exist only while they are shown, in each browser its own."""

    def __init__(self, server: viser.ViserServer, cameras: Sequence[tuple[CameraSource, int]], view_of: ViewOf):
        """Prepare to label.

        Args:
            server: whose browsers show the labels.
            cameras: source and index; those without a reason get no label.
            view_of: returns a browser's camera.
        """
        reasons = [(source, index, short_reason(source.cameras.info[index])) for source, index in cameras]
        reasons = [entry for entry in reasons if entry[2]]
        self._server, self._view_of = server, view_of
        self._texts = [text for *_, text in reasons]
        eyes = [source.cameras.camera_to_world[index, :3, 3] for source, index, _ in reasons]
        self._eyes = torch.stack(eyes) if eyes else torch.empty(0, 3, dtype=torch.float64)  # float64 [N, 3] metres
        self._shown = self._behind_surfaces = False
        self._labels: dict[int, dict[int, viser.LabelHandle]] = {}  # browser -> label by place in the lists above
        self._waiting: dict[int, threading.Timer] = {}
        self._changing = threading.Lock()  # viser's threads, and those of the timers

    def show(self, visible: bool) -> None:
        """Show or remove the labels in every browser."""
        if visible == self._shown:
            return
        self._shown = visible
        for client in self._server.get_clients().values():
            self._update(client)

    def hide_behind_surfaces(self, hide: bool) -> None:
        """Whether labels are occluded like their cameras; else they are in front of everything."""
        with self._changing:
            self._behind_surfaces = hide
            for labels in self._labels.values():
                for label in labels.values():
                    label.depth_test = hide

    def moved(self, client: viser.ClientHandle) -> None:
        """A browser's view has changed: place labels again as soon as it rests."""
        if not self._shown:
            return
        with self._changing:
            self._stop_waiting(client.client_id)
            timer = threading.Timer(_REST_SECONDS, self._update, (client,))
            timer.daemon = True
            self._waiting[client.client_id] = timer
            timer.start()

    def remove(self, browser: int) -> None:
        """The browser has disconnected; its labels are gone with it."""
        with self._changing:
            self._stop_waiting(browser)
            self._labels.pop(browser, None)

    def _stop_waiting(self, browser: int) -> None:
        if (timer := self._waiting.pop(browser, None)) is not None:
            timer.cancel()

    def _update(self, client: viser.ClientHandle) -> None:
        with self._changing:
            if client.client_id not in self._server.get_clients():
                return
            labels = self._labels.setdefault(client.client_id, {})
            chosen = self._choose(client) if self._shown else []
            for gone in labels.keys() - set(chosen):
                labels.pop(gone).remove()
            for camera in chosen:
                if camera not in labels:
                    labels[camera] = self._add(client, camera)

    def _choose(self, client: viser.ClientHandle) -> list[int]:
        size = (client.camera.image_height, client.camera.image_width)
        view = self._view_of(client)
        pixels, depth = project(self._eyes, view.intrinsics(size), view.camera_to_world)
        widths = np.array([_CHARACTER_WIDTH * (len(text) + 1) for text in self._texts])
        return legible_labels(pixels.numpy(), depth.numpy(), widths, size)

    def _add(self, client: viser.ClientHandle, camera: int) -> viser.LabelHandle:
        """Under the camera, since the sign of a clicked one is above it.

        Its depth counts only where surfaces hide cameras: else the lines of nearer cameras would cross it out.
        """
        return client.scene.add_label(
            f"/reasons/{camera}", self._texts[camera], position=self._eyes[camera].numpy(), anchor="top-center",
            depth_test=self._behind_surfaces,
        )  # fmt: skip


def legible_labels(
    pixels: np.ndarray,  # float64 [N, 2], x and y of what is labelled; the label is centred under it
    depth: np.ndarray,  # float64 [N], metres, <= 0 behind the view
    widths: np.ndarray,  # [N] of the labels, pixels
    size: tuple[int, int],
    most: int = MOST_LABELS,
) -> list[int]:
    """Which of N things to label in a view of ``size`` (height, width) pixels.

    Nearest to the middle first, what is nearer to the viewer first among equals; only what is in view, and none whose
    label would cover one that was chosen before.
    """
    height, width = size
    in_view = (depth > 0) & (pixels >= 0).all(1) & (pixels < (width, height)).all(1)
    from_middle = np.linalg.norm(pixels - (width / 2, height / 2), axis=1).round()
    chosen: list[int] = []
    for candidate in np.lexsort((depth, from_middle)):
        if len(chosen) == most:
            break
        apart = np.abs(pixels[chosen] - pixels[candidate])
        free = (apart[:, 0] >= (widths[chosen] + widths[candidate]) / 2) | (apart[:, 1] >= _LINE_HEIGHT)
        if in_view[candidate] and free.all():
            chosen.append(int(candidate))
    return chosen

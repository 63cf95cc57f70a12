"""The viewer: one scene at a time, one server, any number of browsers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from analysis.viewer.display import Display
from analysis.viewer.panels import Panels
from analysis.viewer.scene_state import SceneState
from utils.errors import UserError

logger = logging.getLogger(__name__)


class Viewer:
    """Serves a scene, or one of several.

    Attributes:
        display: what is shown beside the panel.
        panels: the panel; its methods do what its buttons do.
    """

    def __init__(
        self, state: SceneState, host: str = "127.0.0.1", port: int = 8080, max_height: int = 720,
        scenes: Sequence[str] = (), load: Callable[[str], SceneState] | None = None,
    ):  # fmt: skip
        """Start to serve.

        Args:
            state: the scene.
            scenes: names of all that can be chosen.
            load: gives one of these.
            host: address to bind to.
            port: the next free one is taken when it is in use.
            max_height: rows of the finest picture.
        """
        import viser

        self._server = viser.ViserServer(host, port, label=state.name, verbose=False)
        self._server.gui.configure_theme(control_width="large", show_logo=False, show_share_button=False)
        self._max_height, self._scenes, self._load = max_height, list(scenes), load
        self._changing = threading.Lock()
        self._show(state)

    def open_scene(self, name: str) -> None:
        """Show another scene instead.

        Raises:
            UserError: it cannot be loaded; the one before stays.
        """
        with self._changing:
            state = self._load(name)
            self.display.close()
            self._server.scene.reset()
            self._server.gui.reset()
            self._show(state)

    def _show(self, state: SceneState) -> None:
        self.display = Display(state, self._server, self._max_height, self._clicked)
        self.panels = Panels(self.display, self._scenes, self._chosen)
        self.display.start()

    def _chosen(self, name: str) -> None:
        try:
            self.open_scene(name)
        except UserError as error:
            logger.error("%s", error)
            for client in self._server.get_clients().values():
                client.add_notification(f"{name} cannot be shown", str(error), color="red")

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self._server.get_host()}:{self._server.get_port()}"

    def stop(self) -> None:
        """End the server and the thread."""
        self.display.close()
        self._server.stop()

    def _clicked(self, title: str, index: int) -> None:
        self.panels.inspect_camera(title, index)

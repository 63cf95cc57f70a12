"""The viewer: one scene, one server, any number of browsers."""

from __future__ import annotations

from analysis.viewer.display import Display
from analysis.viewer.panels import Panels
from analysis.viewer.scene_state import SceneState
from utils.errors import UserError


class Viewer:
    """Serves a scene.

    Attributes:
        display: what is shown beside the panel.
        panels: the panel; its methods do what its buttons do.
    """

    def __init__(self, state: SceneState, host: str = "127.0.0.1", port: int = 8080, max_height: int = 720):
        """Start to serve.

        Args:
            state: the scene.
            host: address to bind to.
            port: the next free one is taken when it is in use.
            max_height: rows of the finest picture.

        Raises:
            UserError: viser is not installed.
        """
        try:
            import viser
        except ImportError:
            raise UserError("the view task needs viser; install it: pip install viser") from None
        self._server = viser.ViserServer(host, port, label=state.name, verbose=False)
        self._server.gui.configure_theme(control_width="large", show_logo=False, show_share_button=False)
        self.display = Display(state, self._server, max_height, self._clicked)
        self.panels = Panels(self.display)
        self.display.start()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self._server.get_host()}:{self._server.get_port()}"

    def stop(self) -> None:
        """End the server and the thread."""
        self.display.loop.stop()
        self._server.stop()

    def _clicked(self, title: str, index: int) -> None:
        self.panels.inspect_camera(title, index)

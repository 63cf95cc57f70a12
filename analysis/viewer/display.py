"""A scene as its server shows it to any number of browsers: the drawn picture, mesh and cameras; not the panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from analysis.viewer.camera_math import BrowserCamera
from analysis.viewer.pictures import ANNOTATION, CONFIDENCE, FUSED, MODES, PREDICTION, QUALITY
from analysis.viewer.reason_labels import ReasonLabels
from analysis.viewer.render_loop import RenderLoop
from analysis.viewer.scene_nodes import REJECTED_KIND, CameraMark, ClassMesh, Frusta
from analysis.viewer.scene_state import SceneState
from analysis.viewer.schedule import INITIAL_COST, ResolutionSchedule
from analysis.viewer.view_renderer import DisplaySettings, DrawnView, ViewRenderer
from utils.rotations import matrix_to_quaternion

if TYPE_CHECKING:
    import viser

_JPEG_QUALITY = {False: 70, True: 90}  # by whether it is the last pass
_EXACT_ROWS = 1440  # so many rows at least, that interpolation is confined to the borders of pixels
_LOOK_DISTANCE = 1.5  # metres in front of the camera: the orbit centre of mouse drags
_BEHIND_EVERYTHING = 160.0  # metres; viser transports depth up to 167


class Display:
    """What a server shows of a scene, and how.

    Attributes:
        server: viser's.
        state: what is shown.
        settings: how.
        loop: the thread that draws.
        drawn_classes: that predictions and fused labels have shown so far.
        on_new_classes: called when these become more.
    """

    def __init__(
        self, state: SceneState, server: viser.ViserServer, max_height: int, on_click: Callable[[str, int], None]
    ):
        """Put the scene's nodes onto a server; drawing begins with :meth:`start`.

        Args:
            max_height: rows of the finest picture.
            on_click: called with a camera's source and index when it is clicked.
        """
        self.state, self.server = state, server
        self.settings = DisplaySettings(network=next(iter(self.networks), None))
        self.renderer = ViewRenderer(state, self.settings)
        cost = INITIAL_COST[state.field.grid.device.type]
        schedule = ResolutionSchedule(max_height, seconds_per_pixel=cost)
        self.loop = RenderLoop(self.renderer.draw, self._deliver, schedule)
        server.scene.set_up_direction("+z")
        self._set_initial_camera(state.initial_camera())
        self.mesh = ClassMesh(server, state.mesh) if state.mesh is not None else None
        server.scene.configure_environment_map(None)
        self.frusta = Frusta(server, state.sources.values(), on_click)
        self._mark = CameraMark(server)
        self.reasons = ReasonLabels(server, self.frusta.drawn.get(REJECTED_KIND, []), self.browser_camera)
        self.drawn_classes: frozenset[int] = frozenset()
        self.on_new_classes: Callable[[], None] = lambda: None
        self._closed = False

    def start(self) -> None:
        """Draw for every browser that is or gets connected."""
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)
        self.loop.start()
        for client in self.server.get_clients().values():
            look_through(client, self.state.initial_camera())
            self._connected(client)

    def close(self) -> None:
        """End the thread and what was begun for browsers; viser keeps its callbacks, which do nothing any more."""
        self._closed = True
        self.reasons.show(False)
        self.loop.stop()

    @property
    def modes(self) -> tuple[str, ...]:
        """Modes that this scene offers."""
        needed = {QUALITY: self.state.quality, ANNOTATION: self.state.mesh, FUSED: self.state.semantic,
                  CONFIDENCE: self.state.semantic, PREDICTION: self.settings.network}  # fmt: skip
        return tuple(mode for mode in MODES if mode not in needed or needed[mode] is not None)

    @property
    def networks(self) -> list[str]:
        """Names of the networks that predict any view: those of renders, since there are no photographs of others."""
        return [name for name, predictor in self.state.predictors.items() if predictor.color == "rgb"]

    def set_network(self, name: str) -> None:
        """Whose predictions are drawn."""
        self.settings.network = name
        self.loop.refresh()

    def set_mode(self, mode: str) -> None:
        """Draw in another of :attr:`modes`; raises ``ValueError`` for any other."""
        if mode not in self.modes:
            raise ValueError(f"mode {mode!r} is not offered; use one of {', '.join(self.modes)}")
        self.settings.mode = mode
        self.loop.refresh()

    def set_sh_channel(self, channel: int) -> None:
        """Which coefficient mode "SH channel" shows."""
        self.settings.sh_channel = channel
        self.loop.refresh()

    def hide_classes(self, hidden: set[int]) -> None:
        """Classes that neither the mesh nor label images show."""
        self.settings.hidden = set(hidden)
        if self.mesh is not None:
            self.mesh.hide_classes(hidden)
        self.loop.refresh()

    def set_occlusion(self, occlude: bool) -> None:
        """Whether the field's surfaces hide meshes and cameras behind them."""
        self.settings.occlude = occlude
        self.reasons.hide_behind_surfaces(occlude)
        self.loop.refresh()

    def mark_camera(self, title: str, index: int) -> None:
        """Highlight a camera, with a label beside it."""
        self._mark.put(self.state.sources[title], index)

    def look_through(self, title: str, index: int, client: viser.ClientHandle | None = None) -> None:
        """Move the view to a camera, in one browser or in all."""
        camera = self.state.sources[title].browser_camera(index)
        for browser in [client] if client is not None else self.server.get_clients().values():
            look_through(browser, camera)

    def browser_camera(self, client: viser.ClientHandle) -> BrowserCamera:
        """The camera of one browser."""
        camera = client.camera
        return BrowserCamera.from_viser(camera.wxyz, camera.position, camera.fov, camera.aspect)

    def _set_initial_camera(self, camera: BrowserCamera) -> None:
        position, forward = camera.camera_to_world[:3, 3], camera.camera_to_world[:3, 2]
        initial = self.server.initial_camera
        initial.position = position.numpy()
        initial.look_at = (position + _LOOK_DISTANCE * forward).numpy()
        initial.fov = camera.fov

    def _connected(self, client: viser.ClientHandle) -> None:
        if not self._closed:
            client.camera.on_update(lambda _: self._moved(client))
            self._moved(client)

    def _moved(self, client: viser.ClientHandle) -> None:
        if self._closed:
            return
        self.loop.submit(client.client_id, self.browser_camera(client))
        self.reasons.moved(client)

    def _disconnected(self, client: viser.ClientHandle) -> None:
        self.loop.remove(client.client_id)
        self.reasons.remove(client.client_id)

    def _deliver(self, browser: int, picture: DrawnView, last: bool) -> None:
        client = self.server.get_clients().get(browser)
        if client is None:
            return
        if not picture.classes <= self.drawn_classes:
            self.drawn_classes |= picture.classes
            self.on_new_classes()
        depth = None
        if picture.depth is not None:
            depth = picture.depth.copy()
            depth[depth <= 0] = _BEHIND_EVERYTHING
        if picture.exact:
            client.scene.set_background_image(enlarged(picture.image), format="png", depth=depth)
        else:
            quality = _JPEG_QUALITY[last]
            client.scene.set_background_image(picture.image, format="jpeg", jpeg_quality=quality, depth=depth)


def enlarged(image: np.ndarray) -> np.ndarray:
    """An image ``[H, W, 3]`` with pixels repeated: the page interpolates, and mixed class colours are meaningless."""
    factor = -(-_EXACT_ROWS // len(image))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def look_through(client: viser.ClientHandle, camera: BrowserCamera) -> None:
    """Move a browser's camera; its orbit centre is put in front of it."""
    pose = camera.camera_to_world
    with client.atomic():
        client.camera.position = pose[:3, 3].numpy()
        client.camera.wxyz = matrix_to_quaternion(pose[:3, :3])
        client.camera.look_at = (pose[:3, 3] + _LOOK_DISTANCE * pose[:3, 2]).numpy()
        client.camera.fov = camera.fov

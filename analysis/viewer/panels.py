"""The panel beside the picture: what is shown, cameras, classes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.viewer.comparison import compare
from analysis.viewer.display import Display
from analysis.viewer.export_panel import ExportPanel
from analysis.viewer.legend import camera_facts, camera_verdict, class_swatches, swatches
from analysis.viewer.mode_legend import mode_legend
from analysis.viewer.pictures import ANNOTATION, PREDICTION, SH_CHANNEL, captioned_grid
from analysis.viewer.scene_nodes import REJECTED_KIND, camera_status
from analysis.viewer.scene_state import TRAJECTORY
from utils.labels import label_set
from utils.spherical_harmonics import BASIS_SIZE, SH_CHANNELS

if TYPE_CHECKING:
    import viser

_CELL_WIDTH = 210
_COLORS = ("red", "green", "blue")
_MESH_OPACITY = {"hidden": 1.0, "see-through": 0.5, "solid": 1.0}
_NO_CAMERA = "Click a camera in the scene for its details, or choose one here to view from it."


class Panels:
    """Builds the panel and keeps it in sync with the display; its methods do what its buttons do.

    Handles react to what a browser changes; viser also calls them, without a client, for what the program sets.
    """

    def __init__(self, display: Display, scenes: Sequence[str] = (), choose: Callable[[str], None] = lambda name: None):
        """Build the panel.

        Args:
            display: what it is of.
            scenes: that can be chosen instead, where there are several.
            choose: called with the name of one that was.
        """
        self._scenes, self._choose = scenes, choose
        self._display = display
        self._gui = display.server.gui
        self._shown: tuple[str, int] | None = None  # the chosen camera
        self._drawn = None  # the camera and hidden classes that the pictures are of
        self._drawing = threading.Lock()
        self._verdict = self._gui.add_markdown("", visible=False)
        tabs = self._gui.add_tab_group()
        with tabs.add_tab("View"):
            self._build_view()
        if display.state.sources:
            with tabs.add_tab("Cameras"):
                self._build_cameras()
        with tabs.add_tab("Classes"):
            self._build_classes()
        with tabs.add_tab("Export"):
            self.export = ExportPanel(display)

    def _build_view(self) -> None:
        display, gui = self._display, self._gui
        if len(self._scenes) > 1:
            scene = gui.add_dropdown("Scene", self._scenes, initial_value=display.state.name)
            scene.on_update(lambda event: event.client and self._choose(scene.value))
        self._mode = gui.add_dropdown("Show", display.modes, initial_value=display.settings.mode)
        self._channel = gui.add_slider("SH channel", 0, SH_CHANNELS - 1, 1, 0, visible=False)
        self._channel_text = gui.add_markdown(_channel_text(0), visible=False)
        networks = display.networks
        self._network = gui.add_dropdown("Network", networks or ("none",), visible=False)
        self._network.on_update(lambda event: event.client and display.set_network(self._network.value))
        self._legend = gui.add_html("")
        self._refresh_legend()
        display.on_new_classes = self._refresh_legend
        self._mode.on_update(lambda event: event.client and self.set_mode(self._mode.value))
        self._channel.on_update(lambda _: self._channel_changed())
        if display.mesh is not None:
            mesh = gui.add_dropdown("Labelled mesh", tuple(_MESH_OPACITY), initial_value="hidden")
            mesh.on_update(lambda _: display.mesh.show(mesh.value != "hidden", _MESH_OPACITY[mesh.value]))
        occlude = gui.add_checkbox(
            "Surfaces hide cameras", False, hint="What is behind the field's surfaces is not drawn"
        )
        occlude.on_update(lambda _: display.set_occlusion(occlude.value))
        self._kinds: dict[str, viser.GuiCheckboxHandle] = {}
        for kind in display.frusta.kinds:
            self._add_kind(kind)
            if kind == REJECTED_KIND:
                self._add_reasons(self._kinds[kind])
        if display.frusta.kinds:
            gui.add_html(swatches(display.frusta.kinds, columns=len(display.frusta.kinds)))
        if display.frusta.thinned:
            thinned = display.frusta.thinned.items()
            few = ", ".join(f"{shown} of {count} of {title}" for title, (shown, count) in thinned)
            every = gui.add_checkbox("More cameras", False, hint=f"At first {few} are drawn")
            every.on_update(lambda _: display.frusta.show_more(every.value))
        if display.state.figures:
            gui.add_markdown("\n".join(f"- {line}" for line in display.state.figures))

    def _add_kind(self, kind: str) -> None:
        label = kind.capitalize() if kind == TRAJECTORY else f"{kind.capitalize()} domes"
        box = self._kinds[kind] = self._gui.add_checkbox(label, False)
        box.on_update(lambda _: self._display.frusta.show(kind, box.value))

    def _add_reasons(self, cameras: viser.GuiCheckboxHandle) -> None:
        hint = "The reason beside each rejected camera, first those nearest to the centre of the view"
        box = self._gui.add_checkbox("Why rejected", False, hint=hint)

        def ticked() -> None:
            if box.value:
                cameras.value = True  # reasons are shown beside visible cameras only
            self._display.reasons.show(box.value)

        box.on_update(lambda _: ticked())
        cameras.on_update(lambda _: self._display.reasons.show(cameras.value and box.value))

    def show_kind(self, kind: str, visible: bool) -> None:
        """Tick the box of a kind of cameras, which shows or hides them."""
        self._kinds[kind].value = visible

    def set_mode(self, mode: str) -> None:
        """Draw in another mode; raises ``ValueError`` for one that is not offered."""
        self._display.set_mode(mode)
        self._mode.value = mode
        self._channel.visible = self._channel_text.visible = mode == SH_CHANNEL
        self._network.visible = mode == PREDICTION and len(self._display.networks) > 1
        self._refresh_legend()

    def _refresh_legend(self) -> None:
        display = self._display
        classes = set(display.mesh.classes if display.mesh is not None else ())
        if display.settings.mode != ANNOTATION:
            classes |= display.drawn_classes  # a network may see what the mesh has not
        shown = sorted(classes - display.settings.hidden)
        limits = display.renderer.sh_limit, display.state.depth_limit
        self._legend.content = mode_legend(display.settings.mode, *limits, shown)

    def _channel_changed(self) -> None:
        self._channel_text.content = _channel_text(self._channel.value)
        self._display.set_sh_channel(self._channel.value)
        self._refresh_legend()

    def _build_cameras(self) -> None:
        sources = self._display.state.sources
        titles = list(sources)
        self._source = self._gui.add_dropdown("Cameras", titles, initial_value=titles[0])
        self._index = self._gui.add_slider("Camera", 0, max(len(sources[titles[0]].cameras) - 1, 1), 1, 0)
        step = self._gui.add_button_group("Step", ("previous", "next"))
        jump = self._gui.add_button("Look through this camera")
        self._facts = self._gui.add_markdown(_NO_CAMERA)
        self._pictures = self._gui.add_image(np.full((1, 1, 3), 255, dtype=np.uint8), format="png", visible=False)
        self._picture_classes = self._gui.add_html("")
        self._source.on_update(lambda event: event.client and self._step_to(0, event.client))
        self._index.on_update(lambda event: event.client and self._step_to(self._index.value, event.client))
        changes = {"previous": -1, "next": 1}
        step.on_click(lambda event: self._step_to(self._index.value + changes[step.value], event.client))
        jump.on_click(lambda event: self._step_to(self._index.value, event.client))

    def _step_to(self, index: int, client: viser.ClientHandle) -> None:
        title = self._source.value
        self.choose_camera(title, index % len(self._display.state.sources[title].cameras), client)

    def choose_camera(self, title: str, index: int, client: viser.ClientHandle | None = None) -> None:
        """Move the view to a camera, in one browser or in all, and inspect it."""
        self._display.look_through(title, index, client)
        self.inspect_camera(title, index)

    def inspect_camera(self, title: str, index: int) -> None:
        """Show a camera's details: whether and why it was rejected, and its pictures."""
        self._display.mark_camera(title, index)
        source = self._display.state.sources[title]
        self._shown = (title, index)
        self._source.value = title
        self._index.max = max(len(source.cameras) - 1, 1)
        self._index.value = index
        kind = camera_status(source, index).kind
        self._verdict.content = camera_verdict(source.cameras.names[index], kind, source.cameras.info[index])
        self._verdict.visible = True
        self._facts.content = camera_facts(source.cameras.info[index])
        self._refresh_pictures()

    def _refresh_pictures(self) -> None:
        """Make the chosen camera's pictures again, if there is one; while the slider is dragged, the latest one's."""
        with self._drawing:
            wanted = (self._shown, frozenset(self._display.settings.hidden))
            if self._shown is None or wanted == self._drawn:
                return
            (title, index), hidden = self._drawn = wanted
            source = self._display.state.sources[title]
            pictures, classes = compare(self._display.state, source, index, hidden)
            height = round(_CELL_WIDTH / source.browser_camera(index).aspect)
            self._pictures.image = captioned_grid(pictures, (height, _CELL_WIDTH))
            self._pictures.visible = True
            self._picture_classes.content = class_swatches(classes)

    def _build_classes(self) -> None:
        mesh = self._display.mesh
        classes = mesh.classes if mesh is not None else list(range(label_set().num_classes))
        self._gui.add_html(class_swatches(classes))
        buttons = self._gui.add_button_group("Set", ("all", "none"))
        self._classes = {index: self._gui.add_checkbox(label_set().names[index], True) for index in classes}
        for box in self._classes.values():
            box.on_update(lambda event: event.client and self._classes_changed())
        buttons.on_click(lambda _: self._set_all(buttons.value == "all"))

    def _set_all(self, shown: bool) -> None:
        for box in self._classes.values():
            box.value = shown
        self._classes_changed()

    def _classes_changed(self) -> None:
        self.hide_classes({index for index, box in self._classes.items() if not box.value})

    def hide_classes(self, hidden: set[int]) -> None:
        """Classes that neither the mesh nor label images show."""
        self._display.hide_classes(hidden)
        self._refresh_legend()
        self._refresh_pictures()


def _channel_text(channel: int) -> str:
    color, basis = divmod(channel, BASIS_SIZE)
    degree = int(basis**0.5)
    return f"{_COLORS[color]}, coefficient {basis} (degree {degree})"

"""The labelled mesh and the cameras as things in the browser's scene."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from analysis.plotting import ACCEPTED, REJECTED
from analysis.viewer.camera_math import quaternion, vertical_fov, view_aspect
from analysis.viewer.scene_state import TRAJECTORY, CameraSource
from dataloader import Mesh
from utils.labels import CLASS_COLORS, CLASS_NAMES

if TYPE_CHECKING:
    import viser

ACCEPTED_KIND, REJECTED_KIND = "accepted", "rejected"
_TRAJECTORY_COLOR = (37, 99, 235)
_FRUSTUM_SCALE = 0.05
_FRUSTUM_LINE = 1.5  # pixels
_FLAT_LIGHT = 2.5  # ambient only; at pi the page's filmic tone mapping would wash the colours out
_MOST_FRUSTA = 400

OnChosen = Callable[[str, int, "viser.ClientHandle | None"], None]  # source title, camera, the browser that clicked


class ClassMesh:
    """The labelled mesh, one node a class, so that classes can be shown and hidden.

    Attributes:
        classes: indices of the classes that occur.
    """

    def __init__(self, server: viser.ViserServer, mesh: Mesh):
        from model.annotation import face_labels, vertex_labels

        server.scene.configure_environment_map(None)  # class colours should be those of the legend
        server.scene.configure_default_lights(False)
        server.scene.add_light_ambient("/light", intensity=_FLAT_LIGHT)
        labels = face_labels(vertex_labels(mesh.labels), mesh.faces)
        self.classes = labels.unique().tolist()
        self._nodes = {index: self._add(server, mesh, labels == index, index) for index in self.classes}
        self._hidden: set[int] = set()
        self.show(False)

    @staticmethod
    def _add(server: viser.ViserServer, mesh: Mesh, chosen: torch.Tensor, index: int) -> viser.MeshHandle:
        corners = mesh.faces[chosen].long()
        used, faces = corners.unique(return_inverse=True)
        return server.scene.add_mesh_simple(
            f"/mesh/{CLASS_NAMES[index].replace(' ', '_')}",
            mesh.vertices[used].numpy(),
            faces.numpy(),
            color=tuple(int(value) for value in CLASS_COLORS[index]),
            material="toon3",  # without gloss
            side="double",
            cast_shadow=False,
            receive_shadow=False,
        )

    def show(self, visible: bool) -> None:
        """Show or hide all classes that are not hidden one by one."""
        self._visible = visible
        for index, node in self._nodes.items():
            node.visible = visible and index not in self._hidden

    def hide_classes(self, hidden: Iterable[int]) -> None:
        """Which classes stay hidden when the mesh is shown."""
        self._hidden = set(hidden)
        self.show(self._visible)

    def set_opacity(self, opacity: float) -> None:
        """0 to 1; 1 is opaque."""
        for node in self._nodes.values():
            node.opacity = None if opacity >= 1 else opacity


@dataclass(frozen=True)
class CameraStatus:
    """How a camera is marked: name of its kind, and colour (0..255)."""

    kind: str
    color: tuple[int, int, int]


def camera_status(source: CameraSource, index: int) -> CameraStatus:
    """Trajectory, accepted, rejected, or not judged yet."""
    if source.title == TRAJECTORY:
        return CameraStatus(TRAJECTORY, _TRAJECTORY_COLOR)
    accepted = source.cameras.info[index].get("accepted", True)
    return CameraStatus(ACCEPTED_KIND, _rgb(ACCEPTED)) if accepted else CameraStatus(REJECTED_KIND, _rgb(REJECTED))


class Frusta:
    """Cameras as clickable frusta, with a switch for each kind (rejected: off at first); long lists are thinned evenly.

    Attributes:
        kinds: colour of each kind that occurs.
        thinned: title -> (shown, all) of the sources that are not shown in full.
    """

    def __init__(self, server: viser.ViserServer, sources: Iterable[CameraSource], on_chosen: OnChosen):
        self.kinds: dict[str, tuple[int, int, int]] = {}
        self.thinned: dict[str, tuple[int, int]] = {}
        self._nodes: dict[str, list[viser.CameraFrustumHandle]] = {}
        for source in sources:
            count = len(source.cameras)
            shown = np.unique(np.linspace(0, count - 1, min(count, _MOST_FRUSTA)).round().astype(int)).tolist()
            if len(shown) < count:
                self.thinned[source.title] = (len(shown), count)
            for index in shown:
                self._add(server, source, index, on_chosen)
        if REJECTED_KIND in self._nodes:
            self.show(REJECTED_KIND, False)

    def _add(self, server: viser.ViserServer, source: CameraSource, index: int, on_chosen: OnChosen) -> None:
        cameras, status = source.cameras, camera_status(source, index)
        pose, intrinsics = cameras.camera_to_world[index], cameras.intrinsics[index]
        node = server.scene.add_camera_frustum(
            f"/cameras/{source.title}/{index}",
            fov=vertical_fov(intrinsics, cameras.image_size[0]),
            aspect=view_aspect(intrinsics, cameras.image_size),
            scale=_FRUSTUM_SCALE,
            thickness=_FRUSTUM_LINE,
            thickness_units="screen",
            color=status.color,
            wxyz=quaternion(pose[:3, :3]),
            position=pose[:3, 3].numpy(),
            cast_shadow=False,
            receive_shadow=False,
        )
        node.on_click(lambda event: on_chosen(source.title, index, event.client))
        self.kinds[status.kind] = status.color
        self._nodes.setdefault(status.kind, []).append(node)

    def show(self, kind: str, visible: bool) -> None:
        """Show or hide the cameras of one kind."""
        for node in self._nodes[kind]:
            node.visible = visible


def _rgb(color: str) -> tuple[int, int, int]:
    return tuple(int(color[k : k + 2], 16) for k in (1, 3, 5))

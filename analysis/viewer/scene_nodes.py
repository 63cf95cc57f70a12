"""The labelled mesh and the cameras as nodes of the browser's scene."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from analysis.plotting import ACCEPTED, REJECTED
from analysis.viewer.camera_math import view_shape
from analysis.viewer.legend import camera_sign
from analysis.viewer.scene_state import TRAJECTORY, CameraSource
from analysis.viewer.unlit_mesh import unlit_glb
from dataloader import Mesh
from utils.labels import label_set
from utils.rotations import matrix_to_quaternion

if TYPE_CHECKING:
    import viser

ACCEPTED_KIND, REJECTED_KIND = "accepted", "rejected"
_TRAJECTORY_COLOR = (37, 99, 235)
_MARK_COLOR = (234, 138, 0)
_FRUSTUM_SCALE = 0.05
_FRUSTUM_LINE = 1.5  # pixels
_FIRST_FRUSTA, _MOST_FRUSTA = 40, 400

OnClicked = Callable[[str, int], None]  # source title, camera


class ClassMesh:
    """The labelled mesh in exactly the label set's colours, one node a class, so that classes can be shown and hidden.

    Attributes:
        classes: indices of the classes that occur.
    """

    def __init__(self, server: viser.ViserServer, mesh: Mesh):
        from model.annotation import face_labels, vertex_labels

        labels = face_labels(vertex_labels(mesh.labels), mesh.faces)
        self.classes = labels.unique().tolist()
        self._parts = {index: _used_part(mesh, labels == index) for index in self.classes}
        self._opacity, self._visible, self._hidden = 1.0, False, set()
        self._nodes = {index: self._add(server, index) for index in self.classes}

    def _add(self, server: viser.ViserServer, index: int) -> viser.GlbHandle:
        name = f"/mesh/{label_set().names[index].replace(' ', '_')}"
        return server.scene.add_glb(name, self._glb(index), visible=False, cast_shadow=False, receive_shadow=False)

    def _glb(self, index: int) -> bytes:
        return unlit_glb(*self._parts[index], label_set().colors[index], self._opacity)

    def show(self, visible: bool, opacity: float = 1.0) -> None:
        """Show or hide all classes that are not hidden one by one; opacity 1 is solid."""
        if opacity != self._opacity:
            self._opacity = opacity
            for index, node in self._nodes.items():
                node.glb_data = self._glb(index)
        self._visible = visible
        for index, node in self._nodes.items():
            node.visible = visible and index not in self._hidden

    def hide_classes(self, hidden: Iterable[int]) -> None:
        """Which classes stay hidden when the mesh is shown."""
        self._hidden = set(hidden)
        self.show(self._visible, self._opacity)


def _used_part(mesh: Mesh, chosen: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Vertices float32 ``[n, 3]`` and faces ``[m, 3]`` of the chosen faces ``[F]`` alone."""
    used, faces = mesh.faces[chosen].long().unique(return_inverse=True)
    return mesh.vertices[used].numpy(), faces.numpy()


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
    """Cameras as clickable frusta, with a switch for each kind: all are off at first, and then show a few.

    Attributes:
        kinds: colour of each kind that occurs.
        drawn: kind -> (source, index) of the cameras that are drawn or can be.
        thinned: title -> (shown at first, all) of the sources that are not shown in full.
    """

    def __init__(self, server: viser.ViserServer, sources: Iterable[CameraSource], on_clicked: OnClicked):
        self.kinds: dict[str, tuple[int, int, int]] = {}
        self.drawn: dict[str, list[tuple[CameraSource, int]]] = {}
        self.thinned: dict[str, tuple[int, int]] = {}
        self._nodes: dict[str, list[tuple[viser.CameraFrustumHandle, bool]]] = {}
        self._visible: dict[str, bool] = {}
        self._more = False
        for source in sources:
            count = len(source.cameras)
            first = _evenly(count, _FIRST_FRUSTA)
            if len(first) < count:
                self.thinned[source.title] = (len(first), count)
            for index in sorted({*first, *_evenly(count, _MOST_FRUSTA)}):
                self._add(server, source, index, index in first, on_clicked)
        for kind in self.kinds:
            self.show(kind, False)

    def _add(
        self, server: viser.ViserServer, source: CameraSource, index: int, first: bool, on_clicked: OnClicked
    ) -> None:
        cameras, status = source.cameras, camera_status(source, index)
        pose, (fov, aspect) = cameras.camera_to_world[index], view_shape(cameras, index)
        node = server.scene.add_camera_frustum(
            f"/cameras/{source.title}/{index}",
            fov=fov,
            aspect=aspect,
            scale=_FRUSTUM_SCALE,
            thickness=_FRUSTUM_LINE,
            thickness_units="screen",
            color=status.color,
            wxyz=matrix_to_quaternion(pose[:3, :3]),
            position=pose[:3, 3].numpy(),
            cast_shadow=False,
            receive_shadow=False,
        )
        node.on_click(lambda _: on_clicked(source.title, index))
        self.kinds[status.kind] = status.color
        self.drawn.setdefault(status.kind, []).append((source, index))
        self._nodes.setdefault(status.kind, []).append((node, first))

    def show(self, kind: str, visible: bool) -> None:
        """Show or hide the cameras of one kind."""
        self._visible[kind] = visible
        for node, first in self._nodes[kind]:
            node.visible = visible and (first or self._more)

    def show_more(self, more: bool) -> None:
        """Whether those are shown, too, that are left out at first."""
        self._more = more
        for kind, visible in self._visible.items():
            self.show(kind, visible)


class CameraMark:
    """Highlights one camera, with a label beside it."""

    def __init__(self, server: viser.ViserServer):
        scene, off = server.scene, {"visible": False, "cast_shadow": False, "receive_shadow": False}
        self._sign = scene.add_label("/mark/sign", "", visible=False, anchor="bottom-center", font_screen_scale=1.3)
        self._frustum = scene.add_camera_frustum(
            "/mark/frustum", 1.0, 1.0, scale=_FRUSTUM_SCALE, thickness=3 * _FRUSTUM_LINE, thickness_units="screen",
            color=_MARK_COLOR, **off,
        )  # fmt: skip

    def put(self, source: CameraSource, index: int) -> None:
        """Mark a camera instead of the one before."""
        cameras, status = source.cameras, camera_status(source, index)
        pose = cameras.camera_to_world[index]
        self._sign.text = camera_sign(cameras.names[index], status.kind, cameras.info[index])
        self._frustum.fov, self._frustum.aspect = view_shape(cameras, index)
        self._frustum.wxyz = matrix_to_quaternion(pose[:3, :3])
        for node in (self._sign, self._frustum):
            node.position = pose[:3, 3].numpy()
            node.visible = True


def _evenly(count: int, most: int) -> list[int]:
    """Indices of at most ``most`` of ``count`` cameras."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _rgb(color: str) -> tuple[int, int, int]:
    return tuple(int(color[k : k + 2], 16) for k in (1, 3, 5))

"""A scene's field and its labelled mesh on one device: any camera's colour, SH, geometry and labels, at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dataloader.field_extent import field_extent
from dataloader.label_mesh import load_label_mesh
from dataloader.scene import Scene
from lib.plenoxel.options import RenderOptions
from model.annotation import LabelledSurface, vertex_labels
from model.compact_field import CompactField
from model.radiance_field import PlacedViews, RadianceField

_CELL_BYTES = 4 + 1 + 8 + 0.25  # of a voxel, empty or not: link, distance, and the table of cells
_VOXEL_BYTES = 4 * 28 + 32 + 1.6 * 64  # of an occupied one: values, packed row of bytes, and packed cells around it


class SceneCameras(NamedTuple):
    """Cameras of B views of one scene, on its device.

    placed: as its field renders them; world_to_camera: float64 ``[B, 4, 4]``; rays: of all pixels in the grid's frame,
    float32 ``[B, H, W, 3]`` each, or None to make them.
    """

    placed: PlacedViews
    world_to_camera: Tensor
    rays: tuple[Tensor, Tensor] | None = None


class AnnotatedViews(NamedTuple):
    """Views of a scene; what was not asked for is None.

    rgb ``[B, 3, H, W]``, 0..1; sh ``[B, 27, H, W]``; depth ``[B, H, W]``, the field's, as
    :class:`model.radiance_field.RenderedView` has it; alpha ``[B, H, W]``; label uint8 ``[B, H, W]``; surface
    ``[B, H, W]``, the mesh's depth along the optical axis in metres, 0 where nothing is hit.
    """

    rgb: Tensor
    sh: Tensor | None
    depth: Tensor | None
    alpha: Tensor | None
    label: Tensor
    surface: Tensor


@dataclass(frozen=True)
class AnnotatedField:
    """A field and the labelled mesh of the same scene, on one device.

    Attributes:
        field: renders.
        surface: annotates.
    """

    field: RadianceField
    surface: LabelledSurface

    @classmethod
    def load(cls, field: Path, scan: Scene, label_rule: str, device: torch.device) -> AnnotatedField:
        """Read both.

        Raises:
            UserError: one cannot be read.
        """
        mesh = load_label_mesh(scan)
        surface = LabelledSurface.of(mesh, vertex_labels(mesh.labels), label_rule, device)
        return cls(_ready(RadianceField.load(field, device).to(device)), surface)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.field_bytes + self.surface.nbytes

    @property
    def field_bytes(self) -> int:
        """Those of the field."""
        return sum(self.field.grid.memory().values())

    @torch.no_grad()
    def look(
        self,
        cameras: SceneCameras,
        size: tuple[int, int],
        options: RenderOptions,
        outputs: tuple[str, ...],
        near: float,
    ) -> AnnotatedViews:
        """Views of ``size`` (height, width), as 'render' and 'annotate' make them; the host does not wait for a GPU.

        Args:
            outputs: of the field: "rgb", and any of "sh", "depth" and "alpha".
            near: metres; surfaces of the mesh that are closer to the camera are invisible.
        """
        rendered = self.field.render_placed(cameras.placed, size, options, outputs, rays=cameras.rays)
        seen = self.surface.annotate(cameras.world_to_camera, cameras.placed.intrinsics, size, near)
        return AnnotatedViews(
            rendered.rgb.clamp(0, 1), rendered.sh, rendered.depth, rendered.alpha, seen.label, seen.depth
        )  # fmt: skip


@dataclass(frozen=True)
class CompactScene:
    """The same in few bytes, on the same device, to be unpacked when it is needed; see :mod:`model.compact_field`."""

    field: CompactField
    surface: LabelledSurface

    @classmethod
    def of(cls, scene: AnnotatedField) -> CompactScene | None:
        """Of a scene, with which it shares the mesh; None where the field cannot be told in few bytes."""
        compact = CompactField.of(scene.field)
        return None if compact is None else cls(compact, scene.surface)

    @property
    def nbytes(self) -> int:
        """Bytes on the device, those of the mesh included."""
        return self.field.nbytes + self.surface.nbytes

    def unpack(self) -> AnnotatedField:
        """The scene, which renders the same bits."""
        return AnnotatedField(_ready(self.field.unpack()), self.surface)


def _ready(field: RadianceField) -> RadianceField:
    """The field with all that rendering needs: made now, so that no view waits for it and its size is known."""
    if field.grid.device.type == "cuda":
        field.grid.handle.packed  # noqa: B018
    return field


def needed_bytes(field: Path, mesh: Path) -> int:
    """What an :class:`AnnotatedField` takes on a GPU, nearly, from the headers of its files.

    Args:
        field: the field's folder.
        mesh: its labelled mesh, which takes about as much in memory as in the file.

    Raises:
        UserError: there is no field.
    """
    extent = field_extent(field)
    return round(extent.cells * _CELL_BYTES + extent.voxels * _VOXEL_BYTES) + mesh.stat().st_size

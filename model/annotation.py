"""Annotation images of a labelled mesh: the class, depth and colour that each pixel shows.

A view's annotation is the mesh rasterized through that view's own camera, so it is aligned with the view's colour image
to the pixel at any size. Through a lens every pixel's own ray is traced. Labels are nominal: they are never
interpolated.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dataloader import CameraList, Mesh
from lib.raster import Fragments, RayTree, rasterize
from utils.cameras import rigid_inverse
from utils.labels import UNANNOTATED, ids_to_classes, label_set
from utils.lenses import Lens

logger = logging.getLogger(__name__)
LABEL_RULES = ("majority", "nearest_vertex")
VALUES = ("classes", "ids")
_PIXELS_PER_CHUNK = 2_000_000


class Annotation(NamedTuple):
    """Views of a labelled mesh."""

    label: Tensor  # [N, H, W]: uint8 class index, or int32 id or instance; 0 = unannotated or nothing hit
    depth: Tensor  # float32 [N, H, W]: metres along the optical axis, a fisheye lens's along the ray; 0 = nothing hit


class LabelCounts(NamedTuple):
    """Counts of vertices without a usable label."""

    vertices: int
    unlabelled: int  # id 0
    outside: dict[int, int]  # vertices per id that the label set does not list


def vertex_labels(
    ids: Tensor,  # [Nv] ids as stored
    values: str = "classes",
) -> Tensor:  # uint8 or int32 [Nv]
    """Class indices (``"classes"``, uint8) or ids (``"ids"``, int32); ids that the label set does not list become 0."""
    if values not in VALUES:
        raise ValueError(f"values {values!r} is unknown; use one of {', '.join(VALUES)}")
    known = torch.where(label_set().knows(ids), ids, UNANNOTATED).int()
    return ids_to_classes(known) if values == "classes" else known


def face_labels(
    labels: Tensor,  # [Nv]
    faces: Tensor,  # [F, 3]
) -> Tensor:  # [F], of the labels' dtype
    """The label that at least two of a face's vertices share; 0 where all three differ.

    A face with three labels has no majority, and the order of its vertices means nothing: it is left unannotated
    rather than given a label that may be wrong. The vote is on the labels given: map ids to classes *first*, or
    vertices of two ids that are one class (or none) are outvoted by a minority.
    """
    a, b, c = labels[faces.long()].unbind(1)
    return torch.where((a == b) | (a == c), a, torch.where(b == c, b, UNANNOTATED)).to(labels.dtype)


def count_labels(mesh: Mesh, scene: str) -> LabelCounts:
    """Count vertices that become unannotated for lack of a valid id, and log them under the scene's name."""
    ids, numbers = mesh.labels.unique(return_counts=True)
    by_id = dict(zip(ids.tolist(), numbers.tolist(), strict=True))
    outside = mesh.unknown_labels()
    counts = LabelCounts(len(mesh.labels), by_id.get(0, 0), outside)
    if counts.unlabelled:
        logger.info("%s: %d of %d vertices are unlabelled", scene, counts.unlabelled, counts.vertices)
    if outside:
        listed = ", ".join(f"{id} ({number} vertices)" for id, number in outside.items())
        logger.warning("%s: label ids that %s does not list count as unannotated: %s", scene, label_set().path.name,
                       listed)
    return counts


def annotate_views(
    mesh: Mesh,
    cameras: CameraList,
    label_rule: str = "majority",
    values: str = "classes",
    near: float = 0.01,
    device: torch.device | str = "cpu",
) -> Annotation:
    """Labels and depth of all views, at the cameras' image size.

    Args:
        mesh: with labels.
        values: ``"classes"`` for class indices, ``"ids"`` for the mesh's ids.
        cameras, label_rule, near, device: as of :func:`annotate_vertices`.

    Raises:
        ValueError: an unknown rule or kind of values, or a mesh without labels.
    """
    if mesh.labels is None:
        raise ValueError("the mesh has no labels")
    return annotate_vertices(mesh, vertex_labels(mesh.labels, values), cameras, label_rule, near, device)


def annotate_vertices(
    mesh: Mesh,
    labels: Tensor,  # [Nv], whole numbers, 0 for none
    cameras: CameraList,
    label_rule: str = "majority",
    near: float = 0.01,
    device: torch.device | str = "cpu",
) -> Annotation:
    """Images of what the vertices are labelled with, and depth, at the cameras' image size.

    Args:
        cameras: cameras to render.
        label_rule: ``"majority"`` gives a face one label, see :func:`face_labels` (the paper's rule);
            ``"nearest_vertex"`` gives a pixel the label of the vertex of its face that is nearest to the point it
            shows (sharper: borders between classes run through faces).
        near: metres; closer surfaces are invisible.
        device: where to compute and to return.

    Raises:
        ValueError: an unknown rule.
    """
    surface = LabelledSurface.of(mesh, labels, label_rule, device)
    world_to_camera, intrinsics = (
        values.to(device) for values in (rigid_inverse(cameras.camera_to_world), cameras.intrinsics)
    )
    tree = mesh.ray_tree(device) if cameras.lens is not None else None
    height, width = cameras.image_size
    step = max(1, _PIXELS_PER_CHUNK // (height * width))
    empty = torch.empty(0, height, width, device=device)
    parts = [Annotation(empty.to(labels.dtype), empty)]
    for start in range(0, len(cameras), step):
        chunk = slice(start, start + step)
        parts.append(surface.annotate(
            world_to_camera[chunk], intrinsics[chunk], cameras.image_size, near, cameras.lens, tree
        ))
    return Annotation(*(torch.cat(values) for values in zip(*parts, strict=True)))


@dataclass(frozen=True)
class LabelledSurface:
    """A mesh with labels on a device, ready to be looked at from anywhere.

    Attributes:
        vertices: float32 ``[Nv, 3]``, world.
        faces: int32 ``[F, 3]``, which name vertices of it.
        table: ``[F + 1]``, the label of each face, the last one for none; or, where a pixel has its nearest vertex's
            label, ``[Nv + 1]``, those of the vertices.
        label_rule: see :func:`annotate_vertices`.
    """

    vertices: Tensor
    faces: Tensor
    table: Tensor
    label_rule: str

    @classmethod
    def of(cls, mesh: Mesh, labels: Tensor, label_rule: str, device: torch.device | str) -> LabelledSurface:
        """Of a mesh that was read and a label ``[Nv]`` of each vertex; raises ValueError for an unknown rule."""
        if label_rule not in LABEL_RULES:
            raise ValueError(f"label_rule {label_rule!r} is unknown; use one of {', '.join(LABEL_RULES)}")
        table = face_labels(labels, mesh.faces) if label_rule == "majority" else labels
        table = torch.cat((table, table.new_full((1,), UNANNOTATED)))
        return cls(mesh.vertices.to(device), mesh.faces.to(device), table.to(device), label_rule)

    @property
    def nbytes(self) -> int:
        """Bytes on its device."""
        return self.vertices.nbytes + self.faces.nbytes + self.table.nbytes

    def annotate(
        self,
        world_to_camera: Tensor,  # [B, 4, 4]
        intrinsics: Tensor,  # [B, 3, 3], in pixels of the images
        size: tuple[int, int],
        near: float = 0.01,
        lens: Lens | None = None,
        tree: RayTree | None = None,
    ) -> Annotation:
        """All views at once; where pinholes are on the surface's device, the host does not wait for it.

        Args:
            lens: of all views; None for pinholes.
            tree: of the mesh, made once for many calls with a lens.
        """
        nearest = self.label_rule == "nearest_vertex"
        fragments = rasterize(
            self.vertices, self.faces, world_to_camera, intrinsics, *size, near, faces_checked=True,
            outputs=("face", "depth", "barycentric") if nearest else ("face", "depth"), lens=lens, tree=tree,
        )  # fmt: skip
        index = self._nearest_vertices(fragments) if nearest else fragments.face.long()
        return Annotation(self.table[index], fragments.depth)

    def _nearest_vertices(self, fragments: Fragments) -> Tensor:
        """The vertex of its face that is nearest to what each pixel shows, int64 ``[B, H, W]``; -1 for none."""
        corners = self.faces[fragments.face.clamp(min=0).long()].long()  # [B, H, W, 3]
        positions = self.vertices[corners]  # [B, H, W, 3 corners, xyz]
        points = (fragments.barycentric[..., None] * positions).sum(-2, keepdim=True)
        nearest = (positions - points).square().sum(-1).argmin(-1, keepdim=True)
        return torch.where(fragments.face < 0, -1, corners.gather(-1, nearest)[..., 0])

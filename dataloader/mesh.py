"""Triangle meshes with colours and labels, read from PLY files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloader.ply import PlyList, read_ply
from lib.raster import RayTree
from utils.errors import UserError, short
from utils.labels import label_set

_COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_LABELS = ("label", "scalar_label")  # the second as CloudCompare writes what it read as the first
_CORNERS = ("vertex_indices", "vertex_index")


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in world coordinates (metres).

    Attributes:
        vertices: float32 ``[Nv, 3]``.
        faces: int32 ``[F, 3]``, vertex indices.
        colors: uint8 ``[Nv, 3]`` or None.
        labels: int32 ``[Nv]``, ids as stored (a few ScanNet scenes hold ids that NYU40 does not have), or None.
    """

    vertices: Tensor
    faces: Tensor
    colors: Tensor | None = None
    labels: Tensor | None = None

    @cached_property
    def _ray_trees(self) -> dict[torch.device, RayTree]:
        return {}

    def ray_tree(self, device: torch.device | str = "cpu") -> RayTree:
        """The mesh made ready for rays on a device, once."""
        device = torch.device(device)
        if device not in self._ray_trees:
            self._ray_trees[device] = RayTree(self.vertices.to(device), self.faces.to(device))
        return self._ray_trees[device]

    def unknown_labels(self) -> dict[int, int]:
        """Vertices per label id that the label set's table does not list; they count as unannotated.

        -1 are also those whose label was no whole number.
        """
        if self.labels is None:
            return {}
        outside = ~label_set().knows(self.labels)
        ids, counts = self.labels[outside].unique(return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def load_mesh(path: str | Path, require_labels: bool = False) -> Mesh:
    """Read a PLY mesh of any encoding; polygons are split into triangle fans.

    Args:
        path: a ``.ply`` file.
        require_labels: refuse a mesh without a ``label`` per vertex.

    Raises:
        UserError: the file is absent, damaged or truncated, has no faces, indices out of range, or no labels
            though they are required.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a PLY mesh there (in ScanNet: <scene>_vh_clean_2.ply and "
                        "<scene>_vh_clean_2.labels.ply): download it or correct the path")
    elements = read_ply(path)
    vertex, face = elements.get("vertex", {}), elements.get("face", {})
    scalars = {name.lower(): values for name, values in vertex.items() if isinstance(values, np.ndarray)}
    found = ", ".join(scalars) or "nothing"
    if not {"x", "y", "z"} <= set(scalars):
        raise UserError(f"{path} has no x, y, z per vertex (found {found}); replace the file")
    label = next((scalars[name] for name in _LABELS if name in scalars), None)
    if require_labels and label is None:
        raise UserError(f"{path} has no 'label' per vertex (found {found}); annotation needs the labelled mesh, in "
                        "ScanNet <scene>_vh_clean_2.labels.ply")
    mesh = Mesh(
        vertices=_stack(scalars, ("x", "y", "z"), np.float32),
        faces=torch.from_numpy(_triangles(face, len(scalars["x"]), path)),
        colors=_colors(scalars),
        labels=None if label is None else torch.from_numpy(_within(label, np.int32, -1)),
    )
    _check(mesh, path)
    return mesh


def _stack(scalars: dict[str, np.ndarray], names: tuple[str, ...], dtype: type) -> Tensor:
    return torch.from_numpy(np.stack([scalars[name].astype(dtype) for name in names], axis=-1))


def _colors(scalars: dict[str, np.ndarray]) -> Tensor | None:
    """Colours uint8 ``[Nv, 3]`` from bytes, from 16 bits, or from floats in 0..1 or 0..255."""
    names = next((names for names in _COLORS if set(names) <= set(scalars)), None)
    if names is None:
        return None
    columns = np.stack([scalars[name] for name in names], axis=-1)
    if columns.dtype.kind == "f":
        columns = np.nan_to_num(columns.astype(np.float64), posinf=0, neginf=0)
        columns = np.rint(columns * 255 if columns.size and columns.max() <= 1 else columns)
    elif columns.dtype.itemsize == 2 and columns.size and columns.max() > 255:
        columns = np.rint(columns / 257)
    return torch.from_numpy(_within(columns, np.uint8, 0))


def _within(values: np.ndarray, dtype: type, otherwise: int) -> np.ndarray:
    """Whole numbers of ``dtype``; ``otherwise`` where it cannot hold a value, such as NaN or 1.5."""
    limits = np.iinfo(dtype)
    inside = (values >= limits.min) & (values <= limits.max)
    if values.dtype.kind == "f":
        inside &= values == np.floor(values)
    result = np.full(values.shape, otherwise, dtype)
    result[inside] = values[inside].astype(dtype)
    return result


def _triangles(face: dict[str, np.ndarray | PlyList], num_vertices: int, path: Path) -> np.ndarray:
    """Faces int32 ``[F, 3]`` of polygons, which become fans around their first corners."""
    if not face:
        return np.empty((0, 3), np.int32)
    corners = next((face[name] for name in _CORNERS if isinstance(face.get(name), PlyList)), None)
    if corners is None or corners.values.dtype.kind == "f":
        raise UserError(f"{path} has faces without a list of whole numbers {' or '.join(_CORNERS)} (found "
                        f"{', '.join(short(name) for name in list(face)[:8])}); replace the file")
    outside = (corners.values < 0) | (corners.values >= num_vertices)
    if outside.any():
        raise UserError(f"{path} has a face that names vertex {corners.values[outside][0]}, but there are "
                        f"{num_vertices} vertices; the file is damaged: replace it")
    indices = corners.values.astype(np.int32)
    if (corners.counts == 3).all():
        return indices.reshape(-1, 3)
    fans = np.maximum(corners.counts - 2, 0)
    first = np.repeat(np.cumsum(corners.counts) - corners.counts, fans)
    within = np.arange(len(first)) - np.repeat(np.cumsum(fans) - fans, fans)
    return indices[np.stack((first, first + within + 1, first + within + 2), axis=1)]


def _check(mesh: Mesh, path: Path) -> None:
    if len(mesh.faces) == 0 or len(mesh.vertices) == 0:
        raise UserError(f"{path} holds {len(mesh.vertices)} vertices and {len(mesh.faces)} faces; expected a "
                        "triangle mesh, not a point cloud or an empty file")
    if not np.isfinite(mesh.vertices.numpy()).all():
        raise UserError(f"{path} holds vertices that are not finite numbers; replace the file")

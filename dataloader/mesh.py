"""Triangle meshes with colours and labels, read from PLY files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.labels import LARGEST_NYU40_ID

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in world coordinates (metres).

    Attributes:
        vertices: float32 ``[Nv, 3]``.
        faces: int32 ``[F, 3]``, vertex indices.
        colors: uint8 ``[Nv, 3]`` or None.
        labels: int32 ``[Nv]``, NYU40 ids as stored (a few ScanNet scenes hold ids over 40), or None.
    """

    vertices: Tensor
    faces: Tensor
    colors: Tensor | None = None
    labels: Tensor | None = None

    def unknown_labels(self) -> dict[int, int]:
        """Vertices per label id outside NYU40 (over 40), which count as unannotated."""
        if self.labels is None:
            return {}
        ids, counts = self.labels[self.labels > LARGEST_NYU40_ID].unique(return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def load_mesh(path: str | Path, require_labels: bool = False) -> Mesh:
    """Read a PLY mesh: binary little-endian triangles through a memory map, anything else through plyfile.

    Polygons are split into triangle fans.

    Args:
        path: a ``.ply`` file.
        require_labels: refuse a mesh without a ``label`` per vertex.

    Raises:
        UserError: the file is absent, damaged or truncated, has no faces, indices out of range, or no labels
            though they are required.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a PLY mesh there (in ScanNet: <scene>_vh_clean_2.ply and "
                        "<scene>_vh_clean_2.labels.ply): download it or correct the path")
    vertex, faces = _read_triangles(path) or _read_any(path)
    names = vertex.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise UserError(f"{path} has no x, y, z per vertex (found {', '.join(names) or 'nothing'}); replace the file")
    if require_labels and "label" not in names:
        raise UserError(f"{path} has no 'label' per vertex (found {', '.join(names)}); annotation needs the labelled "
                        "mesh, in ScanNet <scene>_vh_clean_2.labels.ply")
    mesh = Mesh(
        vertices=_columns(vertex, ("x", "y", "z"), np.float32),
        faces=torch.from_numpy(faces),
        colors=_columns(vertex, ("red", "green", "blue"), np.uint8) if "red" in names else None,
        labels=torch.from_numpy(vertex["label"].astype(np.int32)) if "label" in names else None,
    )
    _check(mesh, path)
    return mesh


def _columns(vertex: np.ndarray, names: tuple[str, ...], dtype: type) -> Tensor:
    columns = np.empty((len(vertex), len(names)), dtype)
    for k, name in enumerate(names):
        columns[:, k] = vertex[name]
    return torch.from_numpy(columns)


def _check(mesh: Mesh, path: Path) -> None:
    if len(mesh.faces) == 0 or len(mesh.vertices) == 0:
        raise UserError(f"{path} holds {len(mesh.vertices)} vertices and {len(mesh.faces)} faces; expected a "
                        "triangle mesh, not a point cloud or an empty file")
    if not torch.isfinite(mesh.vertices).all():
        raise UserError(f"{path} holds vertices that are not finite numbers; replace the file")
    low, high = int(mesh.faces.min()), int(mesh.faces.max())
    if low < 0 or high >= len(mesh.vertices):
        raise UserError(f"{path} has a face that names vertex {low if low < 0 else high}, but there are "
                        f"{len(mesh.vertices)} vertices; the file is damaged: replace it")


def _read_triangles(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices (structured) and faces int32 ``[F, 3]`` of the usual layout, or None when the file has another.

    The usual layout: binary little-endian, scalar vertex properties, then faces of one list property that all
    have three corners.
    """
    with open(path, "rb") as file:
        layout = _parse_header(file)
        offset = file.tell()
    if layout is None:
        return None
    vertex_type, num_vertices, face_type, num_faces = layout
    face_start = offset + num_vertices * vertex_type.itemsize
    if path.stat().st_size < face_start + num_faces * face_type.itemsize:
        return None
    vertex = np.fromfile(path, vertex_type, num_vertices, offset=offset)
    face = np.memmap(path, face_type, "r", face_start, (num_faces,)) if num_faces else np.empty(0, face_type)
    if (face["count"] != 3).any():
        return None
    return vertex, face["corners"].astype(np.int32)


def _parse_header(file) -> tuple[np.dtype, int, np.dtype, int] | None:
    """Record types and counts of vertices and faces, or None when the layout is not the usual one."""
    if file.readline().strip() != b"ply" or file.readline().split() != [b"format", b"binary_little_endian", b"1.0"]:
        return None
    elements: list[tuple[str, int, list[list[str]]]] = []
    for _ in range(1000):
        words = file.readline().decode("ascii", "replace").split()
        if words[:1] == ["end_header"]:
            break
        if words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"] and elements:
            elements[-1][2].append(words[1:])
        elif words[:1] not in (["comment"], ["obj_info"]):
            return None
    else:
        return None
    if [name for name, _, _ in elements] != ["vertex", "face"]:
        return None
    vertex_properties, face_properties = elements[0][2], elements[1][2]
    if any(len(words) != 2 or words[0] not in _PLY_TYPES for words in vertex_properties):
        return None
    if len(face_properties) != 1 or len(face_properties[0]) != 4 or face_properties[0][0] != "list":
        return None
    _, count_type, corner_type, _ = face_properties[0]
    if not {count_type, corner_type} <= set(_PLY_TYPES):
        return None
    vertex_type = np.dtype([(name, "<" + _PLY_TYPES[kind]) for kind, name in vertex_properties])
    face_type = np.dtype([("count", "<" + _PLY_TYPES[count_type]), ("corners", "<" + _PLY_TYPES[corner_type], 3)])
    return vertex_type, elements[0][1], face_type, elements[1][1]


def _read_any(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangulated faces of any PLY file, slowly."""
    from plyfile import PlyData, PlyParseError

    try:
        ply = PlyData.read(str(path))
        vertex = ply["vertex"].data
        face = ply["face"] if "face" in ply else None
        lists = [] if face is None else face[_list_property(face)]
    except (PlyParseError, ValueError, KeyError, EOFError, OverflowError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a PLY mesh ({error}); the file is damaged or truncated: "
                        "replace it") from None
    fans = [(corners[0], corners[k], corners[k + 1]) for corners in lists for k in range(1, len(corners) - 1)]
    return np.asarray(vertex), np.array(fans, dtype=np.int32).reshape(-1, 3)


def _list_property(face) -> str:
    for name in ("vertex_indices", "vertex_index"):
        if name in face:
            return name
    raise ValueError("faces have no vertex_indices")

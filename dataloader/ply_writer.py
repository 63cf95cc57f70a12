"""Writing PLY files, binary little-endian; :mod:`dataloader.ply` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.files import atomic_path

_NAMES = {"f4": "float", "f8": "double", "i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int",
          "u4": "uint"}  # fmt: skip


def write_elements(
    path: str | Path,
    vertices: Mapping[str, np.ndarray],  # [N] each
    faces: np.ndarray | None = None,  # [F, 3]
) -> None:
    """Write vertices, and triangles where given, atomically; the same arrays give the same bytes.

    Args:
        path: the file.
        vertices: properties by name, in their order: ``x``, ``y``, ``z`` and whatever else, such as ``nx``, ``red``,
            ``label``. Each keeps its type: float32 or float64, or an integer of up to 32 bits.
        faces: indices of vertices.

    Raises:
        ValueError: the properties have different lengths, or a type that PLY does not have.
    """
    count = len(vertices["x"])
    types = {name: values.dtype.newbyteorder("<").str[1:] for name, values in vertices.items()}
    wrong = [name for name, values in vertices.items() if values.shape != (count,) or types[name] not in _NAMES]
    if wrong:
        raise ValueError(f"property {wrong[0]} is {vertices[wrong[0]].dtype} {list(vertices[wrong[0]].shape)}; "
                         f"expected [{count}] of a type that PLY has: {', '.join(_NAMES)}")
    rows = np.empty(count, dtype=[(name, f"<{kind}") for name, kind in types.items()])
    for name, values in vertices.items():
        rows[name] = values
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property {_NAMES[kind]} {name}" for name, kind in types.items()]
    triangles = np.empty(0 if faces is None else len(faces), dtype=[("count", "u1"), ("index", "<i4", 3)])
    if faces is not None:
        triangles["count"], triangles["index"] = 3, faces
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(("\n".join([*header, "end_header"]) + "\n").encode())
        rows.tofile(file)
        triangles.tofile(file)

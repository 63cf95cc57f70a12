"""How large a field is, from its files' headers: for planning what fits where."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from dataloader.nested_field import NESTED_FILE
from dataloader.perfception_checkpoint import checkpoint_path
from dataloader.perfception_config import find_value, read_config, resolution_of
from utils.arrays import read_npz
from utils.errors import reading

_ROW_BYTES = 27 + 4 + 8  # of a stored voxel: coefficients of one byte, density, number


class FieldExtent(NamedTuple):
    """cells: voxels of all grids, occupied or not; voxels: occupied ones, at most (as if stored with 8 bits)."""

    cells: int
    voxels: int


def field_extent(folder: Path) -> FieldExtent:
    """The extent of the field in a PeRFception scene folder, or of nested grids; values are not read.

    Raises:
        UserError: there is no field, or its resolution is not known.
    """
    nested = folder / NESTED_FILE
    if nested.is_file():
        what = "a field of nested grids"
        with reading(nested, what, "fit the scene again"):
            cells = math.prod(int(size) for size in read_npz(nested, what, ("size",))["size"])
        return FieldExtent(cells, nested.stat().st_size // _ROW_BYTES)
    path = checkpoint_path(folder)
    config = read_config(folder)
    listed = find_value(config, "reso", find_value(config, "reso_list"))
    last = len(listed) - 1 if isinstance(listed, list | tuple) else 0
    return FieldExtent(math.prod(resolution_of(config, last, folder)), path.stat().st_size // _ROW_BYTES)

"""Tables of label sets in plain Python, so that Blender's interpreter can read them too.

A table is a text file of tab-separated columns, ``configs/labels/*.tsv``::

    # ids: nyu40
    id	name	color	class	tail
    5	chair	#bcbd22
    6	sofa	#8c564b	chair
    34	sink	#708090		1
    13	blinds	#b24c4c	-

``class`` names the row whose class the network learns for this id: left empty it is the row's own, ``-`` is
unannotated. ``tail`` numbers the classes of ``sample.classes = 'paper'`` in their order. Id 0, and all that are not
listed, are unannotated. ``ids`` says which numbers these are: ``nyu40`` (of ``*.labels.ply``), ``scannet`` (raw
categories), or ``names``: the table's own, and objects are known by the names of their categories.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

NAMES = "names"
ID_SYSTEMS = ("nyu40", "scannet", NAMES)
LARGEST_ID = 65535  # that a labelled mesh and a 16-bit image hold
MOST_CLASSES = 255  # beside unannotated, that a label image of 8 bits holds
DEFAULT_TABLE = "scannet20.tsv"
UNANNOTATED_NAME = "unannotated"
_COLUMNS = ("id", "name", "color", "class", "tail")
_NEEDED = 3
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class LabelRow:
    """One line of a table; ``trained_as`` is the name of its class, None for unannotated."""

    id: int
    name: str
    color: tuple[int, int, int]
    trained_as: str | None
    tail: int  # 0: not of the tail


def read_table(path: Path) -> tuple[str, list[LabelRow]]:
    """Which ids a table is of, and its rows in their order.

    Raises:
        ValueError: the file is no such table; says which line and why.
    """
    ids, header, rows = "", None, []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.startswith("#"):
            ids = line[1:].partition("ids:")[2].strip() or ids if line[1:].lstrip().startswith("ids:") else ids
        elif line.strip():
            cells = [cell.strip() for cell in line.split("\t")]
            if header is None:
                header = tuple(cells)
                if header != _COLUMNS[: max(_NEEDED, len(header))]:
                    raise ValueError(f"line {number} is {line!r}; expected {', '.join(_COLUMNS)}, separated by tabs")
            else:
                rows.append(_row(cells, number, len(header)))
    if ids not in ID_SYSTEMS:
        raise ValueError(f"it says 'ids: {ids}'; expected a line '# ids: ' with one of "
                         f"{', '.join(ID_SYSTEMS)}")
    _check(rows)
    return ids, rows


def default_table() -> Path:
    """ScanNet's benchmark: beside this file in the Blender extension, else in the project's configs."""
    beside = Path(__file__).resolve().with_name(DEFAULT_TABLE)
    return beside if beside.exists() else beside.parents[1] / "configs" / "labels" / beside.name


def _row(cells: list[str], number: int, columns: int) -> LabelRow:
    if not _NEEDED <= len(cells) <= columns:
        raise ValueError(f"line {number} has {len(cells)} columns; expected {_NEEDED} to {columns}, separated by tabs")
    text, name, color, trained_as, tail = (cells + ["", ""])[: len(_COLUMNS)]
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= LARGEST_ID):
        raise ValueError(f"line {number} has the id {text!r}; expected a whole number from 1 to {LARGEST_ID}")
    if not name or name in (UNANNOTATED_NAME, "-") or not name.isprintable():
        raise ValueError(f"line {number} has the name {name!r}; expected another one")
    if not _COLOR.fullmatch(color):
        raise ValueError(f"line {number} has the colour {color!r}; expected one like #1f77b4")
    if tail and not (tail.isascii() and tail.isdecimal()):
        raise ValueError(f"line {number} has {tail!r} in the column 'tail'; expected a whole number or nothing")
    rgb = int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    return LabelRow(int(text), name, rgb, None if trained_as == "-" else trained_as or name, int(tail or 0))


def _check(rows: list[LabelRow]) -> None:
    for what in ("id", "name"):
        values = [getattr(row, what) for row in rows]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"the {what} {twice!r} stands in two lines")
    classes = {row.name for row in rows if row.trained_as == row.name}
    for row in rows:
        if row.trained_as is not None and row.trained_as not in classes:
            raise ValueError(f"{row.name!r} is trained as {row.trained_as!r}, which is no class of its own")
    if not 0 < len(classes) <= MOST_CLASSES:
        raise ValueError(f"it has {len(classes)} classes; expected 1 to {MOST_CLASSES}")

"""Colours of a scan's vertices by a table of labels, in NumPy alone.

A table of NYU40's ids colours the labelled mesh. For ScanNet's raw categories and for names, the annotated objects are
read (``SCENE.aggregation.json``, ``SCENE_vh_clean_2.0.010000.segs.json``), as ``dataloader/label_mesh.py`` does.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from utils.label_table import LARGEST_ID, NAMES, LabelRow, default_table, read_table

NYU40 = "nyu40"
_CATEGORIES = "scannetv2-labels.combined.tsv"


def find_table(name: str | Path) -> Path:
    """A table by its path, or one of the project's by its name, such as ``nyu40.tsv``; raises ``ValueError``."""
    for path in (Path(name), default_table().with_name(Path(name).name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.name for path in default_table().parent.glob("*.tsv")))
    raise ValueError(f"{name} does not exist; expected a table of labels: {known}, or your own")


def load_table(path: Path) -> tuple[str, list[LabelRow]]:
    """Which ids a table is of, and its rows; raises ``ValueError`` with the file's name."""
    try:
        return read_table(path)
    except ValueError as error:
        raise ValueError(f"{path} is no table of labels: {error}") from None


def class_colors(
    rows: list[LabelRow],
    ids: np.ndarray,  # whole numbers [Nv]
) -> np.ndarray:  # float32 [Nv, 4]
    """RGBA 0..1 of each id's class; black where it has none."""
    of_class = {row.name: row.color for row in rows if row.trained_as == row.name}
    table = np.zeros((LARGEST_ID + 1, 4), dtype=np.float32)
    table[:, 3] = 1.0
    for row in rows:
        if row.trained_as is not None:
            table[row.id, :3] = np.array(of_class[row.trained_as]) / 255.0
    return table[ids]


def object_ids(
    scene: Path, system: str, rows: list[LabelRow], vertices: int
) -> np.ndarray:  # int64 [Nv]
    """The id of each vertex's object; 0 where there is none, or the table does not list it.

    Raises:
        FileNotFoundError, ValueError: a file is absent, or of another mesh.
    """
    segments = np.array(_read(scene / f"{scene.name}_vh_clean_2.0.010000.segs.json")["segIndices"])
    if segments.shape != (vertices,):
        raise ValueError(f"{scene.name}_vh_clean_2.0.010000.segs.json has {len(segments)} segments; the mesh has "
                         f"{vertices} vertices: they belong to different scans")
    known = {row.name: row.id for row in rows} if system == NAMES else _categories(scene)
    numbers, segment = np.unique(segments, return_inverse=True)
    sizes, of_segment = np.bincount(segment.ravel()), np.zeros(len(numbers), dtype=np.int64)
    parts = [(known.get(str(group["label"]).strip()), np.flatnonzero(np.isin(numbers, group["segments"])))
             for group in _read(scene / f"{scene.name}.aggregation.json")["segGroups"]]  # fmt: skip
    for number, part in sorted(parts, key=lambda entry: -sizes[entry[1]].sum()):
        if number is not None:
            of_segment[part] = number
    return of_segment[segment.ravel()]


def _categories(scene: Path) -> dict[str, int]:
    folders = (scene, *scene.absolute().parents[:2])
    path = next((folder / _CATEGORIES for folder in folders if (folder / _CATEGORIES).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{_CATEGORIES} is not in {scene} or one of the two folders above; it has the ids of "
                                "ScanNet's raw categories: download it from ScanNet")
    with open(path, encoding="utf-8", newline="") as file:
        return {row["raw_category"].strip(): int(row["id"]) for row in csv.DictReader(file, delimiter="\t")}


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a scan's objects stand there: download it")
    return json.loads(path.read_text(encoding="utf-8"))

"""The label set in use: names, ids, colours of its classes, and the mapping from a mesh's ids to them.

The network's class index is 0 for unannotated pixels and 1.. for the classes in their table's order. A set is a table
under ``configs/labels`` or of one's own (:mod:`utils.label_table` has the format); ``label_set.table`` chooses it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin
import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError, reading
from utils.identity import value_identity
from utils.label_table import LARGEST_ID, UNANNOTATED_NAME, default_table, read_table
from utils.paths import find_config

UNANNOTATED = 0


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Classes, and the ids that a labelled mesh has for them.

    Attributes:
        path: of the table.
        id_system: which numbers the ids are, one of :data:`utils.label_table.ID_SYSTEMS`.
        names: of the classes by class index; the first is unannotated.
        ids: by class index, the one that stands for the class; 0 for unannotated.
        colors: uint8 ``[num_classes, 3]``.
        tail: class indices of the classes that the table numbers as rare, in that order.
        known_ids: all ids of the table by name, those that are unannotated included.
        class_of_id: uint8 ``[65536]``, class index of every id.
    """

    path: Path
    id_system: str
    names: tuple[str, ...]
    ids: tuple[int, ...]
    colors: np.ndarray
    tail: tuple[int, ...]
    known_ids: dict[str, int]
    class_of_id: np.ndarray

    @property
    def num_classes(self) -> int:
        """Class indices, unannotated included."""
        return len(self.names)

    def knows(self, ids: Tensor) -> Tensor:
        """Whether the table lists ids, or they are 0: bool, same shape."""
        listed = torch.tensor([UNANNOTATED, *self.known_ids.values()], device=ids.device, dtype=ids.dtype)
        return torch.isin(ids, listed)


@gin.configurable
def label_set(table: str = "configs/labels/scannet20.tsv") -> LabelSet:
    """The label set in use.

    Args:
        table: the classes: a table of configs/labels (scannet20.tsv, nyu40.tsv, scannet200.tsv, scannetpp100.tsv), or
            one's own.

    Raises:
        UserError: the table is absent or not one.
    """
    path = find_config(table)
    if path is None:
        raise UserError(f"label_set.table = {table!r} does not exist; expected one of configs/labels, or your own")
    return read_label_set(path)


def benchmark_set() -> LabelSet:
    """ScanNet's benchmark: that of stores and networks which do not say what their classes are."""
    return read_label_set(default_table())


def nyu40_set() -> LabelSet:
    """All classes of NYU40."""
    return read_label_set(default_table().with_name("nyu40.tsv"))


@functools.cache
def read_label_set(path: Path) -> LabelSet:
    """The label set of a table.

    Raises:
        UserError: it is not one.
    """
    with reading(path, "a table of labels", "correct it; configs/labels/scannet20.tsv is an example"):
        id_system, rows = read_table(path)
    classes = [row for row in rows if row.trained_as == row.name]
    names = (UNANNOTATED_NAME, *(row.name for row in classes))
    class_of_id = np.zeros(LARGEST_ID + 1, dtype=np.uint8)
    for row in rows:
        class_of_id[row.id] = UNANNOTATED if row.trained_as is None else names.index(row.trained_as)
    return LabelSet(
        path=path,
        id_system=id_system,
        names=names,
        ids=(UNANNOTATED, *(row.id for row in classes)),
        colors=np.array([(0, 0, 0), *(row.color for row in classes)], dtype=np.uint8),
        tail=tuple(names.index(row.name) for row in sorted(classes, key=lambda row: row.tail) if row.tail),
        known_ids={row.name: row.id for row in rows},
        class_of_id=class_of_id,
    )


def label_settings() -> dict[str, Any]:
    """What is put beside the settings of what a label set determines; nothing for ScanNet's benchmark."""
    chosen = label_set()
    if chosen.names == benchmark_set().names and np.array_equal(chosen.class_of_id, benchmark_set().class_of_id):
        return {}
    mapping = {str(id): int(chosen.class_of_id[id]) for id in sorted(chosen.known_ids.values())}
    return {"classes": list(chosen.names), "ids": [chosen.id_system, value_identity(mapping)]}


def has_label_set(settings: Mapping[str, Any]) -> bool:
    """Whether what was made with ``settings``, where :func:`label_settings` was put, holds the label set's classes."""
    return {name: settings[name] for name in ("classes", "ids") if name in settings} == label_settings()


def class_index(name: str) -> int:
    """Class index of a class name; raises ``ValueError`` that lists the known names."""
    names = label_set().names
    if name not in names:
        raise ValueError(f"unknown class {name!r}; the classes are {', '.join(names[1:])}")
    return names.index(name)


def ids_to_classes(ids: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Class index (uint8) of ids 0..65535, same shape; ids that are no class become 0."""
    table = label_set().class_of_id
    if isinstance(ids, Tensor):
        return torch.from_numpy(table).to(ids.device)[ids.long()]
    return table[np.asarray(ids).astype(np.int64)]


def colorize(labels: np.ndarray | Tensor) -> Tensor:
    """Colour images uint8 ``[..., 3, H, W]`` of class indices ``[..., H, W]`` in the label set's colours."""
    indices = torch.as_tensor(labels).long()
    return torch.from_numpy(label_set().colors).to(indices.device)[indices].movedim(-1, -3)

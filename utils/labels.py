"""ScanNet's 20 benchmark classes: names, NYU40 ids, colours, and the mapping between id systems.

The network's class index is 0 for unannotated pixels and 1..20 for the benchmark classes in the benchmark's order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from utils.label_table import LABEL_TABLE

UNANNOTATED = 0
LARGEST_NYU40_ID = 40
NUM_CLASSES = len(LABEL_TABLE)
CLASS_NAMES: tuple[str, ...] = tuple(row[0] for row in LABEL_TABLE)
NYU40_IDS: tuple[int, ...] = tuple(row[1] for row in LABEL_TABLE)
CLASS_COLORS: np.ndarray = np.array([row[2] for row in LABEL_TABLE], dtype=np.uint8)
_TAIL_NYU40_IDS = (36, 34, 11, 28, 33, 12, 24, 16)
TAIL_CLASSES: tuple[int, ...] = tuple(NYU40_IDS.index(nyu40_id) for nyu40_id in _TAIL_NYU40_IDS)

_CLASS_OF_NYU40 = np.zeros(65536, dtype=np.uint8)
_CLASS_OF_NYU40[list(NYU40_IDS)] = np.arange(NUM_CLASSES, dtype=np.uint8)


def class_index(name: str) -> int:
    """Class index of a class name; raises ``ValueError`` that lists the known names."""
    if name not in CLASS_NAMES:
        raise ValueError(f"unknown class {name!r}; the classes are {', '.join(CLASS_NAMES[1:])}")
    return CLASS_NAMES.index(name)


def nyu40_to_class(ids: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Class index (uint8) of NYU40 ids 0..65535, same shape; ids outside the benchmark become 0."""
    if isinstance(ids, Tensor):
        return torch.from_numpy(_CLASS_OF_NYU40).to(ids.device)[ids.long()]
    return _CLASS_OF_NYU40[np.asarray(ids).astype(np.int64)]


def colorize(labels: np.ndarray | Tensor) -> Tensor:
    """Colour images uint8 ``[..., 3, H, W]`` of class indices ``[..., H, W]`` in ScanNet's colours."""
    indices = torch.as_tensor(labels).long()
    return torch.from_numpy(CLASS_COLORS).to(indices.device)[indices].movedim(-1, -3)

"""ScanNet's 20 benchmark classes: names, NYU40 ids, colours, and the mapping between id systems.

The network's class index is 0 for unannotated pixels and 1..20 for the benchmark classes in the benchmark's order.
Source: the ScanNet benchmark's label table (Dai et al., CVPR 2017).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_TABLE = (  # name, NYU40 id, colour
    ("unannotated", 0, (0, 0, 0)),
    ("wall", 1, (174, 199, 232)),
    ("floor", 2, (152, 223, 138)),
    ("cabinet", 3, (31, 119, 180)),
    ("bed", 4, (255, 187, 120)),
    ("chair", 5, (188, 189, 34)),
    ("sofa", 6, (140, 86, 75)),
    ("table", 7, (255, 152, 150)),
    ("door", 8, (214, 39, 40)),
    ("window", 9, (197, 176, 213)),
    ("bookshelf", 10, (148, 103, 189)),
    ("picture", 11, (196, 156, 148)),
    ("counter", 12, (23, 190, 207)),
    ("desk", 14, (247, 182, 210)),
    ("curtain", 16, (219, 219, 141)),
    ("refrigerator", 24, (255, 127, 14)),
    ("shower curtain", 28, (158, 218, 229)),
    ("toilet", 33, (44, 160, 44)),
    ("sink", 34, (112, 128, 144)),
    ("bathtub", 36, (227, 119, 194)),
    ("otherfurniture", 39, (82, 84, 163)),
)

UNANNOTATED = 0
NUM_CLASSES = len(_TABLE)
CLASS_NAMES: tuple[str, ...] = tuple(row[0] for row in _TABLE)
NYU40_IDS: tuple[int, ...] = tuple(row[1] for row in _TABLE)
CLASS_COLORS: np.ndarray = np.array([row[2] for row in _TABLE], dtype=np.uint8)
_TAIL_NYU40_IDS = (36, 34, 11, 28, 33, 12, 24, 16)
TAIL_CLASSES: tuple[int, ...] = tuple(NYU40_IDS.index(nyu40_id) for nyu40_id in _TAIL_NYU40_IDS)

_CLASS_OF_NYU40 = np.zeros(65536, dtype=np.uint8)
_CLASS_OF_NYU40[list(NYU40_IDS)] = np.arange(NUM_CLASSES, dtype=np.uint8)
_NYU40_OF_CLASS = np.array(NYU40_IDS, dtype=np.uint8)


def class_index(name: str) -> int:
    """Class index of a class name; raises ``ValueError`` that lists the known names."""
    if name not in CLASS_NAMES:
        raise ValueError(f"unknown class {name!r}; the classes are {', '.join(CLASS_NAMES[1:])}")
    return CLASS_NAMES.index(name)


def _look_up(table: np.ndarray, ids: np.ndarray | Tensor) -> np.ndarray | Tensor:
    if isinstance(ids, Tensor):
        return torch.from_numpy(table).to(ids.device)[ids.long()]
    return table[np.asarray(ids).astype(np.int64)]


def nyu40_to_class(ids: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Class index (uint8) of NYU40 ids 0..65535, same shape; ids outside the benchmark become 0."""
    return _look_up(_CLASS_OF_NYU40, ids)


def class_to_nyu40(classes: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """NYU40 id (uint8) of class indices 0..20, same shape."""
    return _look_up(_NYU40_OF_CLASS, classes)


def colorize(labels: np.ndarray | Tensor) -> Tensor:
    """Colour images uint8 ``[..., 3, H, W]`` of class indices ``[..., H, W]`` in ScanNet's colours."""
    indices = torch.as_tensor(labels).long()
    return torch.from_numpy(CLASS_COLORS).to(indices.device)[indices].movedim(-1, -3)

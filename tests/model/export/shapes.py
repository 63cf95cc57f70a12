"""Fields of known shape: a ball and a box, alone and nested."""

import math

import numpy as np
import torch

from model import PlenoxelGrid
from model.export.sampling import normalized_centers
from model.nested_grids import nest_grids, shell_mask

OPAQUE = 1e4
DEGREE_0 = 0.5 / math.sqrt(math.pi)


def field_of(inside, resolution, levels=1, radius=(1.0, 1.0, 1.0), color=lambda points: torch.full((3,), 0.5)):
    """A field whose voxels are those with their middle where ``inside(points)`` holds, of one view-independent colour.

    ``points`` are -1..1 of the outermost grid.
    """
    grids = []
    for level in range(levels):
        mask = torch.ones((resolution,) * 3, dtype=torch.bool) if level == 0 else shell_mask(resolution)
        whole = PlenoxelGrid.from_mask(mask, torch.zeros(int(mask.sum())), torch.zeros(int(mask.sum()), 27),
                                       radius=radius)  # fmt: skip
        points = normalized_centers(whole) * 0.5 ** (levels - 1 - level)
        keep = inside(points)
        sh = torch.zeros(int(keep.sum()), 27)
        sh[:, ::9] = (color(points[keep]).float() - 0.5) / DEGREE_0
        grids.append(whole.select(keep).replace(density=torch.full((len(sh),), OPAQUE), sh=sh))
    return nest_grids(grids)


def ball(radius, center=(0.0, 0.0, 0.0)):
    return lambda points: (points - torch.tensor(center).to(points)).norm(dim=-1) < radius


def box(low, high):
    return lambda points: ((points > torch.tensor(low)) & (points < torch.tensor(high))).all(-1)


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Signed volume: positive where faces are counter-clockwise seen from outside."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def open_edges(faces: np.ndarray) -> int:
    """Directed edges without exactly one opposite one: 0 of a closed, consistently oriented surface."""
    edges = np.concatenate((faces[:, :2], faces[:, 1:], faces[:, ::2][:, ::-1]))
    key = edges[:, 0] * (faces.max() + 1) + edges[:, 1]
    opposite = edges[:, 1] * (faces.max() + 1) + edges[:, 0]
    there, count = np.unique(key, return_counts=True)
    return int((count > 1).sum() + (~np.isin(opposite, there)).sum())

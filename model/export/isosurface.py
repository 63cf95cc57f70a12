"""The surface at which a field becomes opaque, by marching cubes in bricks.

Marching cubes (Lorensen and Cline, 1987; cases as in Lewiner et al., 2003, which leave no holes) are scikit-image's.
The lattice is that of the voxels' middles, of the grid with the smallest voxels where grids are nested: so the surface
is closed from grid to grid. Only bricks that hold something opaque are sampled, so memory follows the surface, not the
volume. Vertices that two bricks share lie on the same edge of the lattice, by whose number they become one.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np
import torch

from model.export.sampling import FieldSampler, normalized_centers, voxel_opacity
from model.grid import PlenoxelGrid
from utils.errors import UserError
from utils.progress import progress

_BRICK = 32  # cells along an edge
_LEAST = 1e-4  # opacity this close to the level is moved away, so that no vertex lies on a corner of the lattice
_ON_LATTICE = 2e-5  # coordinates of vertices are float32 below 33


class Surface(NamedTuple):
    """Triangles, counter-clockwise seen from where it is empty.

    vertices: float64 ``[N, 3]``, -1..1 along each axis of the (outermost) grid; faces: int64 ``[F, 3]``.
    """

    vertices: np.ndarray
    faces: np.ndarray


def require_scikit_image() -> None:
    """Raise :class:`UserError` that says how to install what is missing."""
    if importlib.util.find_spec("skimage") is None:
        raise UserError("a mesh needs scikit-image (marching cubes), which is not installed; install it: "
                        "pip install scikit-image")


def extract_surface(grid: PlenoxelGrid, level: float, voxels_of: int = 0) -> Surface:
    """The surface at which the opacity of voxels, interpolated between their middles, is ``level``.

    Args:
        grid: the field.
        level: 0 to 1, exclusive.
        voxels_of: which of nested grids' voxels are the lattice, 0 being the smallest.

    Returns:
        a closed surface; without faces where nothing is that opaque.

    Raises:
        UserError: scikit-image is missing, or there is no such grid.
    """
    require_scikit_image()
    if not 0 <= voxels_of < grid.levels:
        raise UserError(f"MeshOptions.voxels_of = {voxels_of}: the field has {grid.levels} nested grids; use 0 to "
                        f"{grid.levels - 1}")
    size = np.array(grid.resolution, np.int64) << (grid.levels - 1 - voxels_of)
    sampler = FieldSampler(grid)
    parts, count = [], 0
    for brick in progress(_opaque_bricks(grid, level, size, voxels_of), "marching cubes", unit="brick"):
        part = _march(_brick_values(sampler, brick * _BRICK, size, level))
        if part is not None:
            vertices, faces = part
            parts.append((vertices + brick * _BRICK, faces + count))
            count += len(vertices)
    if not parts:
        return Surface(np.empty((0, 3)), np.empty((0, 3), np.int64))
    vertices, faces = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    vertices, faces = _weld(vertices, faces)
    return Surface((vertices - 0.5) * 2 / size - 1, faces)


def _opaque_bricks(grid: PlenoxelGrid, level: float, size: np.ndarray, voxels_of: int) -> np.ndarray:
    """Places ``[B, 3]`` of the bricks that a voxel of at least that opacity reaches, in order.

    The lattice has a layer of empty points around the grid: voxel i is its point i + 1.
    """
    rows = (voxel_opacity(grid) >= level).nonzero()[:, 0]
    scale = torch.from_numpy(size).to(grid.device)
    voxels = (normalized_centers(grid, rows) + 1) / 2 * scale + 0.5  # in the lattice's numbers
    own = grid.links_idx[rows] // (grid.resolution[0] * grid.resolution[1] * grid.resolution[2])
    reach = (2.0 ** (own - voxels_of)).clamp(min=1)[:, None] + 0.01
    first = ((voxels - reach - 1) / _BRICK).floor().long().clamp(min=0)
    last = ((voxels + reach) / _BRICK).floor().long()
    found = []
    steps = int((last - first).max()) + 1 if len(rows) else 0
    for offset in np.ndindex(steps, steps, steps):
        brick = first + torch.tensor(offset, device=grid.device)
        found.append(brick[(brick <= last).all(-1)].unique(dim=0))
    return torch.cat(found).unique(dim=0).cpu().numpy() if found else np.empty((0, 3), np.int64)


def _brick_values(sampler: FieldSampler, first: np.ndarray, size: np.ndarray, level: float) -> np.ndarray:
    """Opacity minus level, float32 ``[33, 33, 33]``, at the lattice's points from ``first`` on."""
    axes = [torch.from_numpy((np.arange(start, start + _BRICK + 1) - 0.5) * 2 / count - 1)
            for start, count in zip(first, size, strict=True)]  # fmt: skip
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3).to(sampler.device)
    values = sampler.amount(points) - level
    values = torch.where(values >= 0, values.clamp(min=_LEAST), values.clamp(max=-_LEAST))
    return values.reshape((_BRICK + 1,) * 3).cpu().numpy()


def _march(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices, float64, and faces of one brick; None where all is on one side."""
    from skimage.measure import marching_cubes

    if values.min() > 0 or values.max() < 0:
        return None
    vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="ascent", method="lewiner")
    return vertices.astype(np.float64), faces.astype(np.int64)


def _weld(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One vertex where several lie on one edge of the lattice (or within one cell), and no face without area."""
    nearest = np.rint(vertices)
    on_lattice = np.abs(vertices - nearest) < _ON_LATTICE
    doubled = np.where(on_lattice, 2 * nearest, 2 * np.floor(vertices) + 1).astype(np.int64)
    sides = doubled.max(axis=0) + 1
    number = (doubled[:, 0] * sides[1] + doubled[:, 1]) * sides[2] + doubled[:, 2]
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[faces]
    a, b, c = faces.T
    return vertices[first], faces[(a != b) & (b != c) & (c != a)]


def drop_specks(surface: Surface, least_faces: int) -> tuple[Surface, int]:
    """The surface without connected parts of fewer faces than ``least_faces``, and how many parts these were."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    vertices, faces = surface
    if not len(faces):
        return surface, 0
    edges = np.concatenate((faces[:, :2], faces[:, 1:]))
    graph = coo_matrix((np.ones(len(edges), np.bool_), (edges[:, 0], edges[:, 1])), shape=(len(vertices),) * 2)
    parts, part = connected_components(graph, directed=False)
    kept = np.bincount(part[faces[:, 0]], minlength=parts) >= least_faces
    return compacted(vertices, faces[kept[part[faces[:, 0]]]]), int(parts - kept.sum())


def compacted(vertices: np.ndarray, faces: np.ndarray) -> Surface:
    """Only the vertices that a face has."""
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    return Surface(vertices[used], (np.cumsum(used) - 1)[faces])


def vertex_normals(
    vertices: np.ndarray,  # float [N, 3]
    faces: np.ndarray,  # [F, 3]
) -> np.ndarray:  # float32 [N, 3]
    """Unit normals of vertices: the mean of their faces', by area; 0 for a vertex without one."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    columns = [sum(np.bincount(faces[:, corner], normals[:, axis], len(vertices)) for corner in range(3))
               for axis in range(3)]  # fmt: skip
    total = np.stack(columns, axis=1)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, length, out=np.zeros_like(total), where=length > 0).astype(np.float32)

"""A field's surface and its visible voxels as PLY files in the scene's world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader import SparsePoints
from dataloader.ply_writer import write_elements
from model.export.colors import SeenVoxels, color_bytes
from model.export.isosurface import Surface, compacted, drop_specks, extract_surface, vertex_normals
from model.export.options import MeshOptions, PointOptions
from model.export.sampling import FieldSampler, from_normalized, normalized_centers, voxel_opacity
from model.grid import PlenoxelGrid
from model.radiance_field import RadianceField
from model.semantic_field import SemanticField, class_of, classes_at
from utils.errors import UserError
from utils.labels import label_set

_ROWS_AT_ONCE = 1 << 20


def write_mesh(
    path: Path, field: RadianceField, options: MeshOptions, colors: Tensor, seen: SeenVoxels | None = None,
    semantic: SemanticField | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the surface with normals, colours and, where given, classes; returns its figures.

    Args:
        path: of the PLY file.
        seen: what recorded cameras see, which ``options.weight`` above 0 needs.
        colors: float32 ``[V, 3]`` of the voxels.
        semantic: the colours are those of the fused classes instead, and ``label`` holds their ids.

    Raises:
        UserError: scikit-image is missing, the field is nowhere that opaque, or all parts are specks.
    """
    grid = field.grid
    surface = extract_surface(grid, options.opacity, options.voxels_of)
    if not len(surface.faces):
        raise UserError(f"the field has no surface: its most opaque voxel has opacity "
                        f"{float(voxel_opacity(grid).max()):.3g}, and MeshOptions.opacity is {options.opacity}; lower "
                        "it, or fit the scene for longer")
    if options.weight > 0:
        surface = _visible_part(grid, surface, seen.weight, options.weight)
    surface, specks = drop_specks(surface, options.least_faces)
    if not len(surface.faces):
        raise UserError(f"all {specks} connected parts of the surface that is left have fewer than "
                        f"MeshOptions.least_faces = {options.least_faces} triangles; lower it")
    points = torch.from_numpy(surface.vertices).to(grid.device)
    world = field.transform.points_from_grid(from_normalized(grid, points)).cpu().numpy()
    normals = vertex_normals(world, surface.faces)
    properties = _properties(world, normals, *_appearance(field, points, world, colors, semantic))
    write_elements(path, properties, surface.faces.astype(np.int32))
    return {"vertices": len(world), "faces": len(surface.faces), "specks_dropped": specks}


def _visible_part(grid: PlenoxelGrid, surface: Surface, weight: Tensor, least: float) -> Surface:
    """The triangles with a corner around which voxels have at least that weight, on average by opacity."""
    points = torch.from_numpy(surface.vertices).to(grid.device)
    visible = (FieldSampler(grid, weight[:, None]).values(points)[:, 0] >= least).cpu().numpy()
    return compacted(surface.vertices, surface.faces[visible[surface.faces].any(axis=1)])


def write_points(
    path: Path, field: RadianceField, options: PointOptions, weight: Tensor, colors: Tensor,
    semantic: SemanticField | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write voxels that cameras see as points with normals, colours, opacity and weight; returns their number.

    Args:
        path: of the PLY file.
        weight: float32 ``[V]``, the largest rendering weight of each voxel.
        colors: float32 ``[V, 3]`` of the voxels.
        semantic: as for :func:`write_mesh`.

    Raises:
        UserError: no voxel is seen with that weight.
    """
    rows = _visible_rows(options, weight)
    looks = _class_looks(class_of(semantic.probabilities[rows])) if semantic else (color_bytes(colors[rows]), None)
    properties = _properties(_world_centers(field, rows), point_normals(field, rows), *looks)
    properties["opacity"] = voxel_opacity(field.grid)[rows].cpu().numpy()
    properties["weight"] = weight[rows].cpu().numpy()
    write_elements(path, properties)
    return {"points": len(rows)}


def visible_points(field: RadianceField, options: PointOptions, weight: Tensor, colors: Tensor) -> SparsePoints:
    """The same points without what else :func:`write_points` writes; raises as it does."""
    rows = _visible_rows(options, weight)
    return SparsePoints(torch.from_numpy(_world_centers(field, rows)).float(), color_bytes(colors[rows]))


def _visible_rows(options: PointOptions, weight: Tensor) -> Tensor:
    rows = (weight >= options.weight).nonzero()[:, 0]
    if not len(rows):
        raise UserError(f"the field has no visible voxel: the largest rendering weight is {float(weight.max()):.3g}, "
                        f"and PointOptions.weight is {options.weight}; lower it, or check that field and scan are of "
                        "the same scene")
    return rows


def _world_centers(field: RadianceField, rows: Tensor) -> np.ndarray:
    """Middles of voxels float64 ``[N, 3]`` in the world."""
    points = from_normalized(field.grid, normalized_centers(field.grid, rows))
    return field.transform.points_from_grid(points).cpu().numpy()


def point_normals(field: RadianceField, rows: Tensor) -> np.ndarray:
    """Unit vectors float32 ``[N, 3]`` in the world, from voxels towards where it is empty; 0 where it is nowhere.

    They are against the gradient of the opacity over three voxels, so that those below the outermost have one too.
    """
    grid = field.grid
    sampler, points = FieldSampler(grid), normalized_centers(grid, rows)
    resolution = torch.tensor(grid.resolution, dtype=torch.float64, device=grid.device)
    levels = grid.links_idx[rows] // int(resolution.prod())
    step = 1.5 * 2.0 / float(resolution.max()) * 0.5 ** (grid.levels - 1 - levels.double())
    gradient = sampler.gradient(points, step)
    radius = torch.tensor(grid.radius, dtype=gradient.dtype, device=grid.device)
    world = -(gradient / radius).double() @ field.transform.rotation.to(grid.device)
    return torch.nn.functional.normalize(world, dim=-1).float().cpu().numpy()


def _appearance(
    field: RadianceField, points: Tensor, world: np.ndarray, colors: Tensor, semantic: SemanticField | None
) -> tuple[Tensor, np.ndarray | None]:
    """Colours uint8 ``[N, 3]`` of points on the surface, and their ids where a fused field is given."""
    if semantic is None:
        return color_bytes(FieldSampler(field.grid, colors).values(points)), None
    blocks = torch.from_numpy(world).split(_ROWS_AT_ONCE)
    return _class_looks(torch.cat([classes_at(field, semantic, block) for block in blocks]))


def _class_looks(classes: Tensor) -> tuple[Tensor, np.ndarray]:
    numbers = classes.cpu().numpy()
    return torch.from_numpy(label_set().colors[numbers]), np.array(label_set().ids, np.uint16)[numbers]


def _properties(
    world: np.ndarray, normals: np.ndarray, colors: Tensor, ids: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Columns of a PLY file's vertices."""
    columns = {axis: world[:, number].astype(np.float32) for number, axis in enumerate("xyz")}
    columns |= {f"n{axis}": normals[:, number] for number, axis in enumerate("xyz")}
    columns |= {name: colors[:, number].numpy() for number, name in enumerate(("red", "green", "blue"))}
    columns["alpha"] = np.full(len(world), 255, np.uint8)
    return columns if ids is None else {**columns, "label": ids}

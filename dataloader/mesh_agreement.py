"""Is a scene's mesh where the points of its depth maps, or its cameras, are?"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from dataloader.contradiction import Contradiction
from dataloader.mesh import Mesh
from dataloader.scene import Scene
from dataloader.view_agreement import POSES, Pairs
from utils.seeding import generator

_SAMPLES = 200_000
_ON_MESH, _OFF_MESH, _NEAR_MESH = 0.5, 0.25, 0.03  # shares of points; of their extent


def points_off_mesh(scene: Scene, pairs: Pairs, mesh: Mesh) -> Contradiction | None:
    """Depth and poses agree; do their points lie on the mesh?"""
    first, rows = np.unique(pairs.first.numpy(), return_index=True)
    poses = scene.camera_to_world[torch.from_numpy(first)]
    points = pairs.points[torch.from_numpy(rows)] @ poses[:, :3, :3].transpose(1, 2) + poses[:, None, :3, 3]
    points = points.reshape(-1, 3)
    points = points[torch.isfinite(points[:, 0])].numpy()
    samples = _surface_samples(mesh)
    given = _share_near(points, samples)
    if given > _OFF_MESH:
        return None
    text = (f"its depth maps and poses agree with each other, but {given:.0%} of their points lie on "
            f"{_mesh_name(scene)}")
    for unit, name in ((1000.0, "millimetres"), (100.0, "centimetres"), (1 / 1000.0, "thousandths of the mesh's unit")):
        if _share_near(points, samples / unit) > _ON_MESH:
            return Contradiction(text, f"the mesh is in {name}" if unit > 1 else "poses and depth are in millimetres")
    return Contradiction(text, None)


def cameras_off_mesh(scene: Scene, mesh: Mesh) -> Contradiction | None:
    """Without depth: are the cameras where the mesh is?"""
    low, high = mesh.vertices.double().amin(0), mesh.vertices.double().amax(0)
    margin = 0.5 * (high - low).max()

    def share_within(poses: Tensor) -> float:
        centres = poses[:, :3, 3]
        return float(((centres > low - margin) & (centres < high + margin)).all(1).double().mean())

    given = share_within(scene.camera_to_world)
    if given > _ON_MESH:
        return None
    text = f"{given:.0%} of its cameras are within or near {_mesh_name(scene)}"
    tried = {f"the poses are {name}": change(scene.camera_to_world) for name, change in POSES.items()}
    for unit, name in ((1000.0, "millimetres"), (100.0, "centimetres")):
        scaled = scene.camera_to_world.clone()
        scaled[:, :3, 3] /= unit
        tried[f"the positions of the poses are in {name}"] = scaled
    best, poses = max(tried.items(), key=lambda item: share_within(item[1]))
    found = share_within(poses)
    return Contradiction(text, f"{found:.0%} would be if {best}" if found > _ON_MESH else None)


def _mesh_name(scene: Scene) -> str:
    return (scene.label_mesh_path if scene.label_mesh_path.exists() else scene.mesh_path).name


def _surface_samples(mesh: Mesh) -> np.ndarray:
    """Points ``[N, 3]`` spread over the mesh's faces by area."""
    corners = mesh.vertices.double()[mesh.faces.long()]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    random = generator(0, "mesh samples")
    reached = area.cumsum(0)
    drawn = torch.rand(_SAMPLES, generator=random, dtype=torch.float64) * reached[-1]
    face = torch.searchsorted(reached, drawn).clamp(max=len(area) - 1)
    a, b = torch.rand(2, _SAMPLES, 1, generator=random, dtype=torch.float64)
    a, b = torch.where(a + b > 1, 1 - a, a), torch.where(a + b > 1, 1 - b, b)
    chosen = corners[face]
    return (chosen[:, 0] + a * (chosen[:, 1] - chosen[:, 0]) + b * (chosen[:, 2] - chosen[:, 0])).numpy()


def _share_near(points: np.ndarray, samples: np.ndarray) -> float:
    """The share of points within the tolerance of a sample of the mesh."""
    extent = float(np.ptp(points, axis=0).max())
    distance, _ = cKDTree(samples).query(points, distance_upper_bound=_NEAR_MESH * extent)
    return float(np.isfinite(distance).mean())

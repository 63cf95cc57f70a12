"""Objects of a labelled mesh: connected faces of one class, with fragments that nearly touch taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts when they are used

from analysis.surface_points import SurfacePoints, face_areas, spread_points
from dataloader import Mesh
from model.annotation import face_labels, vertex_labels


@dataclass(frozen=True)
class Instance:
    """One object.

    Attributes:
        class_index: its class.
        faces: int64 ``[K]``, its faces of the mesh, ordered by where they lie.
        corners: float64 ``[K, 3, 3]``, their corners.
        surface: points spread over it.
        area: square metres.
    """

    class_index: int
    faces: np.ndarray
    corners: np.ndarray
    surface: SurfacePoints
    area: float

    @property
    def centre(self) -> np.ndarray:
        """Centroid of its surface, float64 ``[3]``; it may lie off the surface."""
        return np.average(self.surface.points, axis=0, weights=self.surface.weight)


def find_instances(mesh: Mesh, classes: Sequence[int], merge_distance: float, min_area: float) -> list[Instance]:
    """Objects of the given classes, in the classes' order, the largest of a class first.

    Faces that share a vertex belong together, and so do parts that are nearer than ``merge_distance`` metres: a chair's
    legs, or a surface that a scan tore. What is smaller than ``min_area`` square metres after that is left out. The
    order of the mesh's faces changes nothing but the numbers in ``faces``.
    """
    table = face_labels(vertex_labels(mesh.labels), mesh.faces).numpy()
    corners = mesh.vertices.double().numpy()[mesh.faces.long().numpy()]
    found = []
    for class_index in classes:
        faces = np.flatnonzero(table == class_index)
        parts = _merge_near(corners, _connected(mesh.faces.numpy()[faces], faces), merge_distance)
        instances = [_instance(class_index, part, corners, merge_distance / 2) for part in parts]
        kept = [instance for instance in instances if instance.area >= min_area]
        found += sorted(kept, key=lambda instance: (-round(instance.area, 6), *instance.centre.round(6).tolist()))
    return found


def _connected(
    vertices: np.ndarray,  # int [K, 3], vertices of each face
    faces: np.ndarray,  # int64 [K], the faces' numbers
) -> list[np.ndarray]:
    """Numbers of the faces of each set that is connected by shared vertices."""
    if not len(faces):
        return []
    used, local = np.unique(vertices, return_inverse=True)
    local = local.reshape(-1, 3)
    rows, columns = np.concatenate((local[:, 0], local[:, 1])), np.concatenate((local[:, 1], local[:, 2]))
    graph = scipy.sparse.coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(used), len(used)))
    count, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    of_face = component[local[:, 0]]
    order = np.argsort(of_face, kind="stable")
    return np.split(faces[order], np.searchsorted(of_face[order], np.arange(1, count)))


def _merge_near(corners: np.ndarray, parts: list[np.ndarray], distance: float) -> list[np.ndarray]:
    """Parts (numbers of faces) joined where points of theirs, spread half of ``distance`` apart, are within it."""
    clouds = [spread_points(corners[part], distance / 2).points for part in parts]
    low, high = (np.array([edge(cloud, axis=0) for cloud in clouds]).reshape(-1, 3) for edge in (np.min, np.max))
    trees = [scipy.spatial.cKDTree(cloud) for cloud in clouds]
    near = []
    for first in range(len(parts)):
        gap = np.maximum(low[first] - high[first + 1 :], low[first + 1 :] - high[first]).max(axis=1, initial=-np.inf)
        for second in np.flatnonzero(gap <= distance) + first + 1:
            small, large = sorted((first, second), key=lambda k: len(clouds[k]))
            if np.isfinite(trees[large].query(clouds[small], distance_upper_bound=distance)[0]).any():
                near.append((first, second))
    pairs = np.array(near, np.int64).reshape(-1, 2)
    graph = scipy.sparse.coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(parts), len(parts)))
    count, group = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return [np.concatenate([parts[k] for k in np.flatnonzero(group == g)]) for g in range(count)]


def _instance(class_index: int, faces: np.ndarray, corners: np.ndarray, spacing: float) -> Instance:
    middle = corners[faces].mean(axis=1)
    ordered = faces[np.lexsort((*corners[faces].reshape(len(faces), 9).T, *middle.T))]
    surface = spread_points(corners[ordered], spacing)
    return Instance(class_index, ordered, corners[ordered], surface, float(face_areas(corners[ordered]).sum()))

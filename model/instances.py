"""Objects of a labelled mesh: annotated ones, or connected surfaces of one id where there are none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from dataloader import Mesh, Scene
from dataloader.object_groups import group_files, read_groups
from model.annotation import vertex_labels
from utils.errors import UserError
from utils.labels import label_set

_MOST = 65535  # that an image of 16 bits holds


class Instances(NamedTuple):
    """Objects of a mesh."""

    vertex: Tensor  # int32 [Nv]: 1.. for the objects, 0 for vertices of none
    described: list[dict[str, str | int]]  # of each object: its number and class; category and objectId if known


def scene_instances(scene: Scene, mesh: Mesh) -> Instances:
    """Objects of a scan.

    Args:
        scene: whose files of objects (:func:`dataloader.object_groups.group_files`) are read, if both are there.
        mesh: of the scene, with labels.

    Raises:
        UserError: one of the two files is absent or damaged, or there are more objects than 16 bits number.
    """
    groups = None
    if any(path.is_file() for path in group_files(scene).values()):
        groups = read_groups(scene, len(mesh.vertices))
        instance = groups.instance
    else:
        instance = connected_vertices(mesh)
    count = int(instance.max(initial=0)) if groups is None else len(groups.categories)
    if count > _MOST:
        raise UserError(f"{scene.path} has {count} objects; images of 16 bits number {_MOST}: leave "
                        "annotate.instances_dir empty for it")
    names = [label_set().names[index] for index in _commonest(instance, vertex_labels(mesh.labels).numpy(), count)]
    described: list[dict[str, str | int]] = [
        {"instance": number, "class": name} for number, name in enumerate(names, 1)
    ]
    if groups is not None:
        for entry, category, number in zip(described, groups.categories, groups.object_ids, strict=True):
            entry.update(category=category, object_id=number)
    return Instances(torch.from_numpy(instance), described)


def connected_vertices(mesh: Mesh) -> np.ndarray:
    """Numbers int32 ``[Nv]`` of surfaces that edges between vertices of one id connect, in the order of their first
    vertices; 0 where a vertex has no id that the label set lists."""
    ids = vertex_labels(mesh.labels, "ids").numpy()
    faces = mesh.faces.numpy()
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = edges[ids[edges[:, 0]] == ids[edges[:, 1]]]
    graph = scipy.sparse.coo_matrix((np.ones(len(edges), bool), edges.T), shape=(len(ids), len(ids)))
    _, part = scipy.sparse.csgraph.connected_components(graph, directed=False)
    instance = np.zeros(len(ids), dtype=np.int32)
    labelled = np.flatnonzero(ids)
    _, first, inverse = np.unique(part[labelled], return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    instance[labelled] = rank[inverse]
    return instance


def _commonest(instance: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Class index that most vertices of each object have, ``[count]``."""
    votes = np.zeros((count + 1, label_set().num_classes), dtype=np.int64)
    np.add.at(votes, (instance, classes), 1)
    return votes[1:].argmax(axis=1)

"""The labelled mesh of a scan, with the ids that the label set is of.

NYU40 ids stand in ``SCENE_vh_clean_2.labels.ply``. ScanNet's raw categories, which ScanNet200 is made of, do not:
``SCENE.aggregation.json`` names the category of every object and the segments it is made of,
``SCENE_vh_clean_2.0.010000.segs.json`` the segment of every vertex of ``SCENE_vh_clean_2.ply``, and
``scannetv2-labels.combined.tsv`` the id of every category. The last lies where ScanNet's download puts it: in the
scene's folder or one of the two above.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dataloader.mesh import Mesh, load_mesh
from dataloader.scene import Scene
from utils.errors import UserError, reading, short
from utils.files import read_json
from utils.label_table import LARGEST_ID
from utils.labels import label_set

_CATEGORIES = "scannetv2-labels.combined.tsv"


@dataclass(frozen=True)
class ObjectGroups:
    """Objects of ScanNet's annotation.

    Attributes:
        categories: raw category of each object, as the annotators wrote it.
        instance: int32 ``[Nv]``, 1.. for the objects in their order, 0 for vertices of none.
    """

    categories: tuple[str, ...]
    instance: np.ndarray


def has_labels(scene: Scene) -> bool:
    """Whether the files are there that labels are read from, beside the table of categories."""
    files = [scene.label_mesh_path] if label_set().id_system == "nyu40" else group_files(scene).values()
    return all(path.is_file() for path in files)


def label_files(scene: Scene) -> dict[str, Path]:
    """The files that :func:`load_label_mesh` reads, by what they are."""
    if label_set().id_system == "nyu40":
        return {"mesh": scene.label_mesh_path}
    return {"mesh": scene.mesh_path, **group_files(scene), "categories": _categories_file(scene)}


def group_files(scene: Scene) -> dict[str, Path]:
    """The files that :func:`read_groups` reads, by what they are."""
    return {
        "objects": _one_of(scene, f"{scene.name}.aggregation.json", f"{scene.name}_vh_clean.aggregation.json"),
        "segments": scene.path / f"{scene.name}_vh_clean_2.0.010000.segs.json",
    }


def load_label_mesh(scene: Scene) -> Mesh:
    """The mesh with an id of the label set for every vertex.

    Raises:
        UserError: a file is absent, damaged or of another mesh, or a category has no id.
    """
    if label_set().id_system == "nyu40":
        return load_mesh(scene.label_mesh_path, require_labels=True)
    mesh = load_mesh(scene.mesh_path)
    groups = read_groups(scene, len(mesh.vertices))
    path = _categories_file(scene)
    known = _read_categories(path)
    without = sorted(set(groups.categories) - known.keys())
    if without:
        raise UserError(f"{path} has no id for the category {short(without[0])} of {group_files(scene)['objects']}; "
                        "download both from ScanNet again")
    ids = np.array([0, *(known[name] for name in groups.categories)], dtype=np.int32)
    return replace(mesh, labels=torch.from_numpy(ids[groups.instance]))


def read_groups(scene: Scene, vertices: int) -> ObjectGroups:
    """Objects of a scan whose mesh has so many vertices.

    Raises:
        UserError: a file is absent, damaged or of another mesh.
    """
    files = group_files(scene)
    for path in files.values():
        if not path.is_file():
            raise UserError(f"{path} does not exist; ScanNet's objects and their categories stand there: download it")
    content = read_json(files["segments"])
    with reading(files["segments"], "ScanNet's segments of a mesh"):
        segments = np.array(content["segIndices"])
        if segments.dtype.kind != "i" or segments.shape != (vertices,):
            raise ValueError(f"it has segments for {segments.shape} vertices; {scene.mesh_path.name} has {vertices}")
    content = read_json(files["objects"])
    with reading(files["objects"], "ScanNet's objects of a scene"):
        categories = tuple(str(group["label"]) for group in content["segGroups"])
        parts = [np.array(group["segments"], dtype=np.int64) for group in content["segGroups"]]
    instance = np.zeros(vertices, dtype=np.int32)
    for number, part in enumerate(parts, 1):
        instance[np.isin(segments, part)] = number
    return ObjectGroups(categories, instance)


def _read_categories(path: Path) -> dict[str, int]:
    with reading(path, "ScanNet's table of categories", "download it again"):
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        known = {row["raw_category"]: int(row["id"]) for row in rows}
        if not known or not all(0 < id <= LARGEST_ID for id in known.values()):
            raise ValueError("it lists no ids, or ids that are none")
    return known


def _categories_file(scene: Scene) -> Path:
    folders = [scene.path, *scene.path.absolute().parents[:2]]
    for folder in folders:
        if (folder / _CATEGORIES).is_file():
            return folder / _CATEGORIES
    raise UserError(f"{_CATEGORIES} is not in {scene.path} or one of the two folders above; the ids of "
                    f"{label_set().path.name} are ScanNet's raw categories, which it lists: download it from ScanNet")


def _one_of(scene: Scene, *names: str) -> Path:
    paths = [scene.path / name for name in names]
    return next((path for path in paths if path.is_file()), paths[0])

"""The labelled mesh of a scan, with the ids that the label set is of.

NYU40 ids stand in ``SCENE_vh_clean_2.labels.ply``. ScanNet's raw categories, which ScanNet200 is made of, are those of
the annotated objects (:mod:`dataloader.object_groups`), and ``scannetv2-labels.combined.tsv`` has the id of each. A
label set of names takes the objects' categories as they are written, in ScanNet and in ScanNet++; what ScanNet++'s
``metadata/semantic_benchmark/map_benchmark.csv`` calls otherwise is called so. Where ScanNet++'s files of objects are
not there, ``mesh_aligned_0.05_semantic.ply`` is read: the number of a line of ``metadata/semantic_classes.txt`` for
every vertex, from 0. The tables lie where the downloads put them: in the scene's folder or one of the two above.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dataloader.mesh import Mesh, load_mesh
from dataloader.object_groups import group_files, read_groups
from dataloader.scene import ARKITSCENES, SCANNETPP, Scene
from utils.errors import UserError, reading, short
from utils.files import read_text
from utils.label_table import LARGEST_ID, NAMES
from utils.labels import UNANNOTATED, label_set

CATEGORIES = "scannetv2-labels.combined.tsv"
_CLASSES, _RENAMED = "metadata/semantic_classes.txt", "metadata/semantic_benchmark/map_benchmark.csv"
_SCANNETPP_TABLE = "configs/labels/scannetpp100.tsv"


def has_labels(scene: Scene) -> bool:
    """Whether the files are there that the label set's ids are read from, beside the tables."""
    if _problem(scene):
        return False
    if label_set().id_system == "nyu40" or _is_read_from_vertices(scene):
        return scene.label_mesh_path.is_file()
    return all(path.is_file() for path in group_files(scene).values())


def unread_labels(scene: Scene) -> str | None:
    """What would have to be chosen so that the scan's labels are read; None where they are, or there are none."""
    files = [scene.label_mesh_path, *group_files(scene).values()]
    return _problem(scene) if any(path.is_file() for path in files) else None


def label_files(scene: Scene) -> dict[str, Path]:
    """The files that :func:`load_label_mesh` reads, by what they are."""
    system = label_set().id_system
    if system == "nyu40":
        return {"mesh": scene.label_mesh_path}
    if system != NAMES:
        return {"mesh": scene.mesh_path, **group_files(scene), "categories": find_categories(scene)}
    renamed = _find(scene, _RENAMED)
    tables = {} if renamed is None else {"renamed": renamed}
    if _is_read_from_vertices(scene):
        return {"mesh": scene.label_mesh_path, "classes": _classes_file(scene), **tables}
    return {"mesh": scene.mesh_path, **group_files(scene), **tables}


def load_label_mesh(scene: Scene) -> Mesh:
    """The mesh with an id of the label set for every vertex.

    Raises:
        UserError: a file is absent, damaged or of another mesh, a category has no id, or the scan's labels are not
            those that the label set is of.
    """
    if problem := _problem(scene):
        raise UserError(f"{scene.path}: {problem}")
    system = label_set().id_system
    if system == "nyu40":
        return load_mesh(scene.label_mesh_path, require_labels=True)
    if system == NAMES and _is_read_from_vertices(scene):
        return _named_vertices(scene)
    mesh = load_mesh(scene.mesh_path)
    groups = read_groups(scene, len(mesh.vertices))
    known = _ids_of_names(scene) if system == NAMES else _ids_of_categories(scene, groups.categories)
    ids = np.array([UNANNOTATED, *(known.get(name, UNANNOTATED) for name in groups.categories)], dtype=np.int32)
    return replace(mesh, labels=torch.from_numpy(ids[groups.instance_of(lambda name: name in known)]))


def unlisted_objects(scene: Scene, mesh: Mesh) -> dict[str, int]:
    """Objects by category, the most frequent first, whose name the label set does not list; only for one of names."""
    if label_set().id_system != NAMES or _is_read_from_vertices(scene):
        return {}
    known = _ids_of_names(scene)
    categories = read_groups(scene, len(mesh.vertices)).categories
    return dict(Counter(name for name in categories if name not in known).most_common())


def find_categories(scene: Scene) -> Path:
    """ScanNet's table of categories; raises :class:`UserError` where it is not."""
    found = _find(scene, CATEGORIES)
    if found is None:
        raise UserError(f"{CATEGORIES} is not in {scene.path} or one of the two folders above; the ids of "
                        f"{label_set().path.name} are ScanNet's raw categories, which it lists: download it from "
                        "ScanNet")
    return found


def read_categories(path: Path) -> list[dict[str, str]]:
    """Rows of ScanNet's table of categories; raises :class:`UserError` where they have no names or no ids."""
    with reading(path, "ScanNet's table of categories", "download it again"):
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if not rows or not all(row["raw_category"] and 0 < int(row["id"]) <= LARGEST_ID for row in rows):
            raise ValueError("it lists no ids, or ids that are none")
    return rows


def _problem(scene: Scene) -> str | None:
    """Why the label set's ids cannot be had from a scene in this layout, whatever its files."""
    if scene.layout == ARKITSCENES:
        return ("it has no labels: ARKitScenes has boxes around objects (*_3dod_annotation.json), which say nothing of "
                "single points and are not read")
    if scene.layout == SCANNETPP and label_set().id_system != NAMES:
        return (f"its labels are names, and {label_set().path.name} is of numbers; choose label_set.table = "
                f"'{_SCANNETPP_TABLE}', or a table of your own with '# ids: {NAMES}'")
    return None


def _is_read_from_vertices(scene: Scene) -> bool:
    return scene.layout == SCANNETPP and not any(path.is_file() for path in group_files(scene).values())


def _ids_of_categories(scene: Scene, categories: tuple[str, ...]) -> dict[str, int]:
    path = find_categories(scene)
    known = {row["raw_category"].strip(): int(row["id"]) for row in read_categories(path)}
    without = sorted(set(categories) - known.keys())
    if without:
        raise UserError(f"{path} has no id for the category {short(without[0])} of {group_files(scene)['objects']}; "
                        "download both from ScanNet again")
    return known


def _ids_of_names(scene: Scene) -> dict[str, int]:
    """The table's ids by name, and by the names that ScanNet++ counts as one of these."""
    listed = label_set().known_ids
    path = _find(scene, _RENAMED)
    if path is None:
        return listed
    with reading(path, "ScanNet++'s table of classes", "download it again"):
        with open(path, encoding="utf-8", newline="") as file:
            rows = {row["class"].strip(): row["semantic_map_to"].strip() for row in csv.DictReader(file)}
        if not rows:
            raise ValueError("it lists no classes")
    renamed = {name: listed.get(new or name) for name, new in rows.items()}
    return {name: id for name, id in {**listed, **renamed}.items() if id is not None}


def _named_vertices(scene: Scene) -> Mesh:
    mesh = load_mesh(scene.label_mesh_path, require_labels=True)
    path, known = _classes_file(scene), _ids_of_names(scene)
    names = [line.strip() for line in read_text(path, "ScanNet++'s list of classes").splitlines()]
    lines = mesh.labels.numpy()
    if lines.max(initial=-1) >= len(names):
        raise UserError(f"{scene.label_mesh_path} has the label {lines.max()}, and {path} has {len(names)} lines; "
                        "download both again")
    ids = np.array([*(known.get(name, UNANNOTATED) for name in names), UNANNOTATED], dtype=np.int32)
    return replace(mesh, labels=torch.from_numpy(ids[np.where(lines < 0, -1, lines)]))


def _classes_file(scene: Scene) -> Path:
    found = _find(scene, _CLASSES)
    if found is None:
        raise UserError(f"{_CLASSES} is not in {scene.path} or one of the two folders above; it names the labels of "
                        f"{scene.label_mesh_path.name}: download it, or scans/segments.json and segments_anno.json")
    return found


def _find(scene: Scene, name: str) -> Path | None:
    folders = [scene.path, *scene.path.absolute().parents[:2]]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)

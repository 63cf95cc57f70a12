"""Annotated objects of a scan, in ScanNet's files and in ScanNet++'s, which have the same form.

One file names every object and the segments it is made of, another the segment of every vertex of the mesh:
``SCENE.aggregation.json`` and ``SCENE_vh_clean_2.0.010000.segs.json`` in ScanNet, ``scans/segments_anno.json`` and
``scans/segments.json`` in ScanNet++. A vertex of several objects, as ScanNet++ has them, is of the smallest, which is
its benchmark's rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dataloader.scene import SCANNETPP, Scene
from utils.errors import UserError, reading
from utils.files import read_json


@dataclass(frozen=True)
class ObjectGroups:
    """Objects of an annotation, in their order.

    Attributes:
        categories: raw category of each object, as the annotators wrote it.
        object_ids: ``objectId`` of each object in the file, or its number there where it has none.
        segment: int64 ``[Nv]``, index of the segment of each vertex.
        parts: of each object, the indices of its segments, int64.
    """

    categories: tuple[str, ...]
    object_ids: tuple[int, ...]
    segment: np.ndarray
    parts: tuple[np.ndarray, ...]

    @cached_property
    def instance(self) -> np.ndarray:
        """int32 ``[Nv]``, 1.. for the objects in their order, 0 for vertices of none."""
        return self.instance_of(lambda category: True)

    def instance_of(self, counts: Callable[[str], bool]) -> np.ndarray:
        """:attr:`instance` where only objects of the categories that ``counts`` names count."""
        sizes = np.bincount(self.segment)
        of_segment = np.zeros(len(sizes), dtype=np.int32)
        for number in sorted(range(len(self.parts)), key=lambda number: -sizes[self.parts[number]].sum()):
            if counts(self.categories[number]):
                of_segment[self.parts[number]] = number + 1
        return of_segment[self.segment]


def group_files(scene: Scene) -> dict[str, Path]:
    """The files that :func:`read_groups` reads, by what they are."""
    if scene.layout == SCANNETPP:
        folder = scene.mesh_path.parent
        return {"objects": folder / "segments_anno.json", "segments": folder / "segments.json"}
    names = f"{scene.name}.aggregation.json", f"{scene.name}_vh_clean.aggregation.json"
    objects = next((scene.path / name for name in names if (scene.path / name).is_file()), scene.path / names[0])
    return {"objects": objects, "segments": scene.path / f"{scene.name}_vh_clean_2.0.010000.segs.json"}


def read_groups(scene: Scene, vertices: int) -> ObjectGroups:
    """Objects of a scan whose mesh has so many vertices.

    Raises:
        UserError: a file is absent, damaged or of another mesh.
    """
    files = group_files(scene)
    for path in files.values():
        if not path.is_file():
            raise UserError(f"{path} does not exist; the scan's objects and their categories stand there: download it")
    content = read_json(files["segments"])
    with reading(files["segments"], "the segments of a mesh"):
        segments = np.array(content["segIndices"])
        if segments.dtype.kind != "i" or segments.shape != (vertices,):
            raise ValueError(f"it has segments for {segments.shape} vertices; {scene.mesh_path.name} has {vertices}")
        numbers, segment = np.unique(segments, return_inverse=True)
    content = read_json(files["objects"])
    with reading(files["objects"], "the objects of a scan"):
        groups = content["segGroups"]
        categories = tuple(str(group["label"]).strip() for group in groups)
        ids = tuple(int(group.get("objectId", number)) for number, group in enumerate(groups))
        parts = tuple(_indices(numbers, np.array(group["segments"], dtype=np.int64)) for group in groups)
    return ObjectGroups(categories, ids, segment.reshape(-1), parts)


def _indices(numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where ``wanted`` stand among the sorted ``numbers``; those that do not stand there are left out."""
    return np.flatnonzero(np.isin(numbers, wanted))

"""Checking data folders: every problem with its remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataloader.consistency import find_contradiction
from dataloader.exposures import load_exposures
from dataloader.field_facts import FieldFacts
from dataloader.frame_checks import UNREADABLE
from dataloader.hold_out import load_held_out
from dataloader.label_mesh import has_labels, load_label_mesh, unlisted_objects, unread_labels
from dataloader.mesh import Mesh, load_mesh
from dataloader.object_groups import group_files
from dataloader.perfception import FIELD_PREFIX, load_perfception_scene
from dataloader.scene import SCANNET, SCANNETPP, Scene
from dataloader.scene_layouts import load_scene
from dataloader.view_dataset import check_labels
from dataloader.view_store import ViewStore
from utils.depth_images import depth_size
from utils.errors import UserError, short
from utils.labels import label_set
from utils.outputs import partial_path
from utils.pictures import read_header

logger = logging.getLogger(__name__)
_LEAST_EXTENT, _MOST_EXTENT = 0.2, 30.0


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        kind: "scan", "field" or "views".
        name: of the scene.
        broken: the data cannot be used; otherwise a note.
        text: what is wrong and what to do.
        unfinished: a stage has not done all its work there.
    """

    kind: str
    name: str
    broken: bool
    text: str
    unfinished: bool = False


def verify_scan(
    path: Path, read_images: bool = True, min_frames: int = 20, labelled: bool = True,
    opened: Callable[[Scene], None] = lambda scene: None,
) -> list[Finding]:
    """Check a scene folder of any layout: frames, poses, cameras, meshes, and every image if ``read_images``.

    Args:
        path: the folder.
        read_images: decode every image; else one of each kind: format, mode, transparency, profile, orientation.
        min_frames: fewer usable frames get a note.
        labelled: whether a scene in ScanNet's layout must have a labelled mesh.
        opened: is given the scene before its images are read.
    """
    report = _Report("scan", path.name)
    scene = report.attempt(lambda: load_scene(path))
    if scene is None:
        return report.findings
    opened(scene)
    for frame, reason in scene.skipped.items():
        add = report.broken if UNREADABLE in reason else report.note
        add(f"frame {frame} is left out: {reason}")
    if len(scene) < min_frames:
        report.note(f"only {len(scene)} usable frames; a radiance field needs {min_frames} or more")
    if all(path is None for path in scene.depth_paths):
        report.note(f"no depth images; fitting starts from {_start_without_depth(scene)}")
    if not scene.metric and (problem := _unit_problem(scene)):
        report.note(problem)
    for remark in scene.remarks:
        report.note(remark)
    read = range(len(scene)) if read_images else _one_of_each_kind(scene)
    seen = {index: report.attempt(lambda index=index: _read_frame(scene, index)) for index in read}
    measured = [frame.measured for frame in seen.values() if frame is not None and frame.measured is not None]
    if measured and not any(measured):
        report.note(f"none of its depth maps ({len(measured)} were read) holds a measurement; write them again, or "
                    "remove them")
    black = [index for index, frame in seen.items() if frame is not None and not frame.kept]
    if black:
        add = report.broken if len(black) == len(scene) else report.note
        add(f"{len(black)} of {len(scene)} frames have a mask that leaves no pixel (such as frame "
            f"{scene.frames[black[0]]}); expected white where pixels are of the scene")
    if scene.layout != SCANNET and not has_labels(scene):
        if unread := unread_labels(scene):
            report.note(f"its labels are not read: {unread}")
        elif scene.layout == SCANNETPP and labelled:
            report.note(f"it has no labels: neither {', '.join(path.name for path in group_files(scene).values())} nor "
                        f"{scene.label_mesh_path.name} is complete in scans/; 'annotate' needs them: download them, or "
                        "name the scene in verify.unlabelled")
        report.compare(scene, report.attempt(lambda: load_mesh(scene.mesh_path)) if scene.mesh_path.exists() else None)
        return report.findings
    if scene.mesh_path.exists() or (all(path is None for path in scene.depth_paths) and scene.points is None):
        plain = report.attempt(lambda: load_mesh(scene.mesh_path))
    else:
        plain = None
        report.note(f"{scene.mesh_path.name} is absent; it is needed where there are no depth images only")
    if not labelled and not has_labels(scene):
        report.compare(scene, None)
        return report.findings
    mesh = report.attempt(lambda: load_label_mesh(scene))
    if mesh is not None and mesh.unknown_labels():
        ids = ", ".join(f"{label} ({count} vertices)" for label, count in mesh.unknown_labels().items())
        report.note(f"label ids that {label_set().path.name} does not list, counted as unannotated: {ids}")
    if mesh is not None and (unlisted := report.attempt(lambda: unlisted_objects(scene, mesh))):
        report.note(f"{sum(unlisted.values())} objects have names that {label_set().path.name} does not list, and are "
                    f"unannotated: {_few(unlisted)}")
    if mesh is not None and plain is not None and len(mesh.vertices) != len(plain.vertices):
        report.note(f"{scene.label_mesh_path.name} has {len(mesh.vertices)} vertices and {scene.mesh_path.name} "
                    f"{len(plain.vertices)}; ScanNet's have the same: check that both are of this scene")
    report.compare(scene, mesh)
    return report.findings


def inspect_field(path: Path) -> tuple[list[Finding], FieldFacts | None]:
    """Check a field's folder: grid, resolution, transform, exposures, held-out frames, results; and what it holds.

    The latter is None where the grid, or what is told of it, cannot be read.
    """
    report = _Report("field", path.name.removeprefix(FIELD_PREFIX))
    scene = report.attempt(lambda: load_perfception_scene(path))
    if scene is not None and scene.links_idx.unique().numel() != scene.links_idx.numel():
        report.broken(f"{path}: two voxels share a cell; fit or download the scene again")
    report.attempt(lambda: load_exposures(path))
    if scene is None:
        report.attempt(lambda: load_held_out(path))
        return report.findings, None
    return report.findings, report.attempt(lambda: FieldFacts.of(path, scene))


def verify_views(path: Path, labelled: bool = True) -> list[Finding]:
    """Check a view store: cameras, every channel's file, labels in range; a note where they should be and are not."""
    report = _Report("views", path.name)
    store = report.attempt(lambda: ViewStore(path))
    if store is None:
        return report.findings
    report.attempt(lambda: store.cameras)
    sound = [name for name in store.channels if report.attempt(lambda name=name: store.files(name)) is not None]
    if "sh" in sound and store.dtype("sh") == "float16":
        report.attempt(lambda: [store.read_stored("sh", view) for view in range(len(store))][:0])
    if "label" in sound:
        report.attempt(lambda: [check_labels(labels, store) for _, labels in store.blocks("label")])
    elif labelled and "label" not in store.channels:
        report.note("no annotation yet; run the 'annotate' task before training", unfinished=True)
    return report.findings


def examine(check: Callable[[Path], list[Finding]], path: Path, kind: str, name: str) -> list[Finding]:
    """The findings of ``check(path)``; a failure of the check itself is a finding."""
    report = _Report(kind, name)
    return (report.attempt(lambda: check(path)) or []) + report.findings


def unfinished_beside(path: Path, kind: str, name: str) -> list[Finding]:
    """A note where a stage has begun to make ``path`` and not come to its end."""
    if not partial_path(path).exists():
        return []
    text = f"{partial_path(path).name} is unfinished; run its stage with --resume"
    return [Finding(kind, name, False, text, unfinished=True)]


def _few(counts: dict[str, int], most: int = 10) -> str:
    shown = ", ".join(f"{short(name)} ({count})" for name, count in list(counts.items())[:most])
    return f"{shown}, ..." if len(counts) > most else shown


def _unit_problem(scene: Scene) -> str | None:
    """Notes scenes whose depth exceeds the range or the resolution of view stores, thousandths of the world's unit."""
    centers = scene.camera_to_world[:, :3, 3]
    extent = float((centers.amax(0) - centers.amin(0)).max())
    if _LEAST_EXTENT < extent < _MOST_EXTENT:
        return None
    return (f"its cameras are {extent:.3g} units apart; rendered depth is stored in thousandths of a unit, up to 65: "
            "scale the reconstruction if you need that depth (colours do not depend on it)")


def _start_without_depth(scene: Scene) -> str:
    if scene.mesh_path.exists():
        return "the mesh"
    if scene.points is not None:
        return f"{len(scene.points.positions)} sparse points"
    return "the space that transparent pixels leave" if scene.transparent else "all space that cameras see"


def _one_of_each_kind(scene: Scene) -> list[int]:
    """The first frame of each kind of colour image and of each kind of depth map."""
    first: dict[tuple[str, str], int] = {}
    for index, path in enumerate(scene.color_paths):
        first.setdefault(("colour", read_header(path, whole=False).kind), index)
    for index, path in enumerate(scene.depth_paths):
        if path is not None:
            first.setdefault(("depth", depth_size(path)[1]), index)
    return sorted(set(first.values()))


class _FrameRead(NamedTuple):
    """Whether any depth was measured (None without a depth map), and whether any pixel is of the scene."""

    measured: bool | None
    kept: bool


def _read_frame(scene: Scene, index: int) -> _FrameRead:
    scene.read_color(index)
    depth, mask = scene.read_depth(index), scene.read_mask(index)
    return _FrameRead(None if depth is None else bool((depth > 0).any()), mask is None or bool(mask.any()))


class _Report:
    """Collects findings about one scene."""

    def __init__(self, kind: str, name: str):
        self.findings: list[Finding] = []
        self._kind, self._name = kind, name

    def note(self, text: str, unfinished: bool = False) -> None:
        self.findings.append(Finding(self._kind, self._name, False, text, unfinished))

    def broken(self, text: str) -> None:
        self.findings.append(Finding(self._kind, self._name, True, text))

    def compare(self, scene: Scene, mesh: Mesh | None) -> None:
        """Whether depth, poses and mesh agree; broken where it is known what would make them agree."""
        found = self.attempt(lambda: find_contradiction(scene, mesh))
        if found is not None:
            (self.note if found.remedy is None else self.broken)(str(found))

    def attempt(self, check: Callable):
        """The result of ``check``, or None after an error, which becomes a finding."""
        try:
            return check()
        except UserError as error:
            self.broken(str(error))
        except Exception as error:  # the other folders must be checked in any case
            logger.debug("%s %s", self._kind, self._name, exc_info=True)
            self.broken(f"{self._name} cannot be checked ({type(error).__name__}: {short(str(error))}); this is a "
                        "bug: please report it with the folder")
        return None


def format_findings(findings: list[Finding]) -> str:
    """A table, broken data first."""
    rows = [("state", "what", "scene", "problem and what to do")]
    for finding in sorted(findings, key=lambda finding: not finding.broken):
        rows.append(("BROKEN" if finding.broken else "note", finding.kind, finding.name, finding.text))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows
    )

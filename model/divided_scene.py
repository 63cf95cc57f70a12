"""One recorded room as two scenes, so that what is learned in one half of it can be tested on the other.

A vertical plane divides its labelled surface. A frame belongs to the half of which it shows more, and each half's mesh
keeps the labels of that half alone: a surface that is labelled in one of the scenes is unannotated in the other, also
where frames of both show it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader import CameraList, Mesh, load_mesh, load_scene
from dataloader.scene import SCANNET, Scene
from dataloader.synthesis.scene_folder import write_ply
from model.annotation import annotate_vertices, vertex_labels
from utils.cameras import scale_intrinsics
from utils.depth_images import MILLIMETRES
from utils.errors import UserError
from utils.files import write_text
from utils.identity import FileSet, scan_inputs
from utils.labels import UNANNOTATED, label_settings
from utils.outputs import commit_output, output_state, prepare_output
from utils.plans import Item

HALVES = ("a", "b")
ACROSS, ALONG = "across", "along"
_VERSION = 1  # increased whenever the same settings give other files
_SEEN_AT = 64  # height in pixels at which it is counted what a frame shows


@dataclass(frozen=True)
class Division:
    """A vertical plane, and on which side of it things are.

    Attributes:
        normal: horizontal unit vector float64 ``[3]``, from the first half to the second.
        offset: of the plane along it, metres.
        margin: metres to both sides of the plane that are in neither half.
    """

    normal: Tensor
    offset: float
    margin: float

    @staticmethod
    def of(points: Tensor, margin: float, plane: str = ACROSS) -> Division:
        """Across the longer horizontal axis of points ``[P, 3]``, or along it, with as many of them on both sides."""
        flat = points[:, :2].double()
        spread = torch.linalg.eigh(torch.cov(flat.T))  # ascending
        axis = spread.eigenvectors[:, -1 if plane == ACROSS else 0]
        axis = axis * torch.sign(axis[axis.abs().argmax()])  # an eigenvector's sign means nothing
        normal = torch.cat((axis, axis.new_zeros(1)))
        return Division(normal, float((points.double() @ normal).median()), margin)

    def halves(self, points: Tensor) -> Tensor:
        """1 or 2 for points ``[P, 3]`` of the first and the second half, 0 for those within the margin; uint8 [P]."""
        beyond = points.double() @ self.normal - self.offset
        return torch.where(beyond < -self.margin, 1, torch.where(beyond >= self.margin, 2, 0)).to(torch.uint8)


@dataclass(frozen=True)
class DividedScene:
    """What is divided, and where its halves go; see the task ``divide``.

    Attributes:
        scan: folder of the scene, in ScanNet's layout.
        output: folder that receives ``SCENE_a`` and ``SCENE_b``.
        margin: as in :class:`Division`.
        plane: "across" the room's longer side or "along" it.
    """

    scan: Path
    output: Path
    margin: float
    plane: str = ACROSS

    def folders(self) -> list[Path]:
        """The two scenes' folders."""
        return [self.output / f"{self.scan.name}_{half}" for half in HALVES]

    def plan(self, overwrite: bool) -> list[Item]:
        """What :meth:`divide` would do.

        Raises:
            UserError: the scene cannot be divided, or one of the halves is there with other settings.
        """
        scene = self._open()
        detail = f"of {len(scene)} frames"
        return [Item(folder.name, folder, output_state(folder, self._inputs(scene, half), overwrite), detail)
                for half, folder in zip(HALVES, self.folders(), strict=True)]  # fmt: skip

    def divide(self, overwrite: bool) -> dict[str, Any]:
        """Write both halves; returns the plane, and each half's frames and labelled vertices."""
        scene = self._open()
        mesh = load_mesh(scene.label_mesh_path, require_labels=True)
        labelled = vertex_labels(mesh.labels) != UNANNOTATED
        if not labelled.any():
            raise UserError(f"{scene.label_mesh_path} has no labelled vertex; expected NYU40 ids of the label set, by "
                            "which the halves are measured")
        division = Division.of(mesh.vertices[labelled], self.margin, self.plane)
        halves = torch.where(labelled, division.halves(mesh.vertices), 0)
        shown = _half_of_frames(scene, mesh, halves)
        facts: dict[str, Any] = {"normal": division.normal.tolist(), "offset": division.offset, "margin": self.margin}
        for number, (half, folder) in enumerate(zip(HALVES, self.folders(), strict=True), start=1):
            frames = (shown == number).nonzero()[:, 0].tolist()
            if not frames:
                raise UserError(f"no frame of {scene.path} shows more of the half {half!r} than of the other, so that "
                                "it would be empty; this scene cannot be divided")
            partial = prepare_output(folder, self._inputs(scene, half), overwrite)
            if partial is not None:
                _write_half(partial, folder.name, scene, frames, mesh, halves == number)
                commit_output(folder)
            facts[half] = {"frames": len(frames), "labelled_vertices": int((halves == number).sum())}
        return facts

    def _open(self) -> Scene:
        scene = load_scene(self.scan)
        what = {
            f"it is in {scene.layout}'s layout": scene.layout != SCANNET,
            "its frames have masks": scene.mask_paths is not None,
            "its depth maps are not in millimetres": scene.depth_steps != MILLIMETRES,
        }
        for problem, is_so in what.items():
            if is_so:
                raise UserError(f"{scene.path}: {problem}; only scenes in ScanNet's layout, with depth in millimetres "
                                "and without masks, can be divided")
        if not scene.label_mesh_path.is_file():
            raise UserError(f"{scene.label_mesh_path} does not exist; a scene is divided by its labelled surface")
        return scene

    def _inputs(self, scene: Scene, half: str) -> dict[str, Any]:
        labels = FileSet({"labels": scene.label_mesh_path})
        options = {"margin": self.margin, "plane": self.plane, "half": half, "version": _VERSION}
        return {**scan_inputs(scene), "labels": labels, **options, **label_settings()}


def _half_of_frames(scene: Scene, mesh: Mesh, halves: Tensor) -> Tensor:
    """The half [N] that each frame shows more of; 0 for frames that show none."""
    height, width = scene.image_size
    small = _SEEN_AT, max(1, round(width * _SEEN_AT / height))
    intrinsics = scale_intrinsics(scene.intrinsics, scene.image_size, small).expand(len(scene), 3, 3)
    cameras = CameraList(scene.name, list(scene.frames), scene.camera_to_world, intrinsics, small)
    seen = annotate_vertices(mesh, halves, cameras).label
    first, second = ((seen == number).sum((1, 2)) for number in (1, 2))
    return torch.where(first + second == 0, 0, torch.where(first >= second, 1, 2))


def _write_half(
    folder: Path, name: str, scene: Scene, frames: Sequence[int], mesh: Mesh, kept: Tensor
) -> None:
    """A scene folder of some frames, with the labels of some vertices."""
    for frame in frames:
        for kind, paths in (("color", scene.color_paths), ("depth", scene.depth_paths)):
            if paths[frame] is not None:
                _bring(paths[frame], folder / kind / f"{scene.frames[frame]}{paths[frame].suffix}")
        write_text(folder / "pose" / f"{scene.frames[frame]}.txt", _matrix_text(scene.camera_to_world[frame]), False)
    matrices = {"intrinsic_color": _homogeneous(scene.intrinsics), "extrinsic_color": torch.eye(4)}
    if scene.depth_intrinsics is not None:
        depth = {"intrinsic_depth": _homogeneous(scene.depth_intrinsics), "extrinsic_depth": scene.depth_to_color}
        matrices |= depth
    for file, matrix in matrices.items():
        write_text(folder / "intrinsic" / f"{file}.txt", _matrix_text(matrix), False)
    if scene.mesh_path.is_file():
        _bring(scene.mesh_path, folder / f"{name}_vh_clean_2.ply")
    labels = torch.where(kept, mesh.labels, UNANNOTATED).numpy().astype(np.uint16)
    colors = np.full((len(labels), 3), 128, np.uint8) if mesh.colors is None else mesh.colors.numpy()
    write_ply(folder / f"{name}_vh_clean_2.labels.ply", mesh.vertices.numpy(), colors, mesh.faces.numpy(), labels)


def _bring(source: Path, target: Path) -> None:
    """Link a file; copy it where the file system cannot."""
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _homogeneous(intrinsics: Tensor) -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = intrinsics
    return matrix


def _matrix_text(matrix: Tensor) -> str:
    # Nine significant digits give every float32 back exactly.
    return "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in matrix.tolist())

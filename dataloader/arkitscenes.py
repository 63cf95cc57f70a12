"""Scene folders of ARKitScenes (Baruch et al., NeurIPS 2021), as its raw and its 3dod downloads have them.

``lowres_wide/``, ``vga_wide/`` or ``wide/`` with ``VIDEO_SECONDS.png``, ``*_intrinsics/VIDEO_SECONDS.pincam`` (width,
height, focal lengths and principal point in pixels), ``lowres_depth/`` (millimetres), ``confidence/`` (0 to 2), and
``lowres_wide.traj``: a line a pose, seconds, then world-to-camera as axis-angle and translation, some ten a second. The
world is in metres with z up. 3dod has these in ``VIDEO_frames/``. Pictures are read as they are stored, with the sky to
any of their sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloader.calibrated_camera import CalibratedCamera
from dataloader.file_finder import IMAGE_SUFFIXES
from dataloader.frame_checks import UNREADABLE
from dataloader.posed_images import PosedImage, build_scene
from dataloader.scannet_files import frame_files
from dataloader.scene import ARKITSCENES, Scene, mesh_path
from dataloader.sensors import SensorOptions
from utils.cameras import rigid_inverse
from utils.depth_images import DEPTH_SUFFIXES
from utils.errors import UserError, reading, short
from utils.files import read_text
from utils.rotations import axis_angle_to_matrix, matrix_to_axis_angle

TRAJECTORY = "lowres_wide.traj"
_SAME_TIME = 0.005  # seconds within which files are of one moment: names are rounded, and pictures 0.016 apart
_ROUNDED = 0.001  # seconds
_DOWNLOAD = "download it again"
_SKY = ("to the right", "at the bottom", "to the left", "at the top")


def is_arkitscenes(path: Path) -> bool:
    """Whether a folder has what only a scene of ARKitScenes has."""
    folder = _frames_folder(path)
    return (folder / TRAJECTORY).is_file() or (folder / "lowres_wide").is_dir()


def load_arkitscenes_scene(path: Path, background: float) -> Scene:
    """Open a scene folder of ARKitScenes; :class:`SensorOptions` says which photographs. Reads no pixels.

    A frame's pose is interpolated between those before and after it; one that is further than
    ``SensorOptions.largest_gap`` from either is left out.

    Args:
        background: grey level, 0 to 1, behind transparent pixels; photographs have none.

    Raises:
        UserError: a file is missing or damaged, or no frame can be used.
    """
    options, folder = SensorOptions(), _frames_folder(path)
    pictures = frame_files(folder / options.arkitscenes, IMAGE_SUFFIXES)
    if not pictures:
        raise UserError(f"{folder / options.arkitscenes} holds no photographs; SensorOptions.arkitscenes = "
                        f"{options.arkitscenes!r} reads VIDEO_SECONDS.png there: download them, or choose a folder "
                        "that is there")
    trajectory = read_trajectory(folder / TRAJECTORY)
    cameras = _Timed(frame_files(folder / f"{options.arkitscenes}_intrinsics", (".pincam",)))
    depths = _Timed(frame_files(folder / "lowres_depth", DEPTH_SUFFIXES))
    confidences = _Timed(frame_files(folder / "confidence", IMAGE_SUFFIXES))
    images, confidence_of = [], {}
    for name, file in pictures.items():
        image = _posed_image(file, trajectory, cameras, options.largest_gap)
        depth = depths.at(_seconds(name))
        confidence_of[name] = None if depth is None else confidences.at(_seconds(depth.stem))
        images.append(replace(image, depth=depth))
    scene = build_scene(path, ARKITSCENES, images, background)
    found = [confidence_of[file.stem] if depth is not None else None
             for file, depth in zip(scene.color_paths, scene.depth_paths, strict=True)]  # fmt: skip
    return replace(
        scene, metric=True, mesh_path=mesh_path(path, "_3dod_mesh.ply"),
        confidence_paths=found if any(found) and options.least_confidence else None,
        least_confidence=options.least_confidence, remarks=(*scene.remarks, *_remarks(path, scene, found, options)),
    )  # fmt: skip


@dataclass(frozen=True)
class Trajectory:
    """Poses in the order of their times.

    Attributes:
        path: of the file.
        seconds: float64 ``[P]``, ascending.
        camera_to_world: float64 ``[P, 4, 4]``, OpenCV axes.
    """

    path: Path
    seconds: np.ndarray
    camera_to_world: Tensor

    def at(self, seconds: float, largest_gap: float) -> Tensor | None:
        """The pose ``[4, 4]`` at a time: the centre on the line, and the turn along the shorter arc, between those
        before and after it; None where either is further than ``largest_gap``."""
        after = int(np.searchsorted(self.seconds, seconds))
        near = [index for index in (after - 1, after) if 0 <= index < len(self.seconds)]
        closest = min(near, key=lambda index: abs(self.seconds[index] - seconds))
        if abs(self.seconds[closest] - seconds) <= _ROUNDED:
            return self.camera_to_world[closest]
        if len(near) < 2 or max(abs(self.seconds[index] - seconds) for index in near) > largest_gap:
            return None
        first, second = self.camera_to_world[after - 1], self.camera_to_world[after]
        share = float((seconds - self.seconds[after - 1]) / (self.seconds[after] - self.seconds[after - 1]))
        pose = torch.lerp(first, second, share)
        turn = matrix_to_axis_angle(first[:3, :3].T @ second[:3, :3])
        pose[:3, :3] = first[:3, :3] @ axis_angle_to_matrix(share * turn)
        return pose


def read_trajectory(path: Path) -> Trajectory:
    """Read ``lowres_wide.traj``.

    Raises:
        UserError: it is absent (24 of the videos have none), or a line is no pose.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; a scene's poses stand there: download it, or leave the scene out if "
                        "its video has none")
    rows = []
    for number, line in enumerate(read_text(path, "a trajectory", _DOWNLOAD).splitlines(), 1):
        if line.strip():
            with reading(path, f"a trajectory: its line {number}", _DOWNLOAD):
                row = [float(word) for word in line.split()]
                if len(row) != 7 or not np.isfinite(row).all():
                    raise ValueError(f"expected a time, an axis-angle and a translation, found {short(line)}")
                rows.append(row)
    if not rows:
        raise UserError(f"{path} holds no poses; {_DOWNLOAD}")
    table = np.array(rows)
    _, first = np.unique(table[:, 0], return_index=True)
    numbers = torch.from_numpy(table[first])
    world_to_camera = torch.eye(4, dtype=torch.float64).repeat(len(numbers), 1, 1)
    world_to_camera[:, :3, :3] = axis_angle_to_matrix(numbers[:, 1:4])
    world_to_camera[:, :3, 3] = numbers[:, 4:]
    return Trajectory(path, table[first, 0], rigid_inverse(world_to_camera))


def _frames_folder(path: Path) -> Path:
    """Where the frames are: in the folder itself, or in ``VIDEO_frames/``."""
    inside = sorted(path.glob("*_frames"))
    return inside[0] if len(inside) == 1 and not (path / TRAJECTORY).is_file() else path


def _posed_image(file: Path, trajectory: Trajectory, cameras: _Timed, largest_gap: float) -> PosedImage:
    """A photograph with its pose and camera, or with what is wrong with it."""
    seconds = _seconds(file.stem)
    camera = cameras.at(seconds)
    pose, problem, calibrated = None, None, None
    if seconds is None:
        problem = "whose name does not end in a time (VIDEO_SECONDS)"
    elif (pose := trajectory.at(seconds, largest_gap)) is None:
        problem = f"without poses within {largest_gap:g} s before and after it in {TRAJECTORY}"
    elif camera is None:
        problem = "without intrinsics of its time (.pincam)"
    else:
        try:
            calibrated = read_pincam(camera).resized
        except UserError as error:
            problem = f"with intrinsics that {UNREADABLE}: {error}"
    pose = torch.eye(4, dtype=torch.float64) if pose is None else pose
    return PosedImage(file, file.name, pose, calibrated, problem=problem)


def read_pincam(path: Path) -> CalibratedCamera:
    """The pinhole camera of one photograph; raises :class:`UserError` where the file is damaged."""
    with reading(path, "a camera's intrinsics", _DOWNLOAD):
        width, height, *numbers = (float(word) for word in read_text(path).split())
        if len(numbers) != 4:
            raise ValueError(f"{len(numbers) + 2} numbers; expected width, height, focal lengths and principal point")
        size = (int(height), int(width))
        return CalibratedCamera(size, tuple(numbers[:2]), tuple(numbers[2:]), source=str(path))


class _Timed:
    """Files by the times in their names."""

    def __init__(self, files: dict[str, Path]):
        timed = sorted((seconds, path) for name, path in files.items() if (seconds := _seconds(name)) is not None)
        self._seconds, self._paths = np.array([seconds for seconds, _ in timed]), [path for _, path in timed]

    def at(self, seconds: float | None) -> Path | None:
        """The file of a moment, if there is one."""
        if seconds is None or not self._paths:
            return None
        nearest = int(np.abs(self._seconds - seconds).argmin())
        return self._paths[nearest] if abs(self._seconds[nearest] - seconds) <= _SAME_TIME else None


def _seconds(name: str) -> float | None:
    """The time at a name's end: 3418.381 of 41048190_3418.381."""
    try:
        seconds = float(name.rpartition("_")[2])
    except ValueError:
        return None
    return seconds if np.isfinite(seconds) else None


def _remarks(path: Path, scene: Scene, confidences: Sequence[Path | None], options: SensorOptions) -> list[str]:
    """What a user should know: labels, which side is up, and depth that is not there or not judged."""
    remarks = ["the scene has no labels: ARKitScenes' boxes around objects (*_3dod_annotation.json) are none, and are "
               "not read"]  # fmt: skip
    up = scene.camera_to_world[:, 2, :2].sum(0)  # the world's z axis in the pictures' x and y
    angle = float(torch.atan2(up[1], up[0]))
    sky = _SKY[round(angle / (np.pi / 2)) % 4]
    if sky != _SKY[3]:
        remarks.append(f"in most photographs the sky is {sky}: they are read as they are stored, and not turned")
    depths = [depth is not None for depth in scene.depth_paths]
    if not all(depths):
        remarks.append(f"{len(depths) - sum(depths)} of {len(depths)} photographs have no depth map of their time")
    unjudged = sum(depth and found is None for depth, found in zip(depths, confidences, strict=True))
    if unjudged and options.least_confidence:
        remarks.append(f"{unjudged} depth maps have no confidence map, and are read whole")
    return remarks

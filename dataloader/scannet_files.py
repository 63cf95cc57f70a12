"""The small files of a ScanNet scene folder: frame names, poses, intrinsics, image headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dataloader.calibrated_camera import is_plausible_focal
from dataloader.frame_checks import is_rigid, lost_poses, pose_problem, scale_remark, without_scale
from utils.cameras import scale_intrinsics
from utils.errors import UserError, reading
from utils.files import read_text
from utils.names import is_system_name, plain_name

_BETWEEN_NUMBERS = str.maketrans(",;[]", "    ")


class Entry(Protocol):
    """A matrix within another file."""

    def is_file(self) -> bool: ...

    def numbers(self) -> list[float] | None: ...


Matrix = Path | Entry
"""Where a matrix is: in a file of its own, or an entry of another."""


def frame_files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by frame name (the stem), in numeric order; empty when the folder is absent.

    Raises:
        UserError: two files have the same frame name, or one has a name that no file of a store can have.
    """
    if not folder.is_dir():
        return {}
    paths = [path for path in folder.iterdir()
             if path.suffix.lower() in suffixes and not is_system_name(path.name) and not path.is_dir()]  # fmt: skip
    files: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (numeric_key(path.stem), path.name)):
        if path.stem in files:
            raise UserError(f"{folder} holds both {files[path.stem].name} and {path.name}; remove one of them")
        files[plain_name(path.stem, folder, "frame's name")] = path
    return files


def match_frames(frames: Iterable[str], files: dict[str, Path]) -> dict[str, Path]:
    """The file of each frame that has one: that of its name, or the only one with the same number (000012 and 12)."""
    numbers: dict[int, list[str]] = {}
    for name in files:
        if name.isdecimal():
            numbers.setdefault(int(name), []).append(name)
    found = {}
    for frame in frames:
        same = [frame] if frame in files else numbers.get(int(frame), []) if frame.isdecimal() else []
        if len(same) == 1:
            found[frame] = files[same[0]]
    return found


def numeric_key(name: str) -> list[tuple[int, int, str]]:
    """A sort key: sorts 2 before 10, and names with text by their numbers too."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def read_poses(files: dict[str, Path]) -> tuple[dict[str, Tensor], dict[str, str], tuple[str, ...]]:
    """Valid camera-to-world float64 ``[4, 4]`` by frame, {frame: reason} of the others, and remarks for users.

    A file holds 4x4 or 3x4 numbers.
    """
    scales = []
    poses: dict[str, Tensor] = {}
    refused: dict[str, str] = {}
    for name, path in files.items():
        numbers = read_numbers(path)
        pose = None
        if numbers is not None and len(numbers) in (12, 16):
            whole = numbers if len(numbers) == 16 else [*numbers, 0.0, 0.0, 0.0, 1.0]
            pose, scale = without_scale(torch.tensor(whole, dtype=torch.float64).reshape(4, 4))
            scales.append(scale)
        problem = pose_problem(pose)
        if problem is None:
            poses[name] = pose
        else:
            refused[name] = problem
    refused.update(lost := lost_poses(poses))
    kept = {name: pose for name, pose in poses.items() if name not in lost}
    return kept, refused, scale_remark(scales)


def read_numbers(path: Path) -> list[float] | None:
    """All numbers of a text file, between spaces, commas, semicolons and brackets; None when it holds anything else."""
    try:
        with reading(path, "numbers"):
            return [float(word) for word in read_text(path).translate(_BETWEEN_NUMBERS).split()]
    except UserError:
        return None


def read_matrix(path: Matrix, optional: bool = False) -> Tensor:
    """A 4x4 or 3x3 matrix as float64 ``[4, 4]``; the identity when it is ``optional`` and absent.

    Raises:
        UserError: absent, or not 9 or 16 finite numbers.
    """
    if not path.is_file():
        if optional:
            return torch.eye(4, dtype=torch.float64)
        raise UserError(f"{path} does not exist; expected a 4x4 matrix there: copy it from the scene's .sens file with "
                        "the 'extract' task, or write the camera's calibration into it")
    numbers = read_numbers(path) if isinstance(path, Path) else path.numbers()
    if numbers is None or len(numbers) not in (9, 16) or not torch.isfinite(torch.tensor(numbers)).all():
        found = "text that is not numbers" if numbers is None else f"{len(numbers)} values"
        raise UserError(f"{path} holds {found}; expected 16 (4x4) or 9 (3x3) finite numbers: replace the file")
    side = 4 if len(numbers) == 16 else 3
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:side, :side] = torch.tensor(numbers, dtype=torch.float64).reshape(side, side)
    return matrix


def read_extrinsic(path: Matrix) -> Tensor:
    """The optional rigid transform of a camera, float64 ``[4, 4]``; raises :class:`UserError` when it is not rigid."""
    matrix = read_matrix(path, optional=True)
    if not is_rigid(matrix):
        raise UserError(f"{path}: {matrix.tolist()} is not a rotation and a translation; replace or delete the file")
    return matrix


def read_intrinsics(path: Matrix, size: tuple[int, int], file_size: tuple[int, int] | None = None) -> Tensor:
    """Intrinsics float64 ``[3, 3]`` of images of ``size`` (height, width).

    Args:
        path: 4x4 or 3x3 numbers.
        size: of the images beside it.
        file_size: size that the file refers to, when it is another; each row is then scaled.

    Raises:
        UserError: absent, malformed, or with a principal point in the outer quarter of the image or beyond: a sign
            that the images were resized and the file was not.
    """
    intrinsics = read_matrix(path)[:3, :3].clone()
    if file_size is not None:
        intrinsics = scale_intrinsics(intrinsics, file_size, size)
    height, width = size
    center_x, center_y = float(intrinsics[0, 2]), float(intrinsics[1, 2])
    focal, skew = (float(intrinsics[0, 0]), float(intrinsics[1, 1])), float(intrinsics[0, 1])
    if not is_plausible_focal(focal, size):
        raise UserError(f"{path}: focal lengths are {focal[0]:g} and {focal[1]:g} pixels; expected positive numbers "
                        f"that fit images of {width}x{height}: replace the file")
    if abs(skew) > focal[0] or not torch.equal(intrinsics[[1, 2, 2], [0, 0, 1]], torch.zeros_like(intrinsics[0])) or (
        intrinsics[2, 2] != 1
    ):
        raise UserError(f"{path}: {intrinsics.tolist()} is no camera matrix; expected focal lengths on the diagonal, "
                        "the principal point in the last column, 1 below it and zeros elsewhere: replace the file")
    if not (0.25 * width < center_x < 0.75 * width and 0.25 * height < center_y < 0.75 * height):
        raise UserError(f"{path}: its principal point ({center_x:g}, {center_y:g}) suggests images of about "
                        f"{2 * center_x:.0f}x{2 * center_y:.0f}, but the images are {width}x{height}; scale its first "
                        "row by the change of width and its second by the change of height")
    return intrinsics


def common_size(sizes: dict[str, tuple[int, int]], kind: str, path: Path) -> tuple[int, int]:
    """The (height, width) that all of a scene's images share, given by frame.

    Raises:
        UserError: the images have more than one size.
    """
    frames_of_size: dict[tuple[int, int], list[str]] = {}
    for name, size in sizes.items():
        frames_of_size.setdefault(size, []).append(name)
    if len(frames_of_size) > 1:
        found = ", ".join(
            f"{width}x{height} ({len(frames)}, such as frame {frames[0]})"
            for (height, width), frames in sorted(frames_of_size.items(), key=lambda item: -len(item[1]))
        )
        raise UserError(f"{path}: its {kind} images have several sizes: {found}; one set of intrinsics fits one size: "
                        "remove the odd ones or resize all to one size")
    return next(iter(frames_of_size))

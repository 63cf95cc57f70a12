"""Where a scene of ScanNet's has its files: in folders as ScanNet's Python reader writes them, or all in one.

ScanNet's C++ SensReader and 7-Scenes write ``frame-000000.color.jpg``, ``.depth.pgm`` and ``.pose.txt`` side by side,
and SensReader the cameras into ``_info.txt``, as lines ``m_calibrationColorIntrinsic = 16 numbers``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dataloader.scannet_files import Matrix, frame_files
from utils.depth_images import DEPTH_SUFFIXES, MILLIMETRES
from utils.errors import UserError, reading
from utils.files import read_text
from utils.names import is_system_name

INFO_FILE = "_info.txt"
COLOR_SUFFIXES = (".jpg", ".jpeg", ".png")
_FLAT = re.compile(r"frame-(?P<frame>\d+)\.(?P<kind>color|rgb|depth|pose)(?P<suffix>\.\w+)", re.IGNORECASE)
_SUFFIXES = {"color": COLOR_SUFFIXES, "rgb": COLOR_SUFFIXES, "depth": DEPTH_SUFFIXES, "pose": (".txt",)}


@dataclass(frozen=True)
class InfoEntry:
    """A matrix in SensReader's ``_info.txt``: 16 numbers after ``key =``."""

    path: Path
    key: str

    def __str__(self) -> str:
        return f"{self.path} ({self.key})"

    def is_file(self) -> bool:
        """Whether the file has the entry."""
        return self.key in read_info(self.path)

    def numbers(self) -> list[float] | None:
        """None when they are none."""
        try:
            return [float(word) for word in read_info(self.path)[self.key].split()]
        except ValueError:
            return None


@dataclass(frozen=True)
class Places:
    """The files of a scene.

    Attributes:
        colors, poses, depths: by frame.
        color_matrix, depth_matrix, color_extrinsic, depth_extrinsic: of the cameras; the latter three may be absent.
        depth_steps: steps of depth maps in a metre.
        depth_folder: where depth maps lie or should.
    """

    colors: dict[str, Path]
    poses: dict[str, Path]
    depths: dict[str, Path]
    color_matrix: Matrix
    depth_matrix: Matrix
    color_extrinsic: Matrix
    depth_extrinsic: Matrix
    depth_steps: float
    depth_folder: Path


def is_flat(path: Path) -> bool:
    """Whether a folder has frames as SensReader and 7-Scenes write them."""
    return any(_FLAT.fullmatch(file.name) for file in path.glob("frame-*"))


def find_places(path: Path) -> Places:
    """The files of the scene in a folder.

    Raises:
        UserError: there are no images, or no poses; two files are of the same frame; ``_info.txt`` is damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; expected a scene in ScanNet's layout (color/, pose/, intrinsic/)")
    return _in_one_folder(path) if not (path / "color").is_dir() and is_flat(path) else _in_folders(path)


def _in_folders(path: Path) -> Places:
    colors = frame_files(path / "color", COLOR_SUFFIXES)
    if not colors:
        others = sorted(file.name for file in (path / "color").glob("*") if not is_system_name(file.name))
        found = f" and found {others[0]}, which is not read" if others else ""
        raise UserError(f"{path / 'color'} holds no images; expected color/N.jpg or N.png{found}: extract the scene's "
                        ".sens file with the 'extract' task, convert the pictures, or correct the path")
    poses = frame_files(path / "pose", (".txt",))
    if not poses:
        raise UserError(f"{path / 'pose'} holds no poses; expected pose/N.txt, a 4x4 camera-to-world matrix for each "
                        "image of color/")
    folder = path / "intrinsic"
    return Places(
        colors, poses, frame_files(path / "depth", DEPTH_SUFFIXES), _matrix(path, "color"), _matrix(path, "depth"),
        folder / "extrinsic_color.txt", folder / "extrinsic_depth.txt", MILLIMETRES, path / "depth",
    )  # fmt: skip


def _matrix(path: Path, camera: str) -> Path:
    """``intrinsic/intrinsic_color.txt``, or ``intrinsics_color.txt`` as scannet_frames_25k has it; the former where
    there is neither."""
    usual, other = path / "intrinsic" / f"intrinsic_{camera}.txt", path / f"intrinsics_{camera}.txt"
    return other if other.is_file() and not usual.is_file() else usual


def _in_one_folder(path: Path) -> Places:
    found: dict[str, dict[str, Path]] = {"color": {}, "depth": {}, "pose": {}}
    for file in sorted(path.glob("frame-*")):
        match = _FLAT.fullmatch(file.name)
        if match is None or is_system_name(file.name):
            continue
        kind = match["kind"].lower()
        if match["suffix"].lower() not in _SUFFIXES[kind]:
            continue
        files = found["color" if kind == "rgb" else kind]
        if match["frame"] in files:
            raise UserError(f"{path} holds both {files[match['frame']].name} and {file.name}; remove one of them")
        files[match["frame"]] = file
    for kind, what in (("color", "frame-N.color.jpg"), ("pose", "frame-N.pose.txt")):
        if not found[kind]:
            raise UserError(f"{path} holds frames, but no {what}; extract the stream again with all of its parts")
    info = path / INFO_FILE
    if not info.is_file():
        matrices = [_matrix(path, camera) for camera in ("color", "depth")]
        if not matrices[0].is_file():
            raise UserError(f"{path} has no {INFO_FILE} and no intrinsics_color.txt; write the camera's 3x3 matrix "
                            "into the latter (7-Scenes: 585 0 320, 0 585 240, 0 0 1)")
        absent = path / "intrinsic"
        return Places(found["color"], found["pose"], found["depth"], *matrices, absent / "extrinsic_color.txt",
                      absent / "extrinsic_depth.txt", MILLIMETRES, path)  # fmt: skip
    entries = [InfoEntry(info, f"m_calibration{camera}{part}") for part in ("Intrinsic", "Extrinsic")
               for camera in ("Color", "Depth")]  # fmt: skip
    return Places(found["color"], found["pose"], found["depth"], *entries, _depth_steps(info), path)


def read_info(path: Path) -> dict[str, str]:
    """Values by key of SensReader's ``_info.txt``.

    Raises:
        UserError: it cannot be read.
    """
    pairs = (line.partition("=") for line in read_text(path, "SensReader's info").splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _depth_steps(info: Path) -> float:
    with reading(info, "SensReader's info", "extract the stream again"):
        steps = float(read_info(info).get("m_depthShift", MILLIMETRES))
        if not 1e-3 < steps < 1e9:
            raise ValueError(f"m_depthShift is {steps:g}")
        return steps

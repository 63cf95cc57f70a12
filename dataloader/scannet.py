"""ScanNet scene folders: colour and depth images with poses, intrinsics and meshes.

Layout: ``color/N.jpg``, ``depth/N.png`` (16-bit millimetres), ``pose/N.txt``, ``intrinsic/intrinsic_color.txt`` and
``intrinsic_depth.txt`` (4x4 or 3x3), optional ``extrinsic_*.txt`` (camera to sensor), ``*_vh_clean_2.ply`` and
``*_vh_clean_2.labels.ply``. Frame numbers are not zero-padded; a lost frame's pose holds -inf. Intrinsics belong to
the size of the images beside them, which differs between scenes and is read, not assumed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from dataloader.camera_list import CameraList
from dataloader.depth_registration import register_depth
from dataloader.scannet_files import frame_files, image_sizes, read_intrinsics, read_matrix, read_poses
from utils.cameras import scale_intrinsics
from utils.errors import UserError
from utils.images import read_depth, read_image, resize_image

logger = logging.getLogger(__name__)
_COLOR_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Scene:
    """A recorded scene. Images are read when asked for and never kept.

    Attributes:
        name: the folder's name.
        path: the folder.
        frames: names of the frames that have a colour image and a valid pose, in numeric order.
        color_paths, depth_paths: image of each frame; depth may be None.
        camera_to_world: float64 ``[N, 4, 4]`` of the colour camera.
        intrinsics: float64 ``[3, 3]`` of the colour camera, in pixels of ``image_size``.
        image_size: (height, width) of the colour images.
        depth_intrinsics, depth_size: the same of the depth camera; None without depth images.
        depth_to_color: float64 ``[4, 4]``, from the depth camera's coordinates to the colour camera's.
        skipped: {frame: reason} of the frames left out.
        mesh_path, label_mesh_path: where the meshes are or should be.
    """

    name: str
    path: Path
    frames: list[str]
    color_paths: list[Path]
    depth_paths: list[Path | None]
    camera_to_world: Tensor
    intrinsics: Tensor
    image_size: tuple[int, int]
    depth_intrinsics: Tensor | None
    depth_size: tuple[int, int] | None
    depth_to_color: Tensor
    mesh_path: Path
    label_mesh_path: Path
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frames)

    def read_color(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """Colour image uint8 ``[3, H, W]``, squeezed to ``size`` (height, width) if given; never cropped.

        Raises:
            UserError: the image is damaged or has another size than the scene's.
        """
        image = read_image(self.color_paths[index])
        if tuple(image.shape[-2:]) != self.image_size:
            raise UserError(f"{self.color_paths[index]} is {_size_text(image.shape[-2:])}, the scene's other images "
                            f"are {_size_text(self.image_size)}; remove the frame or bring all images to one size")
        if size is None or tuple(size) == self.image_size:
            return image
        return resize_image(image.float(), size).round().clamp(0, 255).to(torch.uint8)

    def read_depth(self, index: int, size: tuple[int, int] | None = None) -> Tensor | None:
        """Depth in metres along the optical axis, float32, 0 = none; None where the frame has no depth image.

        Args:
            index: of the frame.
            size: None for the depth camera's own pixels; (height, width) for the colour camera's view at that
                size, so that it lies on :meth:`read_color` of the same size pixel by pixel.
        """
        path = self.depth_paths[index]
        if path is None:
            return None
        depth = read_depth(path)
        if tuple(depth.shape) != self.depth_size:
            raise UserError(f"{path} is {_size_text(depth.shape)}, the scene's other depth images are "
                            f"{_size_text(self.depth_size)}; remove it or bring all depth images to one size")
        if size is None:
            return depth
        intrinsics = scale_intrinsics(self.intrinsics, self.image_size, size)
        return register_depth(depth, self.depth_intrinsics, intrinsics, size, self.depth_to_color)

    def cameras(self, size: tuple[int, int] | None = None, frames: Sequence[int] | None = None) -> CameraList:
        """The recorded trajectory at ``size`` (default: the colour images'), or its ``frames`` (indices) only."""
        cameras = CameraList(self.name, list(self.frames), self.camera_to_world, self.intrinsics, self.image_size)
        if frames is not None:
            cameras = cameras.select(frames)
        return cameras if size is None else cameras.resized(size)


def load_scannet_scene(path: str | Path, intrinsics_size: tuple[int, int] | None = None) -> Scene:
    """Open a ScanNet scene folder; reads poses and image headers, no pixels.

    Frames whose pose is lost, unreadable or not rigid, and images whose header is damaged, are left out, counted in
    one log line and listed in :attr:`Scene.skipped`.

    Args:
        path: the scene folder.
        intrinsics_size: (height, width) that the intrinsics files belong to, when the images were resized without
            them.

    Raises:
        UserError: folder, images, poses or colour intrinsics are missing, no frame is valid, image sizes are mixed,
            or the intrinsics cannot belong to images of this size.
    """
    path = Path(path)
    colors, poses = _required_files(path)
    camera_to_world, skipped = read_poses({name: poses[name] for name in colors if name in poses})
    skipped.update({name: "no pose file" for name in colors if name not in poses})
    image_size, unreadable = image_sizes({name: colors[name] for name in camera_to_world}, "colour", path)
    skipped.update(unreadable)
    frames = [name for name in camera_to_world if name not in skipped]
    if not frames:
        raise UserError(f"{path} has no usable frame: {_count_reasons(skipped)}; expected colour images with finite, "
                        "rigid poses of the same number")
    if skipped:
        logger.warning("%s: %d of %d frames left out: %s", path.name, len(skipped), len(colors),
                       _count_reasons(skipped))
    folder = path / "intrinsic"
    intrinsics = read_intrinsics(folder / "intrinsic_color.txt", image_size, intrinsics_size)
    color_extrinsic = read_matrix(folder / "extrinsic_color.txt", optional=True)
    depth_paths, depth_size, depth_intrinsics = _depth(path, frames, image_size, intrinsics)
    depth_extrinsic = read_matrix(folder / "extrinsic_depth.txt", optional=True)
    return Scene(
        name=path.resolve().name,
        path=path,
        frames=frames,
        color_paths=[colors[name] for name in frames],
        depth_paths=depth_paths,
        camera_to_world=torch.stack([camera_to_world[name] for name in frames]) @ color_extrinsic,
        intrinsics=intrinsics,
        image_size=image_size,
        depth_intrinsics=depth_intrinsics,
        depth_size=depth_size,
        depth_to_color=torch.linalg.inv(color_extrinsic) @ depth_extrinsic,
        mesh_path=_mesh_path(path, "_vh_clean_2.ply"),
        label_mesh_path=_mesh_path(path, "_vh_clean_2.labels.ply"),
        skipped=skipped,
    )


def _required_files(path: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Colour images and pose files by frame name."""
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; expected a scene in ScanNet's layout (color/, pose/, intrinsic/)")
    colors = frame_files(path / "color", _COLOR_SUFFIXES)
    if not colors:
        raise UserError(f"{path / 'color'} holds no images; expected color/N.jpg: extract the scene's .sens file with "
                        "the 'extract' task or correct the path")
    poses = frame_files(path / "pose", (".txt",))
    if not poses:
        raise UserError(f"{path / 'pose'} holds no poses; expected pose/N.txt, a 4x4 camera-to-world matrix for each "
                        "image of color/")
    return colors, poses


def _depth(
    path: Path, frames: list[str], image_size: tuple[int, int], intrinsics: Tensor
) -> tuple[list[Path | None], tuple[int, int] | None, Tensor | None]:
    """Depth image of each frame, their size, and their intrinsics."""
    files = frame_files(path / "depth", (".png",))
    present = {name: files[name] for name in frames if name in files}
    if not present:
        return [None] * len(frames), None, None
    size, unreadable = image_sizes(present, "depth", path)
    if size is None:
        raise UserError(f"{path / 'depth'}: none of its {len(present)} images can be read; replace or remove "
                        "the folder")
    if unreadable:
        logger.warning("%s: %d depth images left out: %s", path.name, len(unreadable), _count_reasons(unreadable))
    paths = [None if name in unreadable else present.get(name) for name in frames]
    file = path / "intrinsic" / "intrinsic_depth.txt"
    if file.exists():
        return paths, size, read_intrinsics(file, size)
    logger.warning("%s is absent; taking the colour camera's intrinsics for depth", file)
    return paths, size, scale_intrinsics(intrinsics, image_size, size)


def _mesh_path(path: Path, suffix: str) -> Path:
    """The mesh named after the folder, or the only one with that ending when the folder was renamed."""
    expected = path / f"{path.resolve().name}{suffix}"
    others = sorted(path.glob(f"*{suffix}"))
    return others[0] if not expected.exists() and len(others) == 1 else expected


def _count_reasons(skipped: dict[str, str]) -> str:
    counts: dict[str, int] = {}
    for reason in skipped.values():
        counts[reason] = counts.get(reason, 0) + 1
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none found"


def _size_text(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"

"""A recorded scene in any layout: posed photographs of one camera, and depth, meshes or points if available."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataloader.calibrated_camera import CalibratedCamera
from dataloader.camera_list import CameraList
from dataloader.depth_registration import register_depth
from dataloader.masks import read_white
from dataloader.undistortion import covered_pixels, undistort_depth, undistort_image
from utils.cameras import scale_intrinsics, seen_pixels
from utils.depth_images import MILLIMETRES, read_depth
from utils.errors import UserError
from utils.identity import tensor_identity, value_identity
from utils.image_files import open_image
from utils.images import one_large_image, read_alpha, read_image, resize_image
from utils.lenses import Lens
from utils.names import is_system_name

SCANNET, SCANNETPP, ARKITSCENES = "ScanNet", "ScanNet++", "ARKitScenes"


class SparsePoints(NamedTuple):
    """Surface points: positions float32 ``[P, 3]`` in the world, colours uint8 ``[P, 3]``."""

    positions: Tensor
    colors: Tensor


@dataclass(frozen=True)
class Scene:
    """A recorded scene. Images are read on demand and never kept.

    Attributes:
        name: the folder's name.
        path: the folder.
        frames: names of the frames that have a colour image and a valid pose, in numeric order.
        color_paths, depth_paths: image of each frame; depth may be None.
        mask_paths: picture of each frame that is white where its pixels are of the scene, or None; None without any.
        camera_to_world: float64 ``[N, 4, 4]`` of the colour camera.
        intrinsics: float64 ``[3, 3]`` of the colour camera, in pixels of ``image_size``.
        image_size: (height, width) of the colour images.
        depth_intrinsics, depth_size: the same of the depth camera; None without depth images.
        depth_steps: steps of whole-number depth maps in a unit of the world.
        depth_to_color: float64 ``[4, 4]``, from the depth camera's coordinates to the colour camera's.
        skipped: {frame: reason} of the frames left out.
        mesh_path, label_mesh_path: where the meshes are or should be.
        layout: "ScanNet", "ScanNet++", "ARKitScenes", "NSVF", "instant-ngp" or "COLMAP".
        metric: whether the world's unit is a metre; otherwise it is unknown, and so is which way is up.
        lens: what rays go through, of all frames; None for a pinhole. Depth is then the lens's (:mod:`utils.lenses`).
        resampled_from: the camera that took each frame, where its images have to be undistorted or resampled to match
            ``intrinsics``, ``image_size`` and ``lens``; None for a frame that needs nothing, and as a whole when none
            does.
        splits: "train", "val" or "test" of each frame, where the dataset says so.
        background: grey level, 0 to 1, put behind transparent pixels; None ignores transparency.
        transparent: whether the images have an alpha channel, which ``background`` is used for.
        points: of structure from motion, or None.
        bounds: float64 ``[2, 3]``, corners of the dataset's bounding box of the scene, or None.
        turned: whether images are turned as their EXIF tags say, or read as they are stored.
        confidence_paths: picture of each depth map that says how sure each of its pixels is, or None; None without any.
        least_confidence: depth of pixels that are less sure is no measurement.
        remarks: what else a user should know of how the folder was read, a sentence each.
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
    layout: str = SCANNET
    metric: bool = True
    lens: Lens | None = None
    resampled_from: list[CalibratedCamera | None] | None = None
    splits: list[str] | None = None
    background: float | None = None
    transparent: bool = False
    points: SparsePoints | None = None
    bounds: Tensor | None = None
    turned: bool = True
    mask_paths: list[Path | None] | None = None
    depth_steps: float = MILLIMETRES
    confidence_paths: list[Path | None] | None = None
    least_confidence: int = 0
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    def read_color(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """Colour image uint8 ``[3, H, W]``, squeezed to ``size`` (height, width) if given; never cropped.

        Raises:
            UserError: the image is damaged or has another size than the scene's.
        """
        with one_large_image(self.image_size):
            image = read_image(self.color_paths[index], self.background, self.turned)
            return self._resampled(image, index, size)

    def read_alpha(self, index: int, size: tuple[int, int] | None = None) -> Tensor | None:
        """Opacity uint8 ``[1, H, W]``, resampled as :meth:`read_color` is; None where images have no alpha channel."""
        if not self.transparent:
            return None
        with one_large_image(self.image_size):
            return self._resampled(read_alpha(self.color_paths[index], self.turned), index, size)

    @property
    def masked(self) -> bool:
        """Whether there may be pixels that are not of the scene: masked, or outside of what the lens sees."""
        return self.mask_paths is not None or self.lens is not None

    def read_mask(self, index: int, size: tuple[int, int] | None = None) -> Tensor | None:
        """Whether pixels are of the scene, bool ``[H, W]``, as :meth:`read_color` has them; None where all are.

        A pixel that is averaged from several is, where all of them are. One that the lens does not see is not.
        """
        path = None if self.mask_paths is None else self.mask_paths[index]
        seen = self._seen(index, tuple(size) if size is not None else self.image_size)
        if path is None:
            return seen
        white = torch.where(read_white(path, self.turned), 255, 0).to(torch.uint8)
        kept = self._resampled(white, index, size, path)[0] == 255
        return kept if seen is None else kept & seen

    def _seen(self, index: int, size: tuple[int, int]) -> Tensor | None:
        """Which pixels the lens, and the camera that took the frame, see, bool ``[H, W]``; None where all are."""
        if self.lens is None:
            return None
        intrinsics = scale_intrinsics(self.intrinsics, self.image_size, size)
        camera = self.resampled_from[index] if self.resampled_from else None
        seen = seen_pixels(intrinsics, size, self.lens)
        if camera is not None:
            seen = seen & covered_pixels(camera, intrinsics, size, self.lens)
        return None if bool(seen.all()) else seen

    def _resampled(
        self, image: Tensor, index: int, size: tuple[int, int] | None, path: Path | None = None
    ) -> Tensor:
        camera = self.resampled_from[index] if self.resampled_from else None
        expected = camera.size if camera else self.image_size
        if tuple(image.shape[-2:]) != expected:
            found = size_text(image.shape[-2:])
            raise UserError(f"{path or self.color_paths[index]} is {found}, the scene's other images "
                            f"are {size_text(expected)}; remove the frame or bring all images to one size")
        size = tuple(size) if size is not None else self.image_size
        if camera is not None:
            intrinsics = scale_intrinsics(self.intrinsics, self.image_size, size)
            return undistort_image(image, camera, intrinsics, size, self.lens)
        # Planes, by NumPy: many threads read frames at a time, and each would start PyTorch's own threads for this.
        return torch.from_numpy(np.ascontiguousarray(resize_image(image, size).numpy()))

    def read_depth(self, index: int, size: tuple[int, int] | None = None) -> Tensor | None:
        """Depth in metres along the optical axis, float32, 0 = none; None where the frame has no depth image.

        With a fisheye lens it is the distance along the ray.

        Args:
            index: of the frame.
            size: None for the depth camera's own pixels; (height, width) for the colour camera's view at that
                size, so that it is aligned with :meth:`read_color` of the same size.
        """
        path = self.depth_paths[index]
        if path is None:
            return None
        depth = read_depth(path, self.depth_steps)
        if tuple(depth.shape) != self.depth_size:
            raise UserError(f"{path} is {size_text(depth.shape)}, the scene's other depth images are "
                            f"{size_text(self.depth_size)}; remove it or bring all depth images to one size")
        depth = self._confident(depth, index)
        if size is None:
            return depth
        camera = self.resampled_from[index] if self.resampled_from else None
        if camera is not None:
            depth = undistort_depth(depth, camera.resized(self.depth_size), self.depth_intrinsics, self.lens)
        intrinsics = scale_intrinsics(self.intrinsics, self.image_size, size)
        return register_depth(depth, self.depth_intrinsics, intrinsics, size, self.depth_to_color)

    def _confident(self, depth: Tensor, index: int) -> Tensor:
        """Depth without what is less sure than :attr:`least_confidence`."""
        path = self.confidence_paths[index] if self.confidence_paths and self.least_confidence else None
        if path is None:
            return depth
        with open_image(path, "confidence") as image:
            confidence = torch.from_numpy(np.array(image))
        if confidence.shape != depth.shape or confidence.is_floating_point():
            raise UserError(f"{path} is {list(confidence.shape)}; expected one whole number for each pixel of its "
                            f"depth map, which is {size_text(depth.shape)}: replace it, or set "
                            "SensorOptions.least_confidence = 0")
        return torch.where(confidence >= self.least_confidence, depth, 0.0)

    def geometry_identity(self) -> str:
        """The identity of poses, cameras, and whatever else is known of the scene besides its pictures and meshes."""
        taken_by = [None if camera is None else camera.identity() for camera in self.resampled_from or ()]
        # Only what is not as usual, so that fields made before it could be otherwise stay valid.
        stored = ([] if self.turned else [False]) + ([] if self.depth_steps == MILLIMETRES else [self.depth_steps])
        stored += [] if self.confidence_paths is None else [self.least_confidence]
        stored += [] if self.lens is None else [self.lens.to_json()]
        plain = value_identity([self.image_size, self.depth_size, taken_by, self.splits, self.background, self.metric,
                                *stored])  # fmt: skip
        points = self.points or SparsePoints(None, None)
        return value_identity([plain, tensor_identity(
            self.camera_to_world, self.intrinsics, self.depth_intrinsics, self.depth_to_color, self.bounds, *points
        )])  # fmt: skip

    def cameras(self, size: tuple[int, int] | None = None, frames: Sequence[int] | None = None) -> CameraList:
        """The recorded trajectory at ``size`` (default: the colour images'), or its ``frames`` (indices) only."""
        cameras = CameraList(
            self.name, list(self.frames), self.camera_to_world, self.intrinsics, self.image_size, lens=self.lens
        )
        if frames is not None:
            cameras = cameras.select(frames)
        return cameras if size is None else cameras.resized(size)


def scene_name(path: Path) -> str:
    """A scene is called what the user calls its folder, wherever a link may lead."""
    return os.path.basename(os.path.abspath(path))


def mesh_path(path: Path, suffix: str) -> Path:
    """The mesh named after the folder, or the only one with that ending when the folder was renamed."""
    expected = path / f"{scene_name(path)}{suffix}"
    others = [file for file in sorted(path.glob(f"*{suffix}")) if not is_system_name(file.name)]
    return others[0] if not expected.exists() and len(others) == 1 else expected


def size_text(size: Sequence[int]) -> str:
    """A (height, width) as the text WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"

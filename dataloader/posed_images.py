"""A scene from a list of images with poses and cameras; all layouts without depth become one."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from dataloader.calibrated_camera import CalibratedCamera
from dataloader.file_finder import image_stem
from dataloader.frame_checks import (
    UNREADABLE,
    image_header,
    lost_poses,
    pose_problem,
    reasons_text,
    report_skipped,
    scale_remark,
    shared_turn,
    turn_remark,
    without_scale,
)
from dataloader.lens_options import LensOptions
from dataloader.masks import find_masks, mask_remark
from dataloader.scannet_files import numeric_key
from dataloader.scene import Scene, SparsePoints, mesh_path, scene_name
from dataloader.undistortion import common_camera, needs_resampling
from utils.cameras import scale_intrinsics
from utils.depth_images import MILLIMETRES, depth_size
from utils.errors import UserError
from utils.lenses import Lens
from utils.limits import FARTHEST
from utils.names import plain_name
from utils.pictures import PictureHeader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PosedImage:
    """One image of a dataset.

    Attributes:
        path: of the image.
        relative: its path as the dataset writes it, which names the frame.
        camera_to_world: float64 ``[4, 4]``, OpenCV axes; finite and rigid, or the frame is left out.
        camera: that took it, given the (height, width) of the image.
        split: "train", "val", "test" or None.
        depth: its depth map, pixel by pixel of the same camera, of any size; None without.
        mask: white where pixels are of the scene; None for what ``masks/`` holds under the image's name.
        problem: why the frame is left out in any case, such as "without a pose"; None where it is not.
    """

    path: Path
    relative: str
    camera_to_world: Tensor
    camera: Callable[[tuple[int, int]], CalibratedCamera]
    split: str | None = None
    depth: Path | None = None
    mask: Path | None = None
    problem: str | None = None


@dataclass(frozen=True)
class _Usable:
    name: str
    image: PosedImage
    header: PictureHeader

    def camera(self, turned: bool) -> CalibratedCamera:
        """Raises :class:`UserError` where the camera is not one for the image's size."""
        return self.image.camera(self.header.size if turned else self.header.stored_size)


def build_scene(
    path: Path, layout: str, images: list[PosedImage], background: float, points: SparsePoints | None = None,
    bounds: Tensor | None = None, remarks: Sequence[str] = (), depth_steps: float = MILLIMETRES,
) -> Scene:  # fmt: skip
    """The scene of ``images``, reading their headers only.

    Frames whose image is missing or damaged, whose pose is not finite and rigid, or whose camera has a much
    smaller field of view than the others, are left out, counted in one log line and listed in :attr:`Scene.skipped`.

    Raises:
        UserError: no frame is left, or a camera does not match its image.
    """
    if bounds is not None and not float(bounds.abs().max()) < FARTHEST:
        raise UserError(f"{path} ({layout} layout): its box runs from {bounds[0].tolist()} to {bounds[1].tolist()}; "
                        f"expected coordinates up to {FARTHEST:g}")
    skipped: dict[str, str] = {}
    usable, scaled = _usable_images(images, skipped)
    skipped.update(lost_poses({one.name: one.image.camera_to_world for one in usable}))
    usable = [one for one in usable if one.name not in skipped]
    turned = shared_turn([one.header for one in usable], _fitting(usable))
    options = LensOptions()
    cameras = {one.name: _limited(one.camera(turned), options) for one in usable}
    if usable:
        intrinsics, size, lens, covers = common_camera(list(cameras.values()), options)
        for one, covered in zip(usable, covers, strict=True):
            if not covered:
                skipped[one.name] = "from a camera with a much smaller field of view than the others"
        usable = [one for one in usable if one.name not in skipped]
    report_skipped(path, layout, skipped, len(images))
    used = [cameras[one.name] for one in usable]
    resampled = [camera if needs_resampling(camera, intrinsics, size, lens) else None for camera in used]
    if any(resampled):
        logger.info("%s: %d of %d images are %s of %dx%d pixels", path.name,
                    sum(camera is not None for camera in resampled), len(resampled),
                    "undistorted to one pinhole camera" if lens is None else "resampled to one camera with a lens",
                    size[1], size[0])
    splits = [one.image.split for one in usable]
    depth_paths, depth_shape, unread = _depth_maps({one.name: one.image.depth for one in usable})
    masks = find_masks(path, {one.name: (one.image.relative, one.image.mask) for one in usable})
    return Scene(
        name=scene_name(path),
        path=path,
        frames=[one.name for one in usable],
        color_paths=[one.image.path for one in usable],
        depth_paths=depth_paths,
        camera_to_world=torch.stack([one.image.camera_to_world for one in usable]),
        intrinsics=intrinsics,
        image_size=size,
        depth_intrinsics=None if depth_shape is None else scale_intrinsics(intrinsics, size, depth_shape),
        depth_size=depth_shape,
        depth_to_color=torch.eye(4, dtype=torch.float64),
        mesh_path=mesh_path(path, "_vh_clean_2.ply"),
        label_mesh_path=mesh_path(path, "_vh_clean_2.labels.ply"),
        skipped=skipped,
        layout=layout,
        metric=False,
        lens=lens,
        resampled_from=resampled if any(resampled) else None,
        splits=splits if all(splits) else None,
        background=background,
        transparent=any(one.header.transparent for one in usable),
        points=points,
        bounds=bounds,
        turned=turned,
        mask_paths=masks,
        depth_steps=depth_steps,
        remarks=(
            *remarks, *lens_remark(lens), *unread, *mask_remark(path, masks, [one.image.path for one in usable]),
            *scaled, *turn_remark([one.header for one in usable], turned),
        ),
    )


def _limited(camera: CalibratedCamera, options: LensOptions) -> CalibratedCamera:
    return replace(camera, lens=options.limited(camera.lens))


def _depth_maps(listed: dict[str, Path | None]) -> tuple[list[Path | None], tuple[int, int] | None, list[str]]:
    """Depth map of each frame, their size, and remarks about those that cannot be read."""
    sizes: dict[str, tuple[int, int]] = {}
    unreadable: dict[str, str] = {}
    for name, path in listed.items():
        if path is None:
            continue
        try:
            sizes[name], _ = depth_size(path)
        except UserError as error:
            unreadable[name] = f"with a depth map that {UNREADABLE}: {error}"
    shape = Counter(sizes.values()).most_common(1)[0][0] if sizes else None
    unreadable.update({name: f"of another size than {shape[1]}x{shape[0]}" for name, size in sizes.items()
                       if size != shape})  # fmt: skip
    paths = [path if name in sizes and name not in unreadable else None for name, path in listed.items()]
    text = [f"{len(unreadable)} depth maps are left out: {reasons_text(unreadable)}"] if unreadable else []
    return paths, shape, text


def lens_remark(lens: Lens | None) -> tuple[str, ...]:
    """That a lens is kept, so that nobody takes its pictures for a pinhole's; empty for a pinhole."""
    if lens is None:
        return ()
    kind = "fisheye" if lens.is_fisheye else "distorting"
    return (f"its {kind} lens is kept: rays go through it, and no picture is undistorted (LensOptions.keep)",)


def _fitting(usable: list[_Usable]) -> Callable[[PictureHeader, bool], bool]:
    """For :func:`shared_turn`: whether an image's camera is one for its size."""
    of_header = {id(one.header): one for one in usable}

    def fits(header: PictureHeader, turned: bool) -> bool:
        try:
            of_header[id(header)].camera(turned)
        except UserError:
            return False
        return True

    return fits


def _usable_images(images: list[PosedImage], skipped: dict[str, str]) -> tuple[list[_Usable], tuple[str, ...]]:
    """The images that can be used, in numeric order of their names, and remarks for users.

    Why the others cannot goes to ``skipped``.
    """
    scales: list[float] = []
    named = dict(zip(frame_names([image.relative for image in images]), images, strict=True))
    usable = []
    for name in sorted(named, key=lambda name: (numeric_key(name), name)):
        image = named[name]
        pose, scale = without_scale(image.camera_to_world)
        scales.append(scale)
        image = replace(image, camera_to_world=pose)
        reason = image.problem or pose_problem(pose)
        header = image_header(image.path) if reason is None else reason
        if isinstance(header, str):
            skipped[name] = header
        else:
            usable.append(_Usable(name, image, header))
    return usable, scale_remark(scales)


def frame_names(relatives: list[str]) -> list[str]:
    """A name for each image that can be a file's name: its stem, with its folders where stems are not unique.

    Raises:
        UserError: an image is listed twice, or its name cannot be a file's.
    """
    paths = [relative.replace("\\", "/") for relative in relatives]
    names = [image_stem(PurePosixPath(path).name) for path in paths]
    if len(set(names)) < len(names):
        names = [re.sub(r"/+", "_", image_stem(path)).strip("._") for path in paths]
    name, count = Counter(names).most_common(1)[0] if names else ("", 1)
    if count > 1:
        raise UserError(f"two images are called {name}; list each image once, under a name of its own")
    return [plain_name(name, relative, "frame's name") for name, relative in zip(names, relatives, strict=True)]

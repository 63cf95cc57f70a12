"""ScanNet scene folders: colour and depth images with poses, intrinsics and meshes.

Layout: ``color/N.jpg``, ``depth/N.png`` (16-bit millimetres), ``pose/N.txt``, ``intrinsic/intrinsic_color.txt`` and
``intrinsic_depth.txt`` (4x4 or 3x3), optional ``extrinsic_*.txt`` (camera to sensor), ``*_vh_clean_2.ply`` and
``*_vh_clean_2.labels.ply``. Frame numbers are not zero-padded; a lost frame's pose holds -inf. Intrinsics refer to
the size of the images beside them, which differs between scenes and is read, not assumed.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from dataloader.frame_checks import UNREADABLE, image_header, reasons_text, report_skipped, shared_turn, turn_remark
from dataloader.masks import find_masks, mask_remark
from dataloader.scannet_files import Matrix, common_size, match_frames, read_extrinsic, read_intrinsics, read_poses
from dataloader.scannet_places import Places, find_places
from dataloader.scene import Scene, mesh_path, scene_name
from utils.cameras import scale_intrinsics
from utils.depth_images import depth_size
from utils.errors import UserError
from utils.names import is_system_name
from utils.pictures import PictureHeader

logger = logging.getLogger(__name__)


def load_scannet_scene(path: str | Path, intrinsics_size: tuple[int, int] | None = None) -> Scene:
    """Open a ScanNet scene folder; reads poses and image headers, no pixels.

    Frames whose pose is lost, unreadable or not rigid, and images whose header is damaged or that are truncated, are
    left out, counted in one log line and listed in :attr:`Scene.skipped`: every stage works on the same frames.

    Args:
        path: the scene folder.
        intrinsics_size: (height, width) that the intrinsics files refer to, when the images were resized without
            them.

    Raises:
        UserError: folder, images, poses or colour intrinsics are missing, no frame is valid, image sizes are mixed,
            or the intrinsics do not match images of this size.
    """
    path = Path(path)
    places = find_places(path)
    colors = places.colors
    posed = match_frames(colors, places.poses)
    camera_to_world, skipped, remarks = read_poses(posed)
    skipped.update({name: "without pose file" for name in colors if name not in posed})
    found = {name: image_header(colors[name]) for name in camera_to_world}
    skipped.update({name: reason for name, reason in found.items() if isinstance(reason, str)})
    headers = {name: header for name, header in found.items() if isinstance(header, PictureHeader)}
    frames = list(headers)
    report_skipped(path, "ScanNet", skipped, len(colors))
    intrinsics, image_size, turned = _camera(path, headers, places.color_matrix, intrinsics_size)
    color_extrinsic = read_extrinsic(places.color_extrinsic)
    depth_paths, depth_shape, depth_intrinsics, depth_remarks = _depth(places, path, frames, image_size, intrinsics)
    depth_extrinsic = read_extrinsic(places.depth_extrinsic)
    masks = find_masks(path, {name: (colors[name].name, None) for name in frames})
    return Scene(
        name=scene_name(path),
        path=path,
        frames=frames,
        color_paths=[colors[name] for name in frames],
        depth_paths=depth_paths,
        mask_paths=masks,
        camera_to_world=torch.stack([camera_to_world[name] for name in frames]) @ color_extrinsic,
        intrinsics=intrinsics,
        image_size=image_size,
        depth_intrinsics=depth_intrinsics,
        depth_size=depth_shape,
        depth_steps=places.depth_steps,
        depth_to_color=torch.linalg.inv(color_extrinsic) @ depth_extrinsic,
        mesh_path=mesh_path(path, "_vh_clean_2.ply"),
        label_mesh_path=mesh_path(path, "_vh_clean_2.labels.ply"),
        skipped=skipped,
        turned=turned,
        remarks=(
            *remarks, *mask_remark(path, masks, [colors[name] for name in frames]),
            *turn_remark(headers.values(), turned), *depth_remarks,
        ),  # fmt: skip
    )


def _camera(
    path: Path, headers: dict[str, PictureHeader], file: Matrix, intrinsics_size: tuple[int, int] | None
) -> tuple[Tensor, tuple[int, int], bool]:
    """Intrinsics of the colour images, their size, and whether they are turned as their EXIF tags say."""

    def fits(header: PictureHeader, turned: bool) -> bool:
        try:
            read_intrinsics(file, header.size if turned else header.stored_size, intrinsics_size)
        except UserError:
            return False
        return True

    turned = shared_turn(headers.values(), fits)
    sizes = {name: header.size if turned else header.stored_size for name, header in headers.items()}
    size = common_size(sizes, "colour", path)
    return read_intrinsics(file, size, intrinsics_size), size, turned


def _depth(
    places: Places, path: Path, frames: list[str], image_size: tuple[int, int], intrinsics: Tensor
) -> tuple[list[Path | None], tuple[int, int] | None, Tensor | None, list[str]]:
    """Depth image of each frame, their size, their intrinsics, and remarks for users."""
    folder = places.depth_folder
    present = match_frames(frames, places.depths)
    if not present:
        unread = [] if folder == path else [
            file.name for file in sorted(folder.glob("*")) if not is_system_name(file.name)]  # fmt: skip
        remarks = [f"depth/ holds {len(unread)} files (such as {unread[0]}) and none that is read: expected N.png, "
                   ".tif, .pgm or .npy with the numbers of color/"] if unread else []  # fmt: skip
        return [None] * len(frames), None, None, remarks
    sizes: dict[str, tuple[int, int]] = {}
    unreadable: dict[str, str] = {}
    for name, file in present.items():
        try:
            sizes[name], _ = depth_size(file)
        except UserError as error:
            unreadable[name] = f"with a depth map that {UNREADABLE}: {error}"
    if not sizes:
        raise UserError(f"{folder}: none of its {len(present)} images can be read "
                        f"({reasons_text(unreadable)}); replace or remove the folder")
    size = common_size(sizes, "depth", path)
    remarks = []
    if unreadable:
        remarks.append(f"{len(unreadable)} depth images are left out: {reasons_text(unreadable)}")
        logger.warning("%s: %s", path.name, remarks[0])
    paths = [None if name in unreadable else present.get(name) for name in frames]
    if places.depth_matrix.is_file():
        return paths, size, read_intrinsics(places.depth_matrix, size), remarks
    logger.warning("%s is absent; taking the colour camera's intrinsics for depth", places.depth_matrix)
    return paths, size, scale_intrinsics(intrinsics, image_size, size), remarks

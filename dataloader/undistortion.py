"""Images of several cameras as those of one: a pinhole camera without blank pixels, or one with a lens that is kept."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from dataloader.calibrated_camera import CalibratedCamera, Rectangle
from dataloader.lens_options import LensOptions
from utils.cameras import pixel_grid, scale_intrinsics, seen_pixels, view_directions
from utils.errors import UserError, reading
from utils.images import resize_image
from utils.lenses import Lens

_SMALLEST_SHARE = 0.5
_COMPARED_SIDE = 96  # pixels, of the picture in which cameras' views are compared
_LARGEST_GROWTH = 16
_MAPS_KEPT = 8
_SAME = 1e-9


class CommonCamera(NamedTuple):
    """The camera that all of a scene's images are brought to.

    intrinsics float64 ``[3, 3]``; size (height, width); lens, None for a pinhole; covers: of each image, whether its
    own camera sees enough of what this one does.
    """

    intrinsics: Tensor
    size: tuple[int, int]
    lens: Lens | None
    covers: list[bool]


def common_camera(cameras: list[CalibratedCamera], options: LensOptions) -> CommonCamera:
    """The camera that took most images where its lens is kept, else the pinhole whose view all images cover.

    Args:
        cameras: of each image; at least one.
        options: which lenses are kept.
    """
    main = Counter(cameras).most_common(1)[0][0]
    if not options.keeps(main.lens):
        intrinsics, size, covers = common_pinhole(cameras)
        return CommonCamera(intrinsics, size, None, covers)
    small = tuple(max(1, round(side * min(1.0, _COMPARED_SIDE / max(main.size)))) for side in main.size)
    intrinsics = scale_intrinsics(main.intrinsics, main.size, small)
    seen = seen_pixels(intrinsics, small, main.lens)
    if not bool(seen.any()):
        raise UserError(f"{main.source}: its lens sees no pixel of its pictures (distortion {main.lens.radial}); "
                        "calibrate the camera again, or enlarge LensOptions.widest")
    shares = {camera: float(covered_pixels(camera, intrinsics, small, main.lens)[seen].double().mean())
              for camera in set(cameras)}  # fmt: skip
    covers = [shares[camera] >= _SMALLEST_SHARE for camera in cameras]
    return CommonCamera(main.intrinsics, main.size, main.lens, covers)


def common_pinhole(cameras: list[CalibratedCamera]) -> tuple[Tensor, tuple[int, int], list[bool]]:
    """The pinhole camera whose view all frames cover.

    It has the focal lengths of the camera that took most frames, so that the image centre keeps its
    resolution, and the common field of view. A camera that sees less than half of what the most common one sees does
    not count, or a single zoomed image would crop all others.

    Args:
        cameras: of each frame.

    Returns:
        intrinsics float64 ``[3, 3]``, (height, width), and whether each frame covers it.
    """
    main = Counter(cameras).most_common(1)[0][0]
    seen = {}
    for camera in set(cameras):
        with reading(camera.source, "the calibration of a camera", "calibrate it again"):
            seen[camera] = camera.visible_rectangle()
    counts = {camera: view.intersection(seen[main]).area >= _SMALLEST_SHARE * seen[main].area
              for camera, view in seen.items()}  # fmt: skip
    view = seen[main]
    for camera in cameras:
        if counts[camera]:
            view = view.intersection(seen[camera])
    intrinsics, size = _pinhole_of(view, main)
    return intrinsics, size, [counts[camera] for camera in cameras]


def _pinhole_of(view: Rectangle, camera: CalibratedCamera) -> tuple[Tensor, tuple[int, int]]:
    """Intrinsics and size of a pinhole with the camera's focal lengths that sees ``view``, less a part of a pixel."""
    (fx, fy), (width, height) = camera.focal, (view.right - view.left, view.bottom - view.top)
    columns, rows = math.floor(fx * width + 1e-6), math.floor(fy * height + 1e-6)
    if columns * rows > _LARGEST_GROWTH * camera.size[0] * camera.size[1]:
        raise UserError(f"{camera.source}: without its distortion {camera.lens.radial[:2]} the pictures would be of "
                        f"{columns}x{rows} pixels; calibrate the camera again")
    if columns < 2 or rows < 2:
        raise UserError(f"{camera.source}: its cameras have no common field of view; give the images of each camera a "
                        "scene of their own")
    center_x = -fx * view.left - (fx * width - columns) / 2
    center_y = -fy * view.top - (fy * height - rows) / 2
    return torch.tensor([[fx, 0, center_x], [0, fy, center_y], [0, 0, 1]], dtype=torch.float64), (rows, columns)


def needs_resampling(
    camera: CalibratedCamera, intrinsics: Tensor, size: tuple[int, int], lens: Lens | None = None
) -> bool:
    """Whether images of ``camera`` differ from those of the camera with ``intrinsics``, ``size`` and ``lens``."""
    same_lens = camera.lens.is_pinhole if lens is None else camera.lens == lens
    same = same_lens and camera.size == tuple(size)
    return not same or bool((camera.intrinsics - intrinsics).abs().max() > _SAME * max(size))


def undistort_image(
    image: Tensor, camera: CalibratedCamera, intrinsics: Tensor, size: tuple[int, int], lens: Lens | None = None
) -> Tensor:
    """The image that the pinhole camera, or the one with ``lens``, would have taken.

    Bilinear where pixels are kept or enlarged. Where they are reduced, it is done at twice the resolution and averaged,
    from an image that is itself reduced by area first when it is finer than that.

    Args:
        image: uint8 ``[C, h, w]``, taken by ``camera``.
        intrinsics: ``[3, 3]`` of the result, in pixels of ``size``.
        size: (height, width) of the result.
        lens: of the result; None for a pinhole.

    Returns:
        uint8 ``[C, H, W]``.
    """
    reduction = max(camera.focal[0] / float(intrinsics[0, 0]), camera.focal[1] / float(intrinsics[1, 1]))
    oversampling = 2 if reduction > 1.01 else 1
    fine_size = (size[0] * oversampling, size[1] * oversampling)
    pixels = image.float()
    surplus = reduction / oversampling
    if surplus > 1.01:
        pixels = resize_image(pixels, tuple(max(1, round(side / surplus)) for side in camera.size))
    grid, _ = _sampling_map(camera, _numbers(intrinsics, oversampling), fine_size, lens)
    fine = grid_sample(pixels[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
    return resize_image(fine, size).round().clamp(0, 255).to(torch.uint8)


def undistort_depth(
    depth: Tensor,  # float32 [h, w], measured by ``camera``
    camera: CalibratedCamera,
    intrinsics: Tensor,  # [3, 3] of the result, in pixels of the same size
    lens: Lens | None = None,
) -> Tensor:  # float32 [h, w]
    """The depth of the pinhole camera, or of the one with ``lens``: the nearest pixel's, since depths must not be
    averaged; 0 outside."""
    size = tuple(depth.shape)
    grid, _ = _sampling_map(camera, _numbers(intrinsics), size, lens)
    nearest = grid_sample(depth[None, None], grid[None], mode="nearest", padding_mode="zeros", align_corners=False)
    nearest = nearest[0, 0]
    if camera.lens.is_fisheye == (lens is not None and lens.is_fisheye):
        return nearest
    directions = view_directions(intrinsics, size, lens)
    cosine = (directions[..., 2] / directions.norm(dim=-1)).to(depth.dtype)  # depth along the axis over the distance
    return nearest * cosine if camera.lens.is_fisheye else torch.where(cosine > 0, nearest / cosine, 0.0)


def covered_pixels(
    camera: CalibratedCamera, intrinsics: Tensor, size: tuple[int, int], lens: Lens | None
) -> Tensor:  # bool [H, W]
    """Which pixels of the camera with ``intrinsics``, ``size`` and ``lens`` show what ``camera`` sees, too."""
    grid, seen = _sampling_map(camera, _numbers(intrinsics), tuple(size), lens)
    return seen & (grid.abs() <= 1).all(-1)


def _numbers(intrinsics: Tensor, factor: float = 1.0) -> tuple[float, float, float, float]:
    """(fx, cx, fy, cy), for an image so many times as large."""
    return tuple(float(intrinsics[row, column]) * factor for row, column in ((0, 0), (0, 2), (1, 1), (1, 2)))


@lru_cache(maxsize=_MAPS_KEPT)
def _sampling_map(
    camera: CalibratedCamera, numbers: tuple[float, float, float, float], size: tuple[int, int], lens: Lens | None
) -> tuple[Tensor, Tensor]:
    """Where each pixel of the camera with (fx, cx, fy, cy) and ``lens`` lies in an image of ``camera``, for grid_sample
    ``[H, W, 2]``, and whether both see it, bool ``[H, W]``."""
    fx, cx, fy, cy = numbers
    height, width = camera.size
    if lens is None:
        grid = pixel_grid(*size, dtype=torch.float64)
        points = (grid - grid.new_tensor([cx, cy])) / grid.new_tensor([fx, fy])
        pixels, seen = camera.to_pixels(points), torch.ones(size, dtype=torch.bool)
    else:
        intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
        plane, seen = camera.lens.project(view_directions(intrinsics, size, lens))
        pixels = plane * plane.new_tensor(camera.focal) + plane.new_tensor(camera.center)
        seen = seen & seen_pixels(intrinsics, size, lens)
    return (pixels * 2 / pixels.new_tensor([width, height]) - 1).float(), seen

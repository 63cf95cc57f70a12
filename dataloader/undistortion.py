"""Undistortion: images of several cameras as those of one pinhole camera, without blank pixels."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from dataloader.lens import Lens, Rectangle
from utils.cameras import pixel_grid
from utils.errors import UserError, reading
from utils.images import resize_image

_SMALLEST_SHARE = 0.5
_LARGEST_GROWTH = 16
_MAPS_KEPT = 8
_SAME = 1e-9


def common_pinhole(lenses: list[Lens]) -> tuple[Tensor, tuple[int, int], list[bool]]:
    """The pinhole camera whose view all frames cover.

    It has the focal lengths of the lens that took most frames, so that the image centre keeps its
    resolution, and the common field of view. A lens that sees less than half of what the most common one sees does
    not count, or a single zoomed image would crop all others.

    Args:
        lenses: of each frame.

    Returns:
        intrinsics float64 ``[3, 3]``, (height, width), and whether each frame covers it.
    """
    main = Counter(lenses).most_common(1)[0][0]
    seen = {}
    for lens in set(lenses):
        with reading(lens.source, "the calibration of a camera", "calibrate it again"):
            seen[lens] = lens.visible_rectangle()
    counts = {lens: view.intersection(seen[main]).area >= _SMALLEST_SHARE * seen[main].area
              for lens, view in seen.items()}  # fmt: skip
    view = seen[main]
    for lens in lenses:
        if counts[lens]:
            view = view.intersection(seen[lens])
    intrinsics, size = _pinhole_of(view, main)
    return intrinsics, size, [counts[lens] for lens in lenses]


def _pinhole_of(view: Rectangle, lens: Lens) -> tuple[Tensor, tuple[int, int]]:
    """Intrinsics and size of a camera with the lens's focal lengths that sees ``view``, less a part of a pixel."""
    (fx, fy), (width, height) = lens.focal, (view.right - view.left, view.bottom - view.top)
    columns, rows = math.floor(fx * width + 1e-6), math.floor(fy * height + 1e-6)
    if columns * rows > _LARGEST_GROWTH * lens.size[0] * lens.size[1]:
        raise UserError(f"{lens.source}: without its distortion {lens.radial[:2]} the pictures would be of "
                        f"{columns}x{rows} pixels; calibrate the camera again")
    if columns < 2 or rows < 2:
        raise UserError(f"{lens.source}: its cameras have no common field of view; give the images of each camera a "
                        "scene of their own")
    center_x = -fx * view.left - (fx * width - columns) / 2
    center_y = -fy * view.top - (fy * height - rows) / 2
    return torch.tensor([[fx, 0, center_x], [0, fy, center_y], [0, 0, 1]], dtype=torch.float64), (rows, columns)


def needs_resampling(lens: Lens, intrinsics: Tensor, size: tuple[int, int]) -> bool:
    """Whether images of ``lens`` differ from those of the pinhole camera."""
    same = lens.is_pinhole and lens.size == tuple(size)
    return not same or bool((lens.intrinsics - intrinsics).abs().max() > _SAME * max(size))


def undistort_image(image: Tensor, lens: Lens, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """The image that the pinhole camera would have taken.

    Bilinear where pixels are kept or enlarged. Where they are reduced, it is done at twice the resolution and averaged,
    from an image that is itself reduced by area first when it is finer than that.

    Args:
        image: uint8 ``[C, h, w]``, taken by ``lens``.
        intrinsics: ``[3, 3]`` of the result, in pixels of ``size``.
        size: (height, width) of the result.

    Returns:
        uint8 ``[C, H, W]``.
    """
    reduction = max(lens.focal[0] / float(intrinsics[0, 0]), lens.focal[1] / float(intrinsics[1, 1]))
    oversampling = 2 if reduction > 1.01 else 1
    fine_size = (size[0] * oversampling, size[1] * oversampling)
    pixels = image.float()
    surplus = reduction / oversampling
    if surplus > 1.01:
        pixels = resize_image(pixels, tuple(max(1, round(side / surplus)) for side in lens.size))
    numbers = tuple(float(intrinsics[row, column]) * oversampling for row, column in ((0, 0), (0, 2), (1, 1), (1, 2)))
    grid = _sampling_map(lens, numbers, fine_size)
    fine = grid_sample(pixels[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
    return resize_image(fine, size).round().clamp(0, 255).to(torch.uint8)


def undistort_nearest(
    values: Tensor,  # float32 [h, w], taken by ``lens``
    lens: Lens,
    intrinsics: Tensor,  # [3, 3] of the result, in pixels of the same size
) -> Tensor:  # float32 [h, w]
    """What the pinhole camera would have measured: the nearest value, since depths must not be averaged; 0 outside."""
    numbers = tuple(float(intrinsics[row, column]) for row, column in ((0, 0), (0, 2), (1, 1), (1, 2)))
    grid = _sampling_map(lens, numbers, tuple(values.shape))
    return grid_sample(values[None, None], grid[None], mode="nearest", padding_mode="zeros", align_corners=False)[0, 0]


@lru_cache(maxsize=_MAPS_KEPT)
def _sampling_map(lens: Lens, pinhole: tuple[float, float, float, float], size: tuple[int, int]) -> Tensor:
    """Where each pixel of the pinhole camera (fx, cx, fy, cy) lies in the image, for grid_sample ``[H, W, 2]``."""
    fx, cx, fy, cy = pinhole
    grid = pixel_grid(*size, dtype=torch.float64)
    points = (grid - grid.new_tensor([cx, cy])) / grid.new_tensor([fx, fy])
    height, width = lens.size
    return (lens.to_pixels(points) * 2 / grid.new_tensor([width, height]) - 1).float()

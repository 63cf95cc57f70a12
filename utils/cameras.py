"""Camera geometry.

One convention throughout: OpenCV axes (x right, y down, z forward), poses are camera-to-world 4x4 matrices,
the centre of the top-left pixel is at (0.5, 0.5), and an intrinsics matrix refers to one image size.
Sizes are ``(height, width)``. Depth is measured along the optical axis, distance along the ray; fisheye lenses' depth
is the distance (:mod:`utils.lenses`). A camera without a lens is a pinhole.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from utils.lenses import Lens

_GRIDS_KEPT = 8


def scale_intrinsics(intrinsics: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """Intrinsics ``[..., 3, 3]`` of an image of ``size``, for the same view resized to ``new_size``.

    Rows scale independently, so a change of aspect ratio squeezes the view and never crops it.
    """
    height, width = size
    new_height, new_width = new_size
    factor = intrinsics.new_tensor([[new_width / width], [new_height / height], [1.0]])
    return intrinsics * factor


def rigid_inverse(transform: Tensor) -> Tensor:
    """Inverse of rigid transforms ``[..., 4, 4]``: camera-to-world to world-to-camera and back."""
    rotation_inverse = transform[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(transform)
    inverse[..., :3, :3] = rotation_inverse
    inverse[..., :3, 3:] = -rotation_inverse @ transform[..., :3, 3:]
    inverse[..., 3, 3] = 1.0
    return inverse


def pixel_grid(height: int, width: int, dtype=torch.float32, device=None) -> Tensor:
    """Pixel centres ``[H, W, 2]`` as (u, v)."""
    v, u = torch.meshgrid(
        torch.arange(height, dtype=dtype, device=device) + 0.5,
        torch.arange(width, dtype=dtype, device=device) + 0.5,
        indexing="ij",
    )
    return torch.stack((u, v), dim=-1)


def pixel_directions(uv: Tensor, intrinsics: Tensor, lens: Lens | None = None) -> Tensor:
    """Camera-frame directions of depth one ``[..., 3]`` of pixels ``uv [..., 2]``; intrinsics broadcast as
    ``[..., 3, 3]``. A pixel that the lens does not see has the optical axis.
    """
    y = (uv[..., 1] - intrinsics[..., 1, 2]) / intrinsics[..., 1, 1]
    x = (uv[..., 0] - intrinsics[..., 0, 2] - intrinsics[..., 0, 1] * y) / intrinsics[..., 0, 0]
    if lens is None:
        return torch.stack((x, y, torch.ones_like(x)), dim=-1)
    directions, _ = lens.directions(torch.stack((x, y), dim=-1).double())
    return directions.to(uv.dtype)


def view_directions(intrinsics: Tensor, size: tuple[int, int], lens: Lens | None = None) -> Tensor:
    """Camera-frame directions of depth one of all pixels, float64 ``[..., H, W, 3]``, on the intrinsics' device."""
    if lens is None:
        uv = pixel_grid(*size, torch.float64, intrinsics.device)
        return pixel_directions(uv, intrinsics.double()[..., None, None, :, :])
    grids = [_lens_grid(lens, numbers, tuple(size))[0] for numbers in _rows(intrinsics)]
    grid = grids[0].expand(len(grids), *size, 3) if all(grid is grids[0] for grid in grids) else torch.stack(grids)
    return grid.to(intrinsics.device).reshape(*intrinsics.shape[:-2], *size, 3)


def seen_pixels(intrinsics: Tensor, size: tuple[int, int], lens: Lens | None) -> Tensor | None:
    """Whether each pixel is in the lens's field of view, bool ``[..., H, W]``; None without a lens, where all are."""
    if lens is None:
        return None
    seen = torch.stack([_lens_grid(lens, numbers, tuple(size))[1] for numbers in _rows(intrinsics)])
    return seen.to(intrinsics.device).reshape(*intrinsics.shape[:-2], *size)


def _rows(intrinsics: Tensor) -> list[tuple[float, ...]]:
    return [tuple(row) for row in intrinsics.double().cpu().reshape(-1, 9).tolist()]


@lru_cache(maxsize=_GRIDS_KEPT)
def _lens_grid(lens: Lens, numbers: tuple[float, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Directions ``[H, W, 3]`` of all pixels, and which of them the lens sees; solved for once a camera."""
    intrinsics = torch.tensor(numbers, dtype=torch.float64).view(3, 3)
    plane = pixel_directions(pixel_grid(*size, torch.float64), intrinsics)[..., :2]
    return lens.directions(plane)


def camera_rays(
    camera_to_world: Tensor, intrinsics: Tensor, height: int, width: int, lens: Lens | None = None
) -> tuple[Tensor, Tensor]:
    """World-space rays through all pixel centres.

    Args:
        camera_to_world: ``[..., 4, 4]``.
        intrinsics: ``[3, 3]`` or ``[..., 3, 3]``, of images of ``height`` x ``width``.
        lens: None for a pinhole.

    Returns:
        origins and unit directions, float32 ``[..., H, W, 3]``; computed in float64.
    """
    pose = camera_to_world.double()
    directions = view_directions(intrinsics.to(pose.device), (height, width), lens)
    directions = directions @ pose[..., None, :3, :3].transpose(-1, -2)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    origins = pose[..., None, None, :3, 3].expand_as(directions)
    return origins.float().contiguous(), directions.float()


def look_at(eye: Tensor, target: Tensor, up: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Tensor:
    """Camera-to-world poses ``[..., 4, 4]`` of cameras at ``eye [..., 3]`` that face ``target [..., 3]``.

    The image's up direction is as close to ``up`` as it can be. A camera that looks along ``up`` itself
    gets an arbitrary but fixed roll.
    """
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    up_vector = eye.new_tensor(up).expand_as(forward)
    right = torch.linalg.cross(forward, up_vector, dim=-1)
    length = right.norm(dim=-1, keepdim=True)
    fallback = eye.new_tensor([1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0]).expand_as(forward)
    fallback = fallback - (fallback * forward).sum(-1, keepdim=True) * forward
    right = torch.where(length > 1e-6, right, fallback)
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right, dim=-1)
    pose = torch.zeros(*eye.shape[:-1], 4, 4, dtype=eye.dtype, device=eye.device)
    pose[..., :3, 0], pose[..., :3, 1], pose[..., :3, 2] = right, down, forward
    pose[..., :3, 3] = eye
    pose[..., 3, 3] = 1.0
    return pose


def unproject(
    uv: Tensor, depth: Tensor, intrinsics: Tensor, camera_to_world: Tensor, lens: Lens | None = None
) -> Tensor:
    """World points ``[..., 3]`` of pixels ``uv [..., 2]`` at ``depth [...]`` metres.

    For a pinhole this is R K^-1 [u, v, 1] z + t. Intrinsics and poses broadcast against the pixels' leading dimensions.
    """
    points = pixel_directions(uv, intrinsics, lens) * depth[..., None]
    rotated = (camera_to_world[..., :3, :3] @ points[..., None])[..., 0]
    return rotated + camera_to_world[..., :3, 3]


def project(
    points: Tensor, intrinsics: Tensor, camera_to_world: Tensor, lens: Lens | None = None
) -> tuple[Tensor, Tensor]:
    """Pixels ``uv [..., 2]`` and depth ``[...]`` of world points ``[..., 3]``.

    Points behind the camera, or that its lens does not see, come back with negative depth; their pixel is meaningless.
    """
    offset = points - camera_to_world[..., :3, 3]
    local = (camera_to_world[..., :3, :3].transpose(-1, -2) @ offset[..., None])[..., 0]
    return project_local(local, intrinsics, lens)


def project_local(points: Tensor, intrinsics: Tensor, lens: Lens | None = None) -> tuple[Tensor, Tensor]:
    """:func:`project` of points ``[..., 3]`` in the camera's own frame."""
    if lens is not None:
        plane, seen = lens.project(points)
        x, y = plane.unbind(-1)
        uv = torch.stack((
            intrinsics[..., 0, 0] * x + intrinsics[..., 0, 1] * y + intrinsics[..., 0, 2],
            intrinsics[..., 1, 1] * y + intrinsics[..., 1, 2],
        ), dim=-1)  # fmt: skip
        return uv, torch.where(seen, lens.depth_of(points), -points.norm(dim=-1))
    homogeneous = (intrinsics @ points[..., None])[..., 0]
    return homogeneous[..., :2] / homogeneous[..., 2:], points[..., 2]


def ray_length_to_depth(distance: Tensor, intrinsics: Tensor, lens: Lens | None = None) -> Tensor:
    """Depth ``[..., H, W]`` from distance along the rays ``[..., H, W]`` of all pixels."""
    if lens is not None and lens.is_fisheye:
        return distance
    directions = view_directions(intrinsics.to(distance.device), tuple(distance.shape[-2:]), lens)
    return distance * (1.0 / directions.norm(dim=-1)).to(distance.dtype)


def opaque_depth(depth: Tensor, alpha: Tensor, opaque: float = 0.5) -> Tensor:
    """Depth of the surface from a field's expected depth, both ``[..., H, W]``; 0 where alpha is less than ``opaque``.

    Expected depth is a sum over weights that add up to alpha, so it is divided by alpha.
    """
    return torch.where(alpha >= opaque, depth / alpha.clamp(min=opaque), 0.0)

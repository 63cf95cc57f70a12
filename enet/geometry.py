"""Geometry of views as network input, from what a field knows for free: depth, normals, height, opacity.

All of it is computed from a view's depth and opacity and its own camera; nothing is learned, and no labels, no other
view and no floor are needed.

======  ========  ==================================================================================================
kind    channels  meaning
======  ========  ==================================================================================================
depth   1         of the surface along the optical axis, metres
normal  3         unit normal of the surface that faces the camera, as its components to the right, forward, and up
height  1         of the surface above the camera's centre, metres
alpha   1         opacity, 0..1
======  ========  ==================================================================================================

A pixel shows a surface where its opacity is large enough; elsewhere the first three kinds are 0, which means "nothing"
to the network as well. "Up" is the world's z; "forward" is the optical axis without its vertical part, so that a
camera's pitch and roll change nothing and a mirror image differs in the sign of one component alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from enet.inputs import GEOMETRY
from utils.cameras import opaque_depth, pixel_grid
from utils.errors import UserError
from utils.lenses import Lens

CHANNELS = ("depth", "alpha")  # of a view store, which geometry is made of
_VERTICAL = 1e-6  # length of the horizontal part of an axis that has none
_MEASURED = ("depth", "height")  # in metres: normalised by their spread over surfaces; the others are near 1 already
_RIGHT = 0  # component of a normal


def stored_channels(kinds: Sequence[str]) -> tuple[str, ...]:
    """Channels of a view store that these kinds of geometry are made of."""
    if not kinds:
        return ()
    return ("alpha",) if tuple(kinds) == ("alpha",) else CHANNELS


def gravity_frame(
    camera_to_world: Tensor,  # [..., 3, 3] rotations
) -> Tensor:
    """Rotations [..., 3, 3] from cameras' axes to (right, forward, up).

    Forward is the optical axis without its vertical part; of a camera that looks along the vertical, the direction
    that is up in its image.
    """
    up = torch.zeros_like(camera_to_world[..., 0])
    up[..., 2] = 1
    upwards, along = -_horizontal(camera_to_world[..., 1]), _horizontal(camera_to_world[..., 2])
    forward = F.normalize(torch.where(along.norm(dim=-1, keepdim=True) > _VERTICAL, along, upwards), dim=-1)
    axes = torch.stack((torch.linalg.cross(forward, up, dim=-1), forward, up), dim=-2)
    return axes @ camera_to_world


def _horizontal(vectors: Tensor) -> Tensor:
    return torch.cat((vectors[..., :2], torch.zeros_like(vectors[..., 2:])), dim=-1)


def pixel_to_gravity(
    camera_to_world: Tensor,  # [..., 3 or 4, 3 or 4] rotations or poses
    intrinsics: Tensor,  # [..., 3, 3], in pixels of the views
    lens: Lens | None = None,
) -> Tensor:
    """Matrices float32 [..., 3, 3] from pixels (u, v, 1) to points at depth 1 in :func:`gravity_frame`.

    Raises:
        UserError: the views were taken through a lens, for which no matrix says this.
    """
    if lens is not None:
        raise UserError("the network has geometry beside its colours, which is computed for pinhole views alone, and "
                        "these views have a lens: leave geometry out, or render them with LensOptions.keep = 'none'")
    rotation = camera_to_world[..., :3, :3].double()
    return (gravity_frame(rotation) @ torch.linalg.inv(intrinsics.double())).float()


def geometry_images(
    kinds: Sequence[str],
    depth: Tensor | None,  # [B, H, W] metres along the optical axis, times opacity, as fields render it
    alpha: Tensor,  # [B, H, W] 0..1
    to_gravity: Tensor,  # [B, 3, 3], see pixel_to_gravity
    surface_alpha: float,
) -> Tensor:
    """Geometry float32 [B, G, H, W] of views, the kinds' channels in their order; without waiting for the device.

    Args:
        kinds: some of :data:`enet.inputs.GEOMETRY`, in its order.
        depth: may be None where opacity alone is asked for.
        surface_alpha: opacity from which on a pixel shows a surface.
    """
    images = {"alpha": alpha[:, None]}
    if depth is not None:
        surface = opaque_depth(depth, alpha, surface_alpha)
        points = surface[:, None] * _rays(to_gravity, tuple(depth.shape[-2:]))
        images |= {"depth": surface[:, None], "height": points[:, 2:], "normal": _normals(points, surface > 0)}
    return torch.cat([images[kind] for kind in kinds], dim=1)


def _rays(to_gravity: Tensor, size: tuple[int, int]) -> Tensor:
    """Points [B, 3, H, W] at depth 1; no matrix product, which mixed precision would round."""
    u, v = pixel_grid(*size, device=to_gravity.device).unbind(-1)
    column = to_gravity[..., None, None]  # [B, 3, 3, 1, 1]
    return column[:, :, 0] * u + column[:, :, 1] * v + column[:, :, 2]


def _normals(
    points: Tensor,  # [B, 3, H, W]
    valid: Tensor,  # [B, H, W]
) -> Tensor:
    """Unit normals [B, 3, H, W] that face the camera, from the neighbours of each pixel; 0 where there are too few."""
    across, along = (_difference(points, valid[:, None], dim) for dim in (3, 2))
    normal = F.normalize(torch.linalg.cross(along, across, dim=1), dim=1, eps=1e-20)
    return torch.where(valid[:, None], normal, 0)


def _difference(points: Tensor, valid: Tensor, dim: int) -> Tensor:
    """From the pixel before to the one behind along ``dim``; the pixel itself stands for one that is not there."""
    before, behind = (torch.where(_shifted(valid, step, dim), _shifted(points, step, dim), points) for step in (1, -1))
    return behind - before


def _shifted(images: Tensor, step: int, dim: int) -> Tensor:
    """Each pixel's neighbour, at the border the pixel itself."""
    length = images.shape[dim]
    border, inner = (0, slice(0, length - 1)) if step > 0 else (length - 1, slice(1, length))
    kept = images.narrow(dim, border, 1)
    moved = images.narrow(dim, inner.start, length - 1)
    return torch.cat((kept, moved) if step > 0 else (moved, kept), dim=dim)


def mirror_signs(kinds: Sequence[str]) -> Tensor:
    """What the channels [G] of a mirrored view are multiplied by."""
    signs = [[1.0] * GEOMETRY[kind] for kind in kinds]
    for kind, values in zip(kinds, signs, strict=True):
        if kind == "normal":
            values[_RIGHT] = -1.0
    return torch.tensor([value for values in signs for value in values])


def is_measured(kinds: Sequence[str]) -> Tensor:
    """Bool [G]: which channels are lengths, to be normalised; the others are near 1 already."""
    return torch.tensor([kind in _MEASURED for kind in kinds for _ in range(GEOMETRY[kind])], dtype=torch.bool)

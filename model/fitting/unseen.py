"""How much of a view no training camera saw, by the fitted field's own depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib.plenoxel.options import RenderOptions
from model.fitting.frames import fitted_size
from model.radiance_field import RadianceField
from model.visibility import was_in_view, was_looked_past
from utils.cameras import opaque_depth, pixel_grid, scale_intrinsics, unproject
from utils.lenses import Lens

if TYPE_CHECKING:
    from dataloader import Scene

_SIDE = 96  # of the images that are compared: shares of an image, not its edges, are asked for
_MOST_VIEWS = 300
_TOLERANCE = 0.05  # a point is hidden where it is farther than a surface by more than this share
_POINTS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class TrainingViews:
    """What the training cameras see of a field.

    Attributes:
        camera_to_world: float32 ``[K, 4, 4]``.
        intrinsics: float32 ``[3, 3]``, in pixels of ``depth``.
        depth: float32 ``[K, h, w]``, of surfaces, 0 where there is none.
        lens: of all; None for pinholes.
    """

    camera_to_world: Tensor
    intrinsics: Tensor
    depth: Tensor
    lens: Lens | None = None

    @classmethod
    def render(
        cls, field: RadianceField, scene: Scene, indices: list[int], options: RenderOptions
    ) -> TrainingViews:
        """Of the scene's frames ``indices``; of more than 300 of some, evenly spread; ``ValueError`` without any."""
        if not indices:
            raise ValueError("there are no training frames, so that nothing can be said of what they saw")
        size, intrinsics = _compared(scene)
        indices = indices[:: -(-len(indices) // _MOST_VIEWS)]
        poses = scene.camera_to_world[indices]
        depth = torch.stack([_surface(field, pose, intrinsics, size, options, scene.lens) for pose in poses])
        return cls(poses.float().to(depth.device), intrinsics.float().to(depth.device), depth, scene.lens)

    def unseen_in(self, field: RadianceField, scene: Scene, index: int, options: RenderOptions) -> float:
        """:meth:`unseen` of one of the scene's frames."""
        size, intrinsics = _compared(scene)
        pose = scene.camera_to_world[index]
        valid = scene.read_mask(index, size)
        surface = _surface(field, pose, intrinsics, size, options, scene.lens)
        return self.unseen(surface, pose, None if valid is None else valid.to(surface.device))

    def unseen(self, surface: Tensor, camera_to_world: Tensor, valid: Tensor | None = None) -> float:
        """The share of a view's pixels whose surface is outside all of these views, or behind what they show.

        What has no surface counts as seen where one of them looks in the same direction and shows none, either.

        Args:
            surface: its depth ``[h, w]``, like :attr:`depth`.
            camera_to_world: ``[4, 4]``.
            valid: bool ``[h, w]``, which pixels count; None for all.
        """
        counted = torch.ones_like(surface, dtype=torch.bool) if valid is None else valid
        pose, pixels = camera_to_world.to(surface).float(), pixel_grid(*surface.shape, device=surface.device)
        found, empty = counted & (surface > 0), counted & (surface == 0)
        points = unproject(pixels[found], surface[found], self.intrinsics, pose, self.lens)
        ahead = unproject(pixels[empty], torch.ones_like(surface[empty]), self.intrinsics, pose, self.lens)
        directions = ahead - pose[:3, 3]
        seen, looked_past = points.new_zeros(len(points)).bool(), directions.new_zeros(len(directions)).bool()
        for part in range(0, len(self.depth), at_once := max(1, _POINTS_AT_ONCE // surface.numel())):
            poses, depth = self.camera_to_world[part : part + at_once], self.depth[part : part + at_once]
            intrinsics = self.intrinsics.expand(len(poses), 3, 3)
            seen |= was_in_view(points, poses, intrinsics, depth, _TOLERANCE, self.lens).any(0)
            looked_past |= was_looked_past(directions, poses, intrinsics, depth, self.lens).any(0)
        return (int((~seen).sum()) + int((~looked_past).sum())) / max(1, int(counted.sum()))


def _compared(scene: Scene) -> tuple[tuple[int, int], Tensor]:
    """The size at which views are compared, and the intrinsics there."""
    size = fitted_size(scene.image_size, _SIDE)
    return size, scale_intrinsics(scene.intrinsics, scene.image_size, size)


def _surface(
    field: RadianceField, pose: Tensor, intrinsics: Tensor, size: tuple[int, int], options: RenderOptions,
    lens: Lens | None,
) -> Tensor:
    """Depth ``[h, w]`` of what a field shows as opaque; 0 elsewhere."""
    view = field.neutral().render_view(pose, intrinsics, size, options, ("depth", "alpha"), lens=lens)
    return opaque_depth(view.depth, view.alpha)

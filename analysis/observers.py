"""The views that a field was fitted to, as observers of surfaces: which points they saw, and from how far around."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.surface import surface_depth
from dataloader import SceneTransform, ViewStore
from model.visibility import was_seen
from utils.cameras import pixel_grid, seen_pixels, unproject
from utils.errors import UserError
from utils.lenses import Lens

_POINTS_AT_ONCE = 1 << 21


class Observation(NamedTuple):
    """How points were observed.

    support: float32 ``[P]``, sum over the views that saw a point of exp(-(angle / scale)^2), where the angle is between
        their line of sight and the one that is asked about.
    angle: float32 ``[P]``, the smallest of these angles; pi where no view saw the point.
    """

    support: Tensor
    angle: Tensor


@dataclass(frozen=True)
class Observers:
    """The views that the field was fitted to, with their depth, on one device."""

    camera_to_world: Tensor  # float32 [K, 4, 4]
    intrinsics: Tensor  # float32 [K, 3, 3]
    depth: Tensor  # float32 [K, H, W], metres along the optical axis (a fisheye lens's along the ray), 0 = unknown
    each: float = 1.0  # how many views each stands for
    lens: Lens | None = None  # of all views

    @staticmethod
    def from_store(
        path: str | Path, max_views: int, exclude: frozenset[str] = frozenset(),
        depth_of: Callable[[ViewStore, int], Tensor] = surface_depth,
    ) -> Observers:  # fmt: skip
        """At most ``max_views`` views of a store, evenly spread, without the frames named in ``exclude``.

        Args:
            depth_of: a view's depth; the surfaces that are asked about must be of the same kind, the mesh's or the
                field's.

        Raises:
            UserError: the store has no depth, or no view is left.
        """
        store = ViewStore.open(path)
        chosen = spread_views(store, max_views, exclude)
        return Observers(
            camera_to_world=store.cameras.camera_to_world[chosen].float(),
            intrinsics=store.cameras.intrinsics[chosen].float(),
            depth=torch.stack([depth_of(store, index) for index in chosen]),
            lens=store.cameras.lens,
        )

    def observe(
        self,
        points: Tensor,  # float32 [P, 3]
        eye: Tensor,  # float32 [3] or [P, 3]
        angle_scale: float,
        depth_tolerance: float,
    ) -> Observation:
        """How ``points``, looked at from ``eye``, were observed; a view from there gives a support of 1."""
        direction = F.normalize(eye - points, dim=-1)
        support = torch.zeros(len(points), device=points.device)
        smallest = torch.full_like(support, math.pi)
        at_once = max(1, _POINTS_AT_ONCE // max(1, len(points)))
        parts = (values.split(at_once) for values in (self.camera_to_world, self.intrinsics, self.depth))
        for pose, intrinsics, depth in zip(*parts, strict=True):
            seen = was_seen(points, pose, intrinsics, depth, depth_tolerance, self.lens)  # [k, P]
            cosine = (F.normalize(pose[:, None, :3, 3] - points, dim=-1) * direction).sum(-1)
            angle = torch.acos(cosine.clamp(-1, 1))
            support += self.each * torch.where(seen, torch.exp(-((angle / angle_scale) ** 2)), 0.0).sum(0)
            smallest = torch.minimum(smallest, torch.where(seen, angle, math.pi).amin(0))
        return Observation(support, smallest)

    def observed_share(
        self,
        surface: Tensor,  # float32 [H, W], metres along the optical axis (a fisheye lens's along the ray), 0 = none
        intrinsics: Tensor,  # float32 [3, 3]
        camera_to_world: Tensor,  # float32 [4, 4]
        angle_scale: float,
        depth_tolerance: float,
        lens: Lens | None = None,
    ) -> float:
        """Mean saturated support (1 - exp(-support)) of the pixels that a view sees, those without a surface as 0."""
        known = surface > 0
        points = unproject(pixel_grid(*surface.shape)[known], surface[known], intrinsics, camera_to_world, lens)
        support = self.observe(points, camera_to_world[:3, 3], angle_scale, depth_tolerance).support
        seen = seen_pixels(intrinsics, tuple(surface.shape), lens)
        return float((1 - torch.exp(-support)).sum()) / (surface.numel() if seen is None else max(1, int(seen.sum())))


def spread_views(store: ViewStore, most: int, exclude: frozenset[str] = frozenset()) -> list[int]:
    """At most ``most`` views of a store, evenly spread, without the frames named in ``exclude``.

    Raises:
        UserError: no view is left.
    """
    views = [index for index, name in enumerate(store.cameras.names) if name not in exclude]
    if not views:
        raise UserError(f"{store.path} has no views left as observations; all its frames were held out")
    spread = torch.linspace(0, len(views) - 1, min(most, len(views))).round().long().unique()
    return [views[k] for k in spread.tolist()]


def frames_not_fitted(field: str | Path, store: str | Path) -> frozenset[str]:
    """Frames of a view store that a field was not fitted to, by the records in the field's folder."""
    transform = Path(field) / "trans_info.npz"
    names = frozenset(ViewStore.open(store).cameras.names)
    fitted = names.intersection(SceneTransform.load(transform).frame_ids) if transform.exists() else frozenset()
    return names - fitted if fitted else frozenset()

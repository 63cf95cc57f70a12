"""The estimated render quality of novel views' pixels, from how the scene was observed.

The paper asks for "a metric that measures the render quality in various areas of the images". A radiance field is
accurate where it was observed, from directions it was observed from. A pixel's surface point is projected into the
original views; each view in which it is visible (by that view's depth) supports it by exp(-(angle / angle_scale)^2),
where the angle is between the two viewing directions. Support saturates: 1 - exp(-support). It is multiplied with

- the field's opacity,
- exp(-difference / agreement_scale), the relative difference of the field's depth from the mesh's, where both exist,
- exp(-roughness / roughness_scale), the mean relative step of the field's depth between neighbours in 5x5 pixels:
  floaters and ragged surfaces.

``benchmarks/quality.py`` measures how this ranks the true error of novel views.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gin
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.surface import DEPTH_CHANNELS, field_depth, surface_depth
from dataloader import CameraList, Mesh, SceneTransform, ViewStore, add_channel
from model.annotation import annotate_views
from model.radiance_field import RadianceField
from utils.cameras import opaque_depth, pixel_grid, project, unproject
from utils.errors import UserError
from utils.identity import store_identity
from utils.progress import progress

_SMOOTHING = 5


@gin.configurable
@dataclass(frozen=True)
class QualityOptions:
    """What counts as observed, and what as rough.

    Attributes:
        max_views: original views used, spread evenly over the trajectory.
        angle_scale: radians; a view at this angle from the novel one supports a point by 1/e.
        depth_tolerance: relative; a view whose depth agrees to this share of the distance saw the point.
        agreement_scale: relative; quality falls to 1/e when field and mesh differ in depth by this share.
        roughness_scale: relative; quality falls to 1/e when neighbours' depths differ by this share on average.
    """

    max_views: int = 200
    angle_scale: float = 0.35
    depth_tolerance: float = 0.05
    agreement_scale: float = 0.1
    roughness_scale: float = 0.1


@dataclass(frozen=True)
class Observers:
    """The views that the field was fitted to, with their depth."""

    camera_to_world: Tensor  # float32 [K, 4, 4]
    intrinsics: Tensor  # float32 [K, 3, 3]
    depth: Tensor  # float32 [K, H, W], metres along the optical axis, 0 = unknown

    @staticmethod
    def from_store(path: str | Path, max_views: int, exclude: frozenset[str] = frozenset()) -> Observers:
        """At most ``max_views`` views of a store, evenly spread, without the frames named in ``exclude``.

        Raises:
            UserError: the store has no depth, or no view is left.
        """
        store = ViewStore.open(path)
        views = [index for index, name in enumerate(store.cameras.names) if name not in exclude]
        if not views:
            raise UserError(f"{path} has no views left as observations; all its frames were held out")
        spread = torch.linspace(0, len(views) - 1, min(max_views, len(views))).round().long().unique()
        chosen = [views[k] for k in spread.tolist()]
        return Observers(
            camera_to_world=store.cameras.camera_to_world[chosen].float(),
            intrinsics=store.cameras.intrinsics[chosen].float(),
            depth=torch.stack([surface_depth(store, index) for index in chosen]),
        )


def frames_not_fitted(field: str | Path, store: str | Path) -> frozenset[str]:
    """Frames of a view store that a field was not fitted to, by the records in the field's folder."""
    transform = Path(field) / "trans_info.npz"
    names = frozenset(ViewStore.open(store).cameras.names)
    fitted = names.intersection(SceneTransform.load(transform).frame_ids) if transform.exists() else frozenset()
    return names - fitted if fitted else frozenset()


def observation_support(
    points: Tensor,  # float32 [P, 3]
    eye: Tensor,  # float32 [3]
    observers: Observers,
    options: QualityOptions,
) -> Tensor:  # float32 [P]
    """Support of ``points`` seen from ``eye``, summed over the observers; 1 for one view from the same direction."""
    direction = F.normalize(eye - points, dim=-1)
    support = torch.zeros(len(points))
    for pose, intrinsics, depth in zip(observers.camera_to_world, observers.intrinsics, observers.depth, strict=True):
        seen = was_seen(points, pose, intrinsics, depth, options.depth_tolerance)
        cosine = (F.normalize(pose[:3, 3] - points, dim=-1) * direction).sum(-1)
        weight = torch.exp(-((torch.acos(cosine.clamp(-1, 1)) / options.angle_scale) ** 2))
        support += torch.where(seen, weight, 0.0)
    return support


def was_seen(points: Tensor, pose: Tensor, intrinsics: Tensor, depth: Tensor, tolerance: float) -> Tensor:
    """Whether each of ``points [P, 3]`` is the surface that a view's ``depth [H, W]`` shows at its pixel."""
    height, width = depth.shape
    uv, point_depth = project(points, intrinsics, pose)
    column, row = uv[:, 0].floor(), uv[:, 1].floor()
    inside = (point_depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.where(inside, row * width + column, 0.0).long()
    surface = depth.flatten()[index]
    return inside & (surface > 0) & ((point_depth - surface).abs() <= tolerance * surface)


def observed_share(
    surface: Tensor,  # float32 [H, W], metres along the optical axis, 0 = no surface
    intrinsics: Tensor,  # float32 [3, 3]
    camera_to_world: Tensor,  # float32 [4, 4]
    observers: Observers,
    options: QualityOptions,
) -> float:
    """Mean saturated support of a view's pixels, those without a surface as 0: what quality can be at most."""
    known = surface > 0
    points = unproject(pixel_grid(*surface.shape)[known], surface[known], intrinsics, camera_to_world)
    support = observation_support(points, camera_to_world[:3, 3], observers, options)
    return float((1 - torch.exp(-support)).sum()) / surface.numel()


def roughness(
    depth: Tensor,  # float32 [H, W]
) -> Tensor:  # float32 [H, W]
    """Mean relative step of depth to the right and lower neighbours over 5x5 pixels."""
    steps = F.pad(depth.diff(dim=1), (0, 1)).abs() + F.pad(depth.diff(dim=0), (0, 0, 0, 1)).abs()
    relative = steps / depth.clamp(min=1e-3)
    return F.avg_pool2d(relative[None], _SMOOTHING, 1, _SMOOTHING // 2, count_include_pad=False)[0]


def estimate_quality(
    surface: Tensor,  # float32 [H, W], metres along the optical axis, 0 = no surface; the mesh's if there is one
    field: Tensor,  # float32 [H, W], the field's depth
    alpha: Tensor,  # float32 [H, W], the field's opacity
    intrinsics: Tensor,  # float32 [3, 3]
    camera_to_world: Tensor,  # float32 [4, 4]
    observers: Observers,
    options: QualityOptions,
) -> Tensor:  # float32 [H, W] in 0..1
    """Estimated render quality of every pixel of one view; 0 where there is no surface."""
    known = surface > 0
    points = unproject(pixel_grid(*surface.shape)[known], surface[known], intrinsics, camera_to_world)
    support = observation_support(points, camera_to_world[:3, 3], observers, options)
    quality = torch.zeros_like(surface)
    quality[known] = 1 - torch.exp(-support)
    disagreement = (field - surface).abs() / surface.clamp(min=1e-3)
    penalty = disagreement / options.agreement_scale + roughness(field) / options.roughness_scale
    return quality * alpha * torch.exp(-penalty)


def view_quality(store: ViewStore, view: int, observers: Observers, options: QualityOptions) -> Tensor:
    """Quality ``[H, W]`` of one stored view; without alpha the field counts as opaque."""
    surface = surface_depth(store, view)
    return estimate_quality(
        surface,
        field_depth(store, view),
        store.read("alpha", view) if "alpha" in store.channels else torch.ones_like(surface),
        store.cameras.intrinsics[view].float(),
        store.cameras.camera_to_world[view].float(),
        observers,
        options,
    )


def expected_quality(
    field: RadianceField, mesh: Mesh, cameras: CameraList, observers: Observers, options: QualityOptions
) -> list[float]:
    """Mean quality of the views that a field would render at ``cameras``, at their image size.

    Roughness is relative to the step between pixels, so small images get somewhat lower values than large ones.
    """
    device = field.grid.device
    surfaces = annotate_views(mesh, cameras, device=device).depth.cpu()
    means = []
    for surface, pose, intrinsics in zip(surfaces, cameras.camera_to_world, cameras.intrinsics, strict=True):
        view = field.render_views(
            pose[None].to(device), intrinsics[None].to(device), cameras.image_size, outputs=("depth", "alpha")
        )
        depth, alpha = view.depth[0].float().cpu(), view.alpha[0].float().cpu()
        quality = estimate_quality(
            surface, opaque_depth(depth, alpha), alpha, intrinsics.float(), pose.float(), observers, options
        )
        means.append(float(quality.mean()))
    return means


def quality_inputs(
    novel_store: str | Path, original_store: str | Path, options: QualityOptions, exclude: frozenset[str]
) -> dict[str, Any]:
    """What determines the channel ``quality``; arguments as for :func:`add_quality`."""
    return {
        "options": asdict(options),
        "views": store_identity(novel_store, DEPTH_CHANNELS),
        "observers": store_identity(original_store, DEPTH_CHANNELS),
        "exclude": sorted(exclude),
    }


def add_quality(
    novel_store: str | Path,
    original_store: str | Path,
    options: QualityOptions,
    exclude: frozenset[str] = frozenset(),
    overwrite: bool = False,
) -> bool:
    """Add the channel ``quality`` to a store of rendered views.

    Args:
        novel_store: the store to rate; it needs the field's depth.
        original_store: the same scene's views that the field was fitted to, with depth.
        exclude: frames of ``original_store`` that were held out of the fit.
        overwrite: replace a channel that was made with other settings.

    Returns:
        False when the channel is there already.

    Raises:
        UserError: it is there with other settings, or a store has no depth.
    """
    store = ViewStore.open(novel_store)

    def fill(quality: np.ndarray) -> None:
        observers = Observers.from_store(original_store, options.max_views, exclude)
        for view in progress(range(len(store)), f"quality of {store.scene}", unit="view"):
            quality[view] = (view_quality(store, view, observers, options) * 255).round().byte().numpy()

    inputs = quality_inputs(novel_store, original_store, options, exclude)
    return add_channel(novel_store, "quality", fill, inputs, overwrite)

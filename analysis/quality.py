"""The estimated render quality of novel views' pixels, from what is known without a photograph taken there.

The paper asks for "a metric that measures the render quality in various areas of the images". What speaks of a pixel's
error (docs/quality.md, benchmarks/quality.py):

- residual: how wrong the field was from the training views, at what the pixel shows (:mod:`analysis.evidence`);
- texture: fine texture is what fields lose;
- transparency: of the field;
- support and angle: how many training views saw the surface, and from how near to the pixel's own line of sight.

The logarithm of the error is predicted by a line in these, whose coefficients were fitted on held-out frames of other
scenes; quality is exp(-error / error_scale).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.evidence import CHANNELS, Evidence
from analysis.observers import Observers, frames_not_fitted
from analysis.surface import DEPTH_CHANNELS, field_depth, surface_depth
from dataloader import CameraList, Mesh, ViewStore, add_channel
from dataloader.view_array import ViewArrayWriter
from model.annotation import annotate_views
from model.radiance_field import RadianceField
from utils.cameras import opaque_depth, pixel_grid, unproject
from utils.errors import UserError
from utils.identity import store_identity
from utils.lenses import Lens
from utils.progress import progress

FEATURES = ("residual", "texture", "transparency", "support", "angle")
_LEAST_RESIDUAL = _LEAST_TEXTURE = 1e-3  # of colour; below, logarithms would speak of rounding


@gin.configurable
@dataclass(frozen=True)
class QualityOptions:
    """What counts as observed, and how errors are predicted.

    Attributes:
        max_views: original views used, spread evenly over the trajectory.
        angle_scale: radians; a view at this angle from the novel one supports a point by 1/e.
        depth_tolerance: relative; a view whose depth agrees to this share of the distance saw the point.
        smoothing: pixels; edge of the squares over which what is known is averaged.
        prior: pixels; a voxel that as many training pixels saw has half of its residual from the scene's mean.
        error_scale: of colour, 0 to 1; quality falls to 1/e at a root-mean-square error of this size.
        coefficients: of the logarithm of the error: the intercept, then residual, texture, transparency, support and
            angle.
        coefficients_without_photographs: the same without the residual, where the training views' photographs or the
            field are not at hand.
    """

    max_views: int = 200
    angle_scale: float = 0.35
    depth_tolerance: float = 0.05
    smoothing: int = 5
    prior: float = 0.3
    error_scale: float = 0.1
    coefficients: Sequence[float] = (-0.688, 0.548, 0.029, 2.456, -0.177, 0.299)
    coefficients_without_photographs: Sequence[float] = (-2.436, 0.223, 2.184, -0.196, 0.211)

    def __post_init__(self) -> None:
        for name, count in (("coefficients", 1 + len(FEATURES)), ("coefficients_without_photographs", len(FEATURES))):
            if len(getattr(self, name)) != count:
                raise UserError(f"QualityOptions.{name} has {len(getattr(self, name))} numbers, expected {count}")
        if self.smoothing < 1 or self.smoothing % 2 == 0:
            raise UserError(f"QualityOptions.smoothing = {self.smoothing}: expected an odd number of pixels")


@dataclass(frozen=True)
class View:
    """A view that a field renders, or without photographs' evidence several, with a leading dimension.

    Attributes:
        color: float32 ``[..., 3, H, W]``.
        alpha: float32 ``[..., H, W]``, the field's opacity.
        field: float32 ``[..., H, W]``, metres along the optical axis (a fisheye lens's along the ray), the field's
            depth; 0 = none.
        surface: float32 ``[..., H, W]``, the mesh's depth if there is a mesh, else the field's; 0 = none, and no
            quality.
        camera_to_world: ``[..., 4, 4]``.
        intrinsics: ``[..., 3, 3]``.
        lens: of all; None for pinholes.
    """

    color: Tensor
    alpha: Tensor
    field: Tensor
    surface: Tensor
    camera_to_world: Tensor
    intrinsics: Tensor
    lens: Lens | None = None


@dataclass(frozen=True)
class QualityEstimator:
    """Estimates the render quality of one scene's views.

    Attributes:
        observers: the views that the field was fitted to, with the field's depth.
        options: of the estimate.
        measure_evidence: looks at their photographs, when it is first asked.
    """

    observers: Observers
    options: QualityOptions
    measure_evidence: Callable[[], Evidence | None] = lambda: None

    @cached_property
    def evidence(self) -> Evidence | None:
        """What the observers' photographs say of the field; None without."""
        return self.measure_evidence()

    @staticmethod
    def of_scene(
        store: str | Path, options: QualityOptions, field_path: str | Path | None, field: RadianceField | None = None
    ) -> QualityEstimator:
        """Of a scene's original views and its field, where there is one.

        Args:
            store: rendered original views with depth; with photographs as well, errors there are looked at.
            field_path: the field's folder, whose records say which frames were held out.
            field: loaded; None loads it if it is needed.

        Raises:
            UserError: the store has no depth, or no view is left.
        """
        exclude = frozenset() if field_path is None else frames_not_fitted(field_path, store)
        observers = Observers.from_store(store, options.max_views, exclude, field_depth)

        def measure() -> Evidence | None:
            opened = ViewStore.open(store)
            if not set(CHANNELS) <= set(opened.channels) or (field is None and field_path is None):
                return None
            loaded = RadianceField.load(field_path) if field is None else field
            return Evidence.measure(loaded, opened, options.max_views, exclude, options.prior)

        return QualityEstimator(observers, options, measure)

    def estimate(self, view: View) -> Tensor:  # float32 [..., H, W] in 0..1
        """Estimated render quality of every pixel; 0 where there is no surface."""
        quality = torch.exp(-self.error(view) / self.options.error_scale)
        return torch.where(view.surface > 0, quality, 0.0)

    def error(self, view: View) -> Tensor:  # float32 [..., H, W]
        """The predicted root-mean-square error of colour around each pixel."""
        intercept, *slopes = (self.options.coefficients if self.evidence is not None
                              else (*self.options.coefficients_without_photographs[:1], 0.0,
                                    *self.options.coefficients_without_photographs[1:]))  # fmt: skip
        features = self.features(view).unbind(-3)
        predicted = sum(slope * feature for slope, feature in zip(slopes, features, strict=True)) + intercept
        return predicted.clamp(max=0.0).exp()

    def features(self, view: View) -> Tensor:  # float32 [..., 5, H, W]
        """What is known of every pixel, in the order of ``FEATURES``; the residual is 0 where it is not known."""
        options, surface = self.options, view.surface
        residual = torch.zeros_like(surface)
        if self.evidence is not None:
            residual = self.evidence.render(view.camera_to_world, view.intrinsics, view.alpha, view.lens)
            residual = residual.clamp(min=_LEAST_RESIDUAL).log()
        texture = _smoothed(_gradient(view.color.mean(-3)), options.smoothing).clamp(min=_LEAST_TEXTURE).log()
        support, angle = self._observation(view)
        others = torch.stack((residual, (1 - view.alpha).clamp(0, 1), support, angle), dim=-3)
        residual, transparency, support, angle = _smoothed(others, options.smoothing).unbind(-3)
        return torch.stack((residual, texture, transparency, support, angle), dim=-3)

    def _observation(self, view: View) -> tuple[Tensor, Tensor]:
        """Logarithm of each pixel's support, and its smallest angle; 0 and pi where there is no surface."""
        surface, options = view.surface, self.options
        known = surface > 0
        depth = torch.where(view.field > 0, view.field, surface)  # what is rendered, right or wrong
        pose = view.camera_to_world.float()[..., None, None, :, :]
        pixels = pixel_grid(*surface.shape[-2:], device=surface.device)
        points = unproject(pixels, depth, view.intrinsics.float()[..., None, None, :, :], pose, view.lens)
        eyes = pose[..., :3, 3].expand_as(points)
        flat = (values.reshape(-1, 3) for values in (points, eyes))
        support, angle = self.observers.observe(*flat, options.angle_scale, options.depth_tolerance)
        return (torch.where(known, support.log1p().view(surface.shape), 0.0),
                torch.where(known, angle.view(surface.shape), torch.pi))  # fmt: skip


def _gradient(values: Tensor) -> Tensor:
    """Absolute slope ``[..., H, W]`` a pixel, by central differences; 0 across the border."""
    across = F.pad((values[..., 2:] - values[..., :-2]).abs() / 2, (1, 1))
    down = F.pad((values[..., 2:, :] - values[..., :-2, :]).abs() / 2, (0, 0, 1, 1))
    return torch.hypot(across, down)


def _smoothed(values: Tensor, edge: int) -> Tensor:
    """Means over squares around each pixel of ``[..., H, W]``, within the image."""
    planes = values.reshape(-1, 1, *values.shape[-2:])
    return F.avg_pool2d(planes, edge, 1, edge // 2, count_include_pad=False).reshape(values.shape)


def stored_view(store: ViewStore, view: int) -> View:
    """One view of a store; without alpha the field counts as opaque."""
    surface = surface_depth(store, view)
    alpha = store.read("alpha", view) if "alpha" in store.channels else torch.ones_like(surface)
    cameras = store.cameras
    return View(
        store.read("rgb", view), alpha, field_depth(store, view), surface, cameras.camera_to_world[view],
        cameras.intrinsics[view], cameras.lens,
    )  # fmt: skip


def expected_quality(
    estimator: QualityEstimator, field: RadianceField, mesh: Mesh, cameras: CameraList
) -> list[float]:
    """Mean quality of the views that a field would render at ``cameras``, at their image size."""
    device = field.grid.device
    surfaces = annotate_views(mesh, cameras, device=device).depth.cpu()
    means = []
    for surface, pose, intrinsics in zip(surfaces, cameras.camera_to_world, cameras.intrinsics, strict=True):
        rendered = field.render_view(
            pose.to(device), intrinsics.to(device), cameras.image_size, outputs=("rgb", "depth", "alpha"),
            lens=cameras.lens,
        )
        color, alpha, depth = (values.float().cpu() for values in (rendered.rgb, rendered.alpha, rendered.depth))
        view = View(color, alpha, opaque_depth(depth, alpha), surface, pose, intrinsics, cameras.lens)
        means.append(float(estimator.estimate(view).mean()))
    return means


def quality_inputs(
    novel_store: str | Path, original_store: str | Path, options: QualityOptions, field: str | Path | None
) -> dict[str, Any]:
    """What determines the channel ``quality``; arguments as for :func:`add_quality`."""
    exclude = frozenset() if field is None else frames_not_fitted(field, original_store)
    channels = (*DEPTH_CHANNELS, *CHANNELS)
    return {
        "options": asdict(options),
        "views": store_identity(novel_store, (*DEPTH_CHANNELS, "rgb")),
        "observers": store_identity(original_store, channels if field is not None else DEPTH_CHANNELS),
        "exclude": sorted(exclude),
    }


def add_quality(
    novel_store: str | Path,
    original_store: str | Path,
    options: QualityOptions,
    field: str | Path | None = None,
    overwrite: bool = False,
) -> bool:
    """Add the channel ``quality`` to a store of rendered views.

    Args:
        novel_store: the store to rate; it needs the field's colour and depth.
        original_store: the same scene's views that the field was fitted to, with depth, rendered from it.
        field: its folder; None without, and then photographs are not looked at.
        overwrite: replace a channel that was made with other settings.

    Returns:
        False when the channel is there already.

    Raises:
        UserError: it is there with other settings, or a store has no depth.
    """
    store = ViewStore.open(novel_store)

    def fill(quality: ViewArrayWriter) -> None:
        estimator = QualityEstimator.of_scene(original_store, options, field)
        for view in progress(range(len(store)), f"quality of {store.scene}", unit="view"):
            quality[view] = (estimator.estimate(stored_view(store, view)) * 255).round().byte().numpy()

    inputs = quality_inputs(novel_store, original_store, options, field)
    return add_channel(novel_store, "quality", fill, inputs, overwrite)

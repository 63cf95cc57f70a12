"""A fitted scene: the grid and its placement in the world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lib.plenoxel.options import RenderOptions
from lib.plenoxel.outputs import OUTPUTS
from model.capture import CaptureModel
from model.grid import PlenoxelGrid
from model.rendering import render_rays
from model.view_rays import grid_rays
from utils.cameras import camera_rays, ray_length_to_depth, seen_pixels
from utils.lenses import Lens

if TYPE_CHECKING:
    from dataloader import CameraList, SceneTransform

RAYS_AT_ONCE = 1 << 18


class RenderedView(NamedTuple):
    """A rendered view, or several with a leading dimension; outputs that were not asked for are None.

    rgb ``[3, H, W]``; sh ``[27, H, W]``; depth ``[H, W]``, expected depth in metres along the optical axis (a fisheye
    lens's along the ray): the sum of weight * depth, hence 0 where nothing is hit and too small where alpha < 1; alpha
    ``[H, W]``. All are 0 in pixels that the lens does not see.
    """

    rgb: Tensor | None
    sh: Tensor | None
    depth: Tensor | None
    alpha: Tensor | None


class PlacedViews(NamedTuple):
    """Cameras of B views as a field renders them; may be cut along the first dimension.

    pose: float64 ``[B, 4, 4]``, camera to the grid's frame; intrinsics ``[B, 3, 3]``, in pixels of the images; gain and
    offset: float32 ``[B, 3]``, exposures that are applied to rendered colours, or both None.
    """

    pose: Tensor
    intrinsics: Tensor
    gain: Tensor | None
    offset: Tensor | None

    def to(self, device: torch.device | str) -> PlacedViews:
        """The same on ``device``."""
        return PlacedViews(*(None if values is None else values.to(device) for values in self))

    def rays(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Origins and unit directions float32 ``[B, H, W, 3]`` in the grid's frame."""
        return camera_rays(self.pose, self.intrinsics, *size)


def place_views(
    transform: SceneTransform,
    capture: CaptureModel | None,
    camera_to_world: Tensor,  # [B, 4, 4]
    intrinsics: Tensor,  # [B, 3, 3]
) -> PlacedViews:
    """Cameras in the frame of a field of that transform and capture, on their own device but for the exposures."""
    exposure = (None, None) if capture is None else capture.exposure(camera_to_world)
    return PlacedViews(transform.to_grid(camera_to_world.double()), intrinsics, *exposure)


@dataclass
class RadianceField:
    """A grid, its placement in the scene's world (metres), and the exposures of its training cameras.

    Attributes:
        grid: the voxels.
        transform: from the world into the grid's frame.
        capture: its exposures are applied to rendered colours, so that they match photographs taken from there;
            None leaves the grid's own colours. SH images are always the grid's own.
    """

    grid: PlenoxelGrid
    transform: SceneTransform
    capture: CaptureModel | None = None

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> RadianceField:
        """Read a PeRFception scene folder; raises :class:`utils.errors.UserError` when it cannot be read."""
        from dataloader import load_perfception_scene

        scene = load_perfception_scene(path, device)
        return cls(PlenoxelGrid.from_scene(scene), scene.transform, CaptureModel.load(scene.path))

    def to(self, device: torch.device | str) -> RadianceField:
        """The same field on ``device``."""
        return replace(self, grid=self.grid.to(device))

    def expose(self, rgb: Tensor, camera_to_world: Tensor) -> Tensor:
        """The grid's colours ``[..., 3, H, W]`` at the exposures estimated for cameras ``[..., 4, 4]``."""
        if self.capture is None:
            return rgb
        gain, offset = (values.to(rgb.device)[..., None, None] for values in self.capture.exposure(camera_to_world))
        return rgb * gain + offset

    def neutral(self) -> RadianceField:
        """The same field, rendered at the training photographs' average exposure everywhere."""
        return replace(self, capture=None)

    def view_rays(
        self, camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int], lens: Lens | None = None
    ) -> tuple[Tensor, Tensor]:
        """Origins and unit directions ``[..., H, W, 3]`` of views, as :func:`model.view_rays.grid_rays` has them."""
        return grid_rays(self.grid, self.transform.to_grid(camera_to_world.double()), intrinsics, size, lens)

    def render_view(
        self,
        camera_to_world: Tensor,
        intrinsics: Tensor,
        size: tuple[int, int],
        options: RenderOptions | None = None,
        outputs: tuple[str, ...] = OUTPUTS,
        backend: str = "auto",
        lens: Lens | None = None,
    ) -> RenderedView:
        """Render one view: :meth:`render_views` without the leading dimension."""
        views = self.render_views(camera_to_world[None], intrinsics[None], size, options, outputs, backend, lens)
        return RenderedView(*(None if values is None else values[0] for values in views))

    @torch.no_grad()
    def render_views(
        self,
        camera_to_world: Tensor,  # [B, 4, 4]
        intrinsics: Tensor,  # [B, 3, 3]
        size: tuple[int, int],
        options: RenderOptions | None = None,
        outputs: tuple[str, ...] = OUTPUTS,
        backend: str = "auto",
        lens: Lens | None = None,
    ) -> RenderedView:
        """Render views in blocks of rows, so that working memory is bounded.

        Args:
            camera_to_world: in the scene's world frame, metres.
            intrinsics: in pixels of an image of ``size``.
            size: ``(height, width)``.
            lens: of all views; None for pinholes.

        Returns:
            Outputs with a leading dimension of B views.
        """
        placed = place_views(self.transform, self.capture, camera_to_world, intrinsics)
        return self.render_placed(placed.to(self.grid.device), size, options, outputs, backend, lens)

    @torch.no_grad()
    def render_placed(
        self,
        views: PlacedViews,
        size: tuple[int, int],
        options: RenderOptions | None = None,
        outputs: tuple[str, ...] = OUTPUTS,
        backend: str = "auto",
        lens: Lens | None = None,
        rays: tuple[Tensor, Tensor] | None = None,
    ) -> RenderedView:
        """As :meth:`render_views`, of cameras that :func:`place_views` placed and that are on the grid's device.

        Without a lens the host does not wait for the device.

        Args:
            rays: of the views (:meth:`PlacedViews.rays`) where they were made before, for several fields at once.
        """
        height, width = size
        count = len(views.pose)
        origins, directions = grid_rays(self.grid, views.pose, views.intrinsics, size, lens) if rays is None else rays
        origins, directions = (rays.reshape(count * height, width, 3) for rays in (origins, directions))
        rows = max(1, RAYS_AT_ONCE // width)
        blocks = [
            render_rays(self.grid, origins[y : y + rows], directions[y : y + rows], options, outputs, backend)
            for y in range(0, count * height, rows)
        ]
        rgb, sh, distance, alpha = (
            torch.cat(parts).reshape(count, height, width, *parts[0].shape[2:]) if parts[0] is not None else None
            for parts in zip(*blocks, strict=True)
        )
        rgb = None if rgb is None else rgb.movedim(-1, 1)
        if rgb is not None and views.gain is not None:
            rgb = rgb * views.gain[..., None, None] + views.offset[..., None, None]
        if rgb is not None and lens is not None:
            rgb = torch.where(seen_pixels(views.intrinsics, size, lens)[:, None], rgb, 0.0)
        depth = None
        if distance is not None:
            depth = ray_length_to_depth(distance / self.transform.scene_scale, views.intrinsics, lens)
        return RenderedView(rgb, None if sh is None else sh.movedim(-1, 1), depth, alpha)

    def render_cameras(
        self,
        cameras: CameraList,
        indices: Sequence[int] | None = None,
        options: RenderOptions | None = None,
        outputs: tuple[str, ...] = OUTPUTS,
        backend: str = "auto",
    ) -> Iterator[tuple[list[int], RenderedView]]:
        """Render the cameras at ``indices`` (default: all), in batches of as many views as fill a batch of rays.

        Yields:
            The indices of a batch, and its views with a leading dimension.
        """
        indices = list(range(len(cameras))) if indices is None else list(indices)
        height, width = cameras.image_size
        batch = max(1, RAYS_AT_ONCE // (height * width))
        for first in range(0, len(indices), batch):
            part = indices[first : first + batch]
            views = self.render_views(
                cameras.camera_to_world[part], cameras.intrinsics[part], cameras.image_size, options, outputs, backend,
                cameras.lens,
            )
            yield part, views

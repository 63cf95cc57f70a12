"""How well a field renders what photographs show, kept where in space that is: per voxel.

Every training view is rendered and compared with its photograph; the difference is spread into the voxels that the
pixel's ray sees, with the rendering weights, and averaged. Rendered from anywhere, the average says how wrong the field
was there from the cameras that know. Photographs of held-out frames are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.observers import spread_views
from dataloader import ViewStore
from model import render_features, spread_features
from model.radiance_field import RadianceField
from utils.lenses import Lens

CHANNELS = ("rgb", "photo")  # of the store of training views
_LEAST_ALPHA = 0.05


@dataclass(frozen=True)
class Evidence:
    """The residual of each voxel.

    Attributes:
        field: whose voxels these are.
        residual: float32 ``[V, 1]``, mean absolute colour difference of the pixels that see the voxel, 0 to 1.
    """

    field: RadianceField
    residual: Tensor

    @staticmethod
    @torch.no_grad()
    def measure(
        field: RadianceField, store: ViewStore, max_views: int, exclude: frozenset[str], prior: float
    ) -> Evidence | None:
        """From a store of the field's renders and photographs; None where it has none.

        Args:
            max_views: views used, spread evenly.
            exclude: frames that the field was not fitted to.
            prior: the weight, in pixels, of the mean over all voxels, which a voxel that no ray saw has.
        """
        if not set(CHANNELS) <= set(store.channels):
            return None
        device, grid = field.grid.device, field.grid
        total, weight = torch.zeros(grid.num_voxels, 1, device=device), torch.zeros(grid.num_voxels, device=device)
        for view in spread_views(store, max_views, exclude):
            render, photo = store.read("rgb", view), store.read("photo", view)
            difference = (matched_colors(render, photo) - photo).abs().mean(0)[..., None].to(device)
            cameras = store.cameras
            rays = field.view_rays(
                cameras.camera_to_world[view], cameras.intrinsics[view], store.size, cameras.lens
            )
            values, weights = spread_features(grid, difference.contiguous(), *rays)
            total, weight = total + values, weight + weights
        mean = total.sum() / weight.sum().clamp(min=1e-9)
        return Evidence(field, (total + prior * mean) / (weight + prior)[:, None])

    @torch.no_grad()
    def render(
        self, camera_to_world: Tensor, intrinsics: Tensor, alpha: Tensor, lens: Lens | None = None
    ) -> Tensor:  # float32 [H, W], on the CPU
        """The residual of what a camera sees; ``alpha [H, W]`` is the field's opacity there.

        Where it is not opaque, as in pixels that a lens does not see, the residual goes to 0.
        """
        rays = self.field.view_rays(camera_to_world, intrinsics, tuple(alpha.shape), lens)
        rendered = render_features(self.field.grid, self.residual, *rays)[..., 0].cpu()
        return rendered / alpha.cpu().clamp(min=_LEAST_ALPHA)


def matched_colors(
    image: Tensor,  # float32 [3, H, W]
    reference: Tensor,  # float32 [3, H, W]
) -> Tensor:  # float32 [3, H, W]
    """``image`` with the gain and offset of each channel that bring it nearest to ``reference``.

    Exposure and white balance change from photograph to photograph; that is no fault of the field.
    """
    x, y = image.flatten(1).double(), reference.flatten(1).double()
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    variance = ((x - x_mean) ** 2).mean(1, keepdim=True)
    covariance = ((x - x_mean) * (y - y_mean)).mean(1, keepdim=True)
    gain = torch.where(variance > 1e-12, covariance / variance.clamp(min=1e-12), 0.0)
    return (gain * (x - x_mean) + y_mean).reshape(image.shape).float()

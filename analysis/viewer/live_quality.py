"""The estimated render quality of the view that a browser sees, as task ``rate`` estimates it for stored views."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from analysis.quality import QualityEstimator, View
from analysis.viewer.mesh_view import mesh_view
from dataloader import Mesh
from model.radiance_field import RenderedView
from utils.cameras import opaque_depth
from utils.lenses import Lens


@dataclass(frozen=True)
class LiveQuality:
    """The estimator of a scene.

    Attributes:
        estimator: of the scene.
        mesh: where surfaces are; None takes the field's own depth for that.
    """

    estimator: QualityEstimator
    mesh: Mesh | None

    def estimate(
        self,
        view: RenderedView,
        camera_to_world: Tensor,  # float64 [4, 4]
        intrinsics: Tensor,  # float64 [3, 3]
        lens: Lens | None = None,
    ) -> Tensor:  # float32 [H, W] in 0..1, on the CPU
        """Quality of every pixel of a rendered view; 0 where there is no surface."""
        alpha = view.alpha.cpu()
        field = opaque_depth(view.depth.cpu(), alpha)
        surface = field
        if self.mesh is not None:
            surface = mesh_view(self.mesh, camera_to_world, intrinsics, alpha.shape, lens=lens).depth
        shown = View(view.rgb.float().cpu(), alpha, field, surface, camera_to_world, intrinsics, lens)
        return self.estimator.estimate(shown)

"""One optimisation step: photometric gradients, total variation, RMSProp on the voxels with a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.plenoxel import ops
from lib.plenoxel.options import RenderOptions
from model.fitting.background import BackgroundOptimizer
from model.fitting.options import FitOptimization, FitRegularization
from model.fitting.ray_sampler import RayBatch
from model.fitting.schedule import log_linear
from model.fitting.similarity import structure_gradient
from model.grid import PlenoxelGrid


class GridOptimizer:
    """Optimises a grid in place so that its renders match the photographs.

    Args:
        grid: densities and SH coefficients are updated in place.
        total_steps: over which rates and weights change.
        generator: CPU generator that draws the cells whose total variation is penalised.
        background: optimised along with the grid, where there is one.
    """

    def __init__(
        self,
        grid: PlenoxelGrid,
        optimization: FitOptimization,
        regularization: FitRegularization,
        rendering: RenderOptions,
        total_steps: int,
        generator: torch.Generator,
        background: BackgroundOptimizer | None = None,
    ):
        self.grid, self.generator = grid, generator
        self._optimization, self._regularization, self._rendering = optimization, regularization, rendering
        self._total_steps, self._background = total_steps, background
        self._cells = grid.handle.index.total_voxels
        self._variation_cells = min(self._cells, max(1, int(self._cells * regularization.tv_fraction)))
        self._losses = {
            "beta_lambda": regularization.beta,
            "sparsity_lambda": regularization.sparsity,
            "depth_lambda": regularization.depth,
            "free_space_lambda": regularization.free_space,
            "free_space_margin": regularization.free_space_margin * min(grid.voxel_size),
        }
        self._grad_density, self._grad_sh = torch.zeros_like(grid.density), torch.zeros_like(grid.sh)
        self._touched = torch.zeros_like(grid.density, dtype=torch.bool)
        self.square_density, self.square_sh = torch.zeros_like(grid.density), torch.zeros_like(grid.sh)

    def step(self, index: int, rays: RayBatch, targets: Tensor, background: float | None = None) -> Tensor:
        """Run step number ``index`` on these rays; returns the colours ``[B, 3]`` rendered before it.

        The last rays are patches, where ``FitRegularization.structure`` is not 0.
        ``background`` is the grey level behind all in this step, where it is not the rendering options'.
        """
        if self._background is None:
            targets = self._with_structure(rays, targets, background)
            rgb = self._add_ray_gradients(rays, targets, background)
        else:
            behind, transmittance = self._background.render(rays, background), torch.empty_like(targets[:, 0])
            targets = self._with_structure(rays, targets, behind)
            rgb = self._add_ray_gradients(rays, targets, behind, transmittance)
            self._background.update(index, transmittance[:, None] * (rgb - targets) * (2 / targets.numel()))
        self._update(index)
        return rgb

    def rates(self, index: int) -> tuple[float, float]:
        """Learning rates of densities and of SH coefficients at step ``index``."""
        options = self._optimization
        progress = index / max(1, self._total_steps - 1)
        delay = index / options.delay_steps if options.delay_steps else 1.0
        density_rate = log_linear(*options.density_rate, progress, delay, options.delay_factor)
        return density_rate, log_linear(*options.sh_rate, progress, delay, options.delay_factor)

    def _with_structure(self, rays: RayBatch, targets: Tensor, background: Tensor | float | None) -> Tensor:
        """Targets whose squared error has the gradient of the targets' own, and that of the patches' dissimilarity."""
        weights = self._regularization
        count = weights.patches(len(targets)) * weights.structure_side**2
        if not count:
            return targets
        patches = rays.part(slice(len(targets) - count, None))
        # With values that take gradients a GPU renders from the grid itself, and not from a copy that it had to pack.
        grid = self.grid.handle.with_values(self.grid.density.detach().requires_grad_())
        with torch.enable_grad():
            seen = ops.render_rays(grid, patches.origins, patches.directions, self._rendering, ("rgb", "alpha"))
        rgb, left = seen.rgb.detach(), 1 - seen.alpha.detach()[:, None]
        if background is not None:
            behind = background[-count:] if isinstance(background, Tensor) else background
            rgb = rgb + left * (behind - self._rendering.background_brightness)
        gradient = structure_gradient(rgb, targets[-count:], weights.structure_side)
        changed = targets.clone()
        changed[-count:] -= gradient * (weights.structure * targets.numel() / 2)
        return changed

    def _add_ray_gradients(
        self, rays: RayBatch, targets: Tensor, background: Tensor | float | None, transmittance: Tensor | None = None
    ) -> Tensor:
        return ops.fit_gradients(
            self.grid.handle, rays.origins, rays.directions, targets, self._grad_density, self._grad_sh,
            self._rendering, depth_target=rays.distances, touched=self._touched, background=background,
            transmittance=transmittance, **self._losses,
        )  # fmt: skip

    def _update(self, index: int) -> None:
        weights, options = self._regularization, self._optimization
        progress = index / max(1, self._total_steps - 1)
        count = self._variation_cells
        first = int(torch.randint(self._cells - count + 1, (1,), generator=self.generator))
        density_rate, sh_rate = self.rates(index)
        ops.update_grid(
            self.grid.handle, self._grad_density, self._grad_sh, self.square_density, self.square_sh,
            self._touched, lr_density=density_rate, lr_sh=sh_rate, beta=options.smoothing, epsilon=options.epsilon,
            first_cell=first, num_cells=count, tv_density=log_linear(*weights.tv_density, progress) / count,
            tv_sh=log_linear(*weights.tv_sh, progress) / count,
        )  # fmt: skip

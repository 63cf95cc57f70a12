"""Fitting what lies beyond the grid's box along with the grid."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.plenoxel import ops
from model.fitting.options import FitBackground
from model.fitting.ray_sampler import RayBatch
from model.fitting.schedule import log_linear
from model.options import RenderOptions
from model.sphere_layers import SphereLayers


class BackgroundOptimizer:
    """Changes sphere layers in place; a step renders them, and takes the gradient of what was rendered.

    Args:
        layers: their texture is updated in place.
        total_steps: over which rates change.
    """

    def __init__(self, layers: SphereLayers, options: FitBackground, rendering: RenderOptions, total_steps: int):
        self.layers = layers
        self._options, self._rendering, self._total_steps = options, rendering, total_steps
        self.square = torch.zeros_like(layers.texture)
        self._colors: Tensor | None = None

    def render(self, rays: RayBatch) -> Tensor:
        """Colours ``[B, 3]`` behind the grid, whose gradient the next :meth:`update` is given."""
        texture = self.layers.texture.requires_grad_()
        with torch.enable_grad():
            self._colors = self.layers.shade(
                rays.origins, rays.directions, self._rendering.step_size, self._rendering.background_brightness
            )
        self._texture = texture
        return self._colors.detach()

    def update(self, index: int, gradient: Tensor) -> None:
        """One RMSProp step, number ``index``, on the texels that the rays saw; ``gradient`` is by their colours."""
        (by_texture,) = torch.autograd.grad(self._colors, self._texture, gradient)
        texture, self._colors = self._texture.detach_(), None
        progress = index / max(1, self._total_steps - 1)
        rates = (log_linear(*self._options.color_rate, progress), log_linear(*self._options.density_rate, progress))
        for part, rate in zip((slice(0, 3), slice(3, 4)), rates, strict=True):
            flat = by_texture[part].reshape(-1)
            ops.rmsprop_step(texture[part].view(-1), flat, self.square[part].view(-1), rate, touched=flat != 0)

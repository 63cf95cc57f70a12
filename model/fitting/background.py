"""Fitting the background layers beyond the grid's box along with the grid."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.plenoxel import ops
from lib.plenoxel.layers import shade_layers_gradients
from lib.plenoxel.options import RenderOptions
from model.fitting.options import FitBackground
from model.fitting.ray_sampler import RayBatch
from model.fitting.schedule import log_linear
from model.sphere_layers import DENSITY_UNIT, SphereLayers


class BackgroundOptimizer:
    """Optimises sphere layers in place; a step renders them, and takes the gradient of what was rendered.

    Args:
        layers: their texture is updated in place.
        total_steps: over which the rate changes.
    """

    def __init__(self, layers: SphereLayers, options: FitBackground, rendering: RenderOptions, total_steps: int):
        self.layers = layers
        self._options, self._total_steps = options, total_steps
        self._step_size, self._usual = rendering.step_size, rendering.background_brightness
        self.square, self._gradient = torch.zeros_like(layers.texture), torch.zeros_like(layers.texture)
        self._touched = torch.zeros(layers.texture.shape[:2], dtype=torch.bool, device=layers.texture.device)
        self._rays: RayBatch | None = None
        self._brightness = self._usual

    def render(self, rays: RayBatch, brightness: float | None = None) -> Tensor:
        """Colours ``[B, 3]`` behind the grid, whose gradient the next :meth:`update` is given.

        ``brightness`` is the grey level behind the last layer in this step, where it is not the rendering options'.
        """
        self._rays, self._brightness = rays, self._usual if brightness is None else brightness
        return self.layers.shade(rays.origins, rays.directions, self._step_size, self._brightness)

    def update(self, index: int, gradient: Tensor) -> None:
        """One RMSProp step, number ``index``, in the rays' directions; ``gradient`` is that of their colours."""
        texture, rays = self.layers.texture, self._rays
        shade_layers_gradients(
            texture, rays.origins, rays.directions, gradient, self._gradient, self._touched, self._step_size,
            self._brightness, DENSITY_UNIT,
        )  # fmt: skip
        rate = log_linear(*self._options.rate, index / max(1, self._total_steps - 1))
        by_direction = [values.flatten(0, 1).flatten(1) for values in (texture, self._gradient, self.square)]
        ops.rmsprop_step(*by_direction, rate, touched=self._touched.flatten())
        self._touched.zero_()

"""From the images of views to the network's input, aligned to the pixel: what stored and live views have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from enet.augmentation import augment, mirrored
from enet.depth_faults import worsen
from enet.draws import Draws
from enet.geometry import geometry_images
from enet.options import AugmentationOptions, ViewOptions
from enet.picture import blurred
from enet.view_source import ViewBatch
from utils.spherical_harmonics import transform_sh_image


class ViewImages(NamedTuple):
    """Images of B views as decoded or rendered, and what their cameras decide; None is what nothing needs.

    Attributes:
        color: float32 [B, 3, H, W], 0..1.
        label: uint8 [B, H, W], class indices.
        sh: float32 [B, 27, H, W], in the field's own axes.
        depth: float32 [B, H, W], metres along the optical axis, times opacity, as fields render it.
        alpha: float32 [B, H, W], opacity.
        weight: float32 [B, H, W], 0..1.
        sh_matrices: float32 [B, 2, 9, 9], see :func:`enet.sh_frames.sh_matrices`; None where nothing is rotated or
            mirrored.
        to_gravity: float32 [B, 3, 3], see :func:`enet.geometry.pixel_to_gravity`; None without geometry.
    """

    color: Tensor
    label: Tensor
    sh: Tensor | None = None
    depth: Tensor | None = None
    alpha: Tensor | None = None
    weight: Tensor | None = None
    sh_matrices: Tensor | None = None
    to_gravity: Tensor | None = None


@dataclass(frozen=True)
class ViewFinisher:
    """Makes a :class:`ViewBatch` of images, on one device, without waiting for it.

    Attributes:
        options: of the network's input.
        geometry: kinds of it that the network takes.
        mirror_signs: of the geometry's channels.
        augmentation: of views with random numbers; None changes nothing.
    """

    options: ViewOptions
    geometry: tuple[str, ...]
    mirror_signs: Tensor
    augmentation: AugmentationOptions | None

    def __call__(self, images: ViewImages, draws: Tensor | None) -> ViewBatch:
        random = draws is not None and self.augmentation is not None
        split = Draws.split(draws) if random else None
        batch = ViewBatch(
            blurred(images.color, self.options.blur),
            None if images.sh is None else self._turned_sh(images, split),
            images.label,
            images.weight,
            self._geometry(images, split) if self.geometry else None,
        )
        return batch if split is None else augment(batch, split, self.augmentation)

    def _turned_sh(self, images: ViewImages, draws: Draws | None) -> Tensor:
        matrices = images.sh_matrices
        if matrices is None or (draws is None and self.options.sh_frame == "grid"):
            return images.sh
        if draws is None:
            return transform_sh_image(images.sh, matrices[:, 0])
        flipped = mirrored(draws, self.augmentation)[:, None, None]
        return transform_sh_image(images.sh, torch.where(flipped, matrices[:, 1], matrices[:, 0]))

    def _geometry(self, images: ViewImages, draws: Draws | None) -> Tensor:
        depth, alpha = images.depth, images.alpha
        if draws is not None:
            depth, alpha = worsen(depth, alpha, draws, self.augmentation)
        geometry = geometry_images(self.geometry, depth, alpha, images.to_gravity, self.options.surface_alpha)
        if draws is None:
            return geometry
        flipped = mirrored(draws, self.augmentation)[:, None, None, None]
        return torch.where(flipped, geometry * self.mirror_signs[:, None, None], geometry)

"""How close renders of held-out cameras come to the photographs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.options import RenderOptions
from model.radiance_field import RadianceField
from utils.cameras import scale_intrinsics

if TYPE_CHECKING:
    from dataloader import Scene

_DEPTH_STEP = 0.25


@dataclass
class HeldOutView:
    """One held-out photograph and the field's view of it.

    Attributes:
        frame: the frame's name.
        rendered: float32 ``[3, H, W]``, 0 to 1.
        photo: float32 ``[3, H, W]``, 0 to 1.
        depth: float32 ``[H, W]`` metres along the optical axis.
    """

    frame: str
    rendered: Tensor
    photo: Tensor
    depth: Tensor

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in dB."""
        return -10 * math.log10(max(float(((self.rendered - self.photo) ** 2).mean()), 1e-12))

    @property
    def ssim(self) -> float:
        """Structural similarity (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5)."""
        from torchmetrics.functional.image import structural_similarity_index_measure

        return float(structural_similarity_index_measure(self.rendered[None], self.photo[None], data_range=1.0))


def held_out_views(
    field: RadianceField, scene: Scene, indices: list[int], size: tuple[int, int], options: RenderOptions
) -> Iterator[HeldOutView]:
    """Render the scene's frames ``indices`` at ``size`` and read their photographs."""
    intrinsics = scale_intrinsics(scene.intrinsics, scene.image_size, size)
    for index in indices:
        view = field.render_view(scene.camera_to_world[index], intrinsics, size, options, outputs=("rgb", "depth"))
        photo = scene.read_color(index, size).to(view.rgb.device).float() / 255
        yield HeldOutView(scene.frames[index], view.rgb.clamp(0, 1), photo, view.depth)


def side_by_side(view: HeldOutView) -> Tensor:
    """Render and photograph beside each other, uint8 ``[3, H, 2 W]``."""
    return (torch.cat((view.rendered, view.photo), dim=2) * 255).round().to(torch.uint8).cpu()


def depth_picture(depth: Tensor) -> Tensor:
    """Depth ``[H, W]`` as a grey image with a line every quarter metre, uint8 ``[3, H, W]``."""
    near = 1 / (1 + depth)
    line = (depth % _DEPTH_STEP) / _DEPTH_STEP
    grey = (near * (0.7 + 0.3 * line)).clamp(0, 1)
    return (grey * 255).round().to(torch.uint8).expand(3, -1, -1).cpu()

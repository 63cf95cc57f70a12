"""Image quality of renders of held-out cameras against the photographs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib.plenoxel.options import RenderOptions
from model.fitting.similarity import mirrored, similarity_map
from model.radiance_field import RadianceField
from utils.cameras import scale_intrinsics
from utils.threads import ordered_map

if TYPE_CHECKING:
    from dataloader import Scene

logger = logging.getLogger(__name__)
MEASUREMENTS = ("psnr", "ssim", "psnr_given_pose", "psnr_neutral")
"""What :meth:`HeldOutView.measurements` measures."""

_DEPTH_STEP = 0.25


@dataclass
class HeldOutView:
    """One held-out photograph and the field's view of it.

    Attributes:
        frame: the frame's name.
        rendered: float32 ``[3, H, W]``, 0 to 1, at the pose and exposure estimated for this camera.
        exposed: the same at the given pose.
        neutral: the same at the given pose and at the average exposure.
        photo: float32 ``[3, H, W]``, 0 to 1.
        depth: float32 ``[H, W]`` metres along the optical axis, a fisheye lens's along the ray.
        valid: bool ``[H, W]``, which pixels are of the scene and measured; None for all.
    """

    frame: str
    rendered: Tensor
    exposed: Tensor
    neutral: Tensor
    photo: Tensor
    depth: Tensor
    valid: Tensor | None = None

    def measurements(self) -> dict[str, float]:
        """PSNR and SSIM, and PSNR at the given pose, and at that and the average exposure."""
        return {
            "psnr": psnr(self.rendered, self.photo, self.valid),
            "ssim": ssim(self.rendered, self.photo, self.valid),
            "psnr_given_pose": psnr(self.exposed, self.photo, self.valid),
            "psnr_neutral": psnr(self.neutral, self.photo, self.valid),
        }


def psnr(image: Tensor, target: Tensor, valid: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of images with values 0 to 1, over the pixels ``valid [H, W]``."""
    squared = (image - target) ** 2
    mean = squared.mean() if valid is None else squared[..., valid].mean()
    return -10 * math.log10(max(float(mean), 1e-12))


def ssim(image: Tensor, target: Tensor, valid: Tensor | None = None) -> float:
    """Structural similarity of images ``[3, H, W]`` (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5).

    As torchmetrics computes it, whose import takes longer than many fits. Of windows whose centre is ``valid [H, W]``;
    what is not counts as equal within them.
    """
    if valid is not None:
        target = torch.where(valid, target, image)
    similarity = similarity_map(mirrored(image.double()), mirrored(target.double()))
    return float(similarity.mean() if valid is None else similarity[..., valid].mean())


def render_held_out(
    field: RadianceField, scene: Scene, indices: list[int], size: tuple[int, int], options: RenderOptions
) -> Iterator[HeldOutView]:
    """Render the scene's frames ``indices`` at ``size`` and read their photographs; all values are clamped to 0..1."""
    intrinsics = scale_intrinsics(scene.intrinsics, scene.image_size, size)
    photos = ordered_map(lambda index: (scene.read_color(index, size), scene.read_mask(index, size)), indices)
    for index, (photo, mask) in zip(indices, photos, strict=True):
        if mask is not None and not bool(mask.any()):
            logger.warning("%s: frame %s is masked as a whole, and not measured", scene.name, scene.frames[index])
            continue
        pose = scene.camera_to_world[index]
        view = field.neutral().render_view(
            pose, intrinsics, size, options, outputs=("rgb", "depth"), lens=scene.lens
        )
        exposed = field.expose(view.rgb, pose)
        shown = exposed
        if field.capture is not None and field.capture.moved:
            estimated = field.capture.estimated_pose(pose)
            neutral = field.neutral().render_view(estimated, intrinsics, size, options, ("rgb",), lens=scene.lens)
            shown = field.expose(neutral.rgb, pose)
        yield HeldOutView(
            frame=scene.frames[index],
            rendered=shown.clamp(0, 1),
            exposed=exposed.clamp(0, 1),
            neutral=view.rgb.clamp(0, 1),
            photo=photo.to(view.rgb.device).float() / 255,
            depth=view.depth,
            valid=None if mask is None else mask.to(view.rgb.device),
        )


def mean_measurements(
    measured: list[dict[str, float]], names: Sequence[str] = MEASUREMENTS
) -> dict[str, float | None]:
    """Means over views of the measurements called ``names``; None where there are no views."""
    return {
        name: math.fsum(values[name] for values in measured) / len(measured) if measured else None for name in names
    }


def side_by_side(view: HeldOutView) -> Tensor:
    """Render and photograph side by side, uint8 ``[3, H, 2 W]``."""
    return (torch.cat((view.rendered, view.photo), dim=2) * 255).round().to(torch.uint8).cpu()


def depth_picture(depth: Tensor) -> Tensor:
    """Depth ``[H, W]`` as a grey image with an isoline every quarter metre, uint8 ``[3, H, W]``."""
    near = 1 / (1 + depth)
    line = (depth % _DEPTH_STEP) / _DEPTH_STEP
    grey = (near * (0.7 + 0.3 * line)).clamp(0, 1)
    return (grey * 255).round().to(torch.uint8).expand(3, -1, -1).cpu()

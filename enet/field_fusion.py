"""From predictions of views to classes of a field's voxels, and back to classes of views."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dataloader import CameraList
from lib.plenoxel.options import RenderOptions
from model import RadianceField, render_features
from model.fusion import FusionOptions, accumulate_views, entropy, mean_of
from model.fusion_refinement import RefinementOptions, refine_fused
from model.semantic_field import SemanticField, class_of
from utils.labels import UNANNOTATED, label_set, label_settings

_VERSION = 1  # of the computation: increased whenever the same settings give other classes
_RAYS_AT_ONCE = 1 << 18
_ENOUGH = 0.5  # of a ray's weight


def fusion_inputs(device: torch.device, options: FusionOptions) -> dict[str, Any]:
    """What determines fused classes beside field, cameras and predictions, as settings of an output."""
    return {
        "fusion": asdict(options), "refinement": asdict(RefinementOptions()),
        "options": asdict(RenderOptions()), "device": device.type, "version": _VERSION, **label_settings(),
    }  # fmt: skip


def fuse_predictions(
    field: RadianceField,
    predicted: Sequence[tuple[CameraList, Iterable[Tensor]]],
    options: FusionOptions | None = None,
) -> SemanticField:
    """The semantic field of predictions.

    Args:
        field: of the scene.
        predicted: of each view store cameras and, in their order, probabilities ``[n, C, h, w]``, with channel 0, what
            is no class. They are read once.
        options: how much a prediction counts; default ``FusionOptions()``.
    """
    sums, evidence = 0, 0
    for cameras, probabilities in predicted:
        further = accumulate_views(
            field.grid, map(classes_only, probabilities), cameras.camera_to_world, cameras.intrinsics,
            cameras.image_size, field.transform, options=options, lens=cameras.lens,
        )  # fmt: skip
        sums, evidence = sums + further[0], evidence + further[1]
    mean = mean_of(sums, evidence)
    refined = refine_fused(field.grid, mean, evidence, field.transform.scene_scale)
    return SemanticField(refined, evidence, certainty_of(mean))


def classes_only(
    probabilities: Tensor,  # [n, C, ...]
) -> Tensor:  # float32 [n, C, ...]
    """The same of the classes alone: channel 0 is 0, and the others sum to 1."""
    classes = probabilities.float().clone()
    classes[:, UNANNOTATED] = 0
    return classes / classes.sum(1, keepdim=True).clamp(min=1e-6)


def render_labels(
    field: RadianceField, semantic: SemanticField, cameras: CameraList
) -> Iterator[tuple[range, Tensor, Tensor]]:
    """Views, their fused classes uint8 ``[n, H, W]``, 0 where nothing was fused, and their confidence."""
    height, width = cameras.image_size
    at_once = max(1, _RAYS_AT_ONCE // (height * width))
    for first in range(0, len(cameras), at_once):
        views = range(first, min(first + at_once, len(cameras)))
        poses, intrinsics = (values[first : views.stop] for values in (cameras.camera_to_world, cameras.intrinsics))
        origins, directions = (rays.flatten(0, 1) for rays in field.view_rays(
            poses, intrinsics, cameras.image_size, cameras.lens
        ))
        images = (values.reshape(len(views), height, width)
                  for values in render_classes(field, semantic, origins, directions))  # fmt: skip
        yield views, *images


def render_classes(
    field: RadianceField,
    semantic: SemanticField,
    origins: Tensor,  # [R, 3]
    directions: Tensor,  # [R, 3]
    options: RenderOptions | None = None,
) -> tuple[Tensor, Tensor]:
    """Fused classes uint8 ``[R]`` that rays show, 0 where nothing was fused, and their confidence ``[R]``, 0 to 1.

    The confidence is the mean certainty of the voxels that a ray shows; less, in proportion, where less than half of
    the ray ends where something was fused. More of it says nothing of a label: it is how thin the field's surfaces are
    (docs/fusion.md).
    """
    features = torch.cat((semantic.probabilities, semantic.certainty[:, None]), 1)
    seen = render_features(field.grid, features, origins, directions, options)
    classes, total = seen[..., :-1], seen[..., 1:-1].sum(-1)
    certainty = seen[..., -1] / total.clamp(min=1e-6)
    return class_of(classes), ((total / _ENOUGH).clamp(0, 1) * certainty).clamp(0, 1)



def certainty_of(
    probabilities: Tensor,  # [..., C]
) -> Tensor:  # [...]
    """1 - entropy of a distribution over the classes, as a share of the uniform one's; 0 where all are 0."""
    classes = probabilities[..., UNANNOTATED + 1 :]
    total = classes.sum(-1)
    share = classes / total[..., None].clamp(min=1e-6)
    uniform = math.log(max(label_set().num_classes - 1, 2))
    unsure = entropy(share.movedim(-1, 0)[None])[0] / uniform
    return torch.where(total > 0, (1 - unsure).clamp(0, 1), 0.0)

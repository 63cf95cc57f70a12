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


def fusion_inputs(device: torch.device) -> dict[str, Any]:
    """What determines fused classes beside field, cameras and predictions, as settings of an output."""
    return {
        "fusion": asdict(FusionOptions()), "refinement": asdict(RefinementOptions()),
        "options": asdict(RenderOptions()), "device": device.type, "version": _VERSION, **label_settings(),
    }  # fmt: skip


def fuse_predictions(
    field: RadianceField, predicted: Sequence[tuple[CameraList, Iterable[Tensor]]]
) -> SemanticField:
    """The semantic field of predictions.

    Args:
        field: of the scene.
        predicted: of each view store cameras and, in their order, probabilities ``[n, C, h, w]``, with channel 0, what
            is no class. They are read once.
    """
    sums, evidence = 0, 0
    for cameras, probabilities in predicted:
        further = accumulate_views(
            field.grid, map(classes_only, probabilities), cameras.camera_to_world, cameras.intrinsics,
            cameras.image_size, field.transform, lens=cameras.lens,
        )  # fmt: skip
        sums, evidence = sums + further[0], evidence + further[1]
    refined = refine_fused(field.grid, mean_of(sums, evidence), evidence, field.transform.scene_scale)
    return SemanticField(refined, evidence)


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
    """Views, their fused classes uint8 ``[n, H, W]``, 0 where nothing was fused, and their :func:`confidence_of`."""
    height, width = cameras.image_size
    at_once = max(1, _RAYS_AT_ONCE // (height * width))
    for first in range(0, len(cameras), at_once):
        views = range(first, min(first + at_once, len(cameras)))
        poses, intrinsics = (values[first : views.stop] for values in (cameras.camera_to_world, cameras.intrinsics))
        origins, directions = (rays.flatten(0, 1) for rays in field.view_rays(
            poses, intrinsics, cameras.image_size, cameras.lens
        ))
        seen = render_features(field.grid, semantic.probabilities, origins, directions)
        images = (values.reshape(len(views), height, width) for values in (class_of(seen), confidence_of(seen)))
        yield views, *images



def confidence_of(
    rendered: Tensor,  # [..., C]
) -> Tensor:  # [...]
    """How sure rendered classes are, 0 to 1: 1 - entropy of the rendered distribution, as a share of the uniform one's.

    Less, in proportion, where less than half of a ray ends where something was fused. More of it says nothing of a
    label: it is how thin the field's surfaces are (docs/fusion.md).
    """
    classes = rendered[..., 1:]
    total = classes.sum(-1)
    share = classes / total[..., None].clamp(min=1e-6)
    uniform = math.log(max(label_set().num_classes - 1, 2))
    unsure = entropy(share.movedim(-1, 0)[None])[0] / uniform
    return (total / _ENOUGH).clamp(0, 1) * (1 - unsure).clamp(0, 1)

"""Do the labels that are rasterized from a scan's mesh agree with ScanNet's own label images of its frames?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dataloader import Mesh, Scene
from dataloader.label_images import LabelImages
from model.annotation import annotate_views
from utils.labels import UNANNOTATED, label_set
from utils.progress import progress


@dataclass(frozen=True)
class LabelAgreement:
    """Pixels by their two labels.

    Attributes:
        images: how many were compared.
        counts: int64 ``[C, C]``, class indices: rows rasterized, columns of the label images; 0 is no label.
    """

    images: int
    counts: Tensor

    def figures(self) -> dict[str, Any]:
        """Counts of pixels and shares.

        ``compared`` are those with a label in both; ``agreement`` is the share of these whose labels are the same, and
        ``class_iou``, among these, what both call a class divided by what either does, for classes that either has.
        """
        both = self.counts[1:, 1:]
        compared, same = int(both.sum()), both.diagonal()
        either = both.sum(0) + both.sum(1) - same
        iou = {name: int(same[index]) / int(either[index]) for index, name in enumerate(label_set().names[1:])
               if either[index]}  # fmt: skip
        return {
            "images": self.images,
            "pixels": int(self.counts.sum()),
            "compared": compared,
            "agreement": int(same.sum()) / compared if compared else None,
            "mean_iou": sum(iou.values()) / len(iou) if iou else None,
            "only_rasterized": int(self.counts[1:, UNANNOTATED].sum()),
            "only_label_images": int(self.counts[UNANNOTATED, 1:].sum()),
            "in_neither": int(self.counts[UNANNOTATED, UNANNOTATED]),
            "class_iou": iou,
        }


def compare_labels(
    scene: Scene, mesh: Mesh, frames: Sequence[str], label_rule: str = "majority", near: float = 0.01,
    device: torch.device | str = "cpu",
) -> LabelAgreement:  # fmt: skip
    """Rasterize the labelled mesh at the recorded poses of ``frames``, at the label images' size, and compare.

    Args:
        scene: in ScanNet's layout, with label images.
        mesh: with labels.
        frames: that have label images.
        label_rule, near: as of :func:`model.annotation.annotate_vertices`.
        device: where to compute.

    Raises:
        UserError: a label image cannot be used.
    """
    images, classes = LabelImages(scene), label_set().num_classes
    number = {name: index for index, name in enumerate(scene.frames)}
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    for frame in progress(list(frames), f"{scene.name} label images", unit="view"):
        given = images.read(frame)
        cameras = scene.cameras(tuple(given.shape), [number[frame]])
        made = annotate_views(mesh, cameras, label_rule, "classes", near, device).label[0].cpu()
        counts += torch.bincount(made.long().reshape(-1) * classes + given.long().reshape(-1), minlength=classes**2)
    return LabelAgreement(len(frames), counts.reshape(classes, classes))

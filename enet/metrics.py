"""The ScanNet 2D benchmark's metric of semantic segmentation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from enet.lightning import Metric
from utils.images import resize_nearest
from utils.labels import UNANNOTATED, label_set


def confusion_matrix(
    prediction: Tensor,  # [...] integer class indices
    truth: Tensor,  # [...] integer class indices
    num_classes: int | None = None,
) -> Tensor:
    """Counts int64 [num_classes, num_classes], rows ground truth, columns prediction, without a device-to-host sync.

    A number that is no class (such as -1, 255 or an id) counts as 0: outside the benchmark.
    """
    num_classes = label_set().num_classes if num_classes is None else num_classes
    truth, prediction = (
        torch.where((ids >= 0) & (ids < num_classes), ids, UNANNOTATED).reshape(-1).int() for ids in (truth, prediction)
    )
    pair = truth * num_classes + prediction
    bins = num_classes**2
    if pair.is_cuda:  # bincount asks the device for the largest value, which stalls the host
        counts = torch.histc(pair.float(), bins=bins, min=-0.5, max=bins - 0.5)
    else:
        counts = torch.bincount(pair, minlength=bins)
    return counts.reshape(num_classes, num_classes).long()


def class_iou(
    confusion: Tensor,  # [C, C]
) -> Tensor:
    """IoU of each class, float64 [C], by the benchmark's rule; NaN for unannotated and for classes that never occur.

    Unannotated pixels are left out. A pixel with a true class and a prediction outside the benchmark (class 0) is a
    false negative of its class. A class occurs when it is in the ground truth or is predicted on an annotated pixel;
    predicted but never in the ground truth, it has IoU 0, as in the benchmark's script.
    """
    counts = confusion.double().clone()
    counts[UNANNOTATED] = 0
    intersection = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - intersection
    iou = intersection / torch.where(union > 0, union, torch.nan)
    iou[UNANNOTATED] = torch.nan
    return iou


def pixel_accuracy(
    confusion: Tensor,  # [C, C]
) -> Tensor:
    """Share of annotated pixels that are classified correctly; NaN when there are none."""
    counts = confusion.double()
    annotated = torch.cat([counts[:UNANNOTATED], counts[UNANNOTATED + 1 :]])
    return (counts.diagonal().sum() - counts[UNANNOTATED, UNANNOTATED]) / annotated.sum()


def mean_accuracy(
    confusion: Tensor,  # [C, C]
) -> Tensor:
    """Mean over the classes in the ground truth of the share of their pixels that is found; NaN when there are none."""
    counts = confusion.double()[UNANNOTATED + 1 :]
    hits = confusion.double().diagonal()[UNANNOTATED + 1 :]
    total = counts.sum(1)
    return (hits / torch.where(total > 0, total, torch.nan)).nanmean()


class ScanNetIoU(Metric):
    """Mean IoU over the classes that occur, from one confusion matrix over all images.

    Example: ground truth [1, 1, 2, 0], prediction [1, 0, 2, 2]. Class 1: one hit, one pixel lost to class 0, IoU 1/2.
    Class 2: one hit; the last pixel is unannotated and does not count, IoU 1. The mean is 0.75.
    """

    full_state_update = False
    higher_is_better = True
    confusion: Tensor

    def __init__(self, num_classes: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_classes = label_set().num_classes if num_classes is None else num_classes
        zeros = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")

    def update(
        self,
        prediction: Tensor,  # [..., h, w] integer class indices
        truth: Tensor,  # [..., H, W] integer class indices
    ) -> None:
        """Count a batch; a prediction of another size is resized to the ground truth's by nearest neighbour."""
        if prediction.shape != truth.shape:
            prediction = resize_nearest(prediction, tuple(truth.shape[-2:]))
        self.confusion += confusion_matrix(prediction, truth, self.num_classes)

    def compute(self) -> Tensor:
        """Mean IoU, a float64 scalar; NaN when no pixel is annotated."""
        return class_iou(self.confusion).nanmean()

    def total(self) -> Tensor:
        """The confusion matrix over all processes, int64 [C, C]."""
        with self.sync_context():
            return self.confusion.clone()


def pixel_counts(confusion: Tensor) -> dict[str, list[int]]:
    """What IoU is made of, for each class over annotated pixels: true, predicted, and both at once.

    Counts of several sets of images add up; IoU is hits / (truth + predicted - hits).
    """
    counts = confusion.clone()
    counts[UNANNOTATED] = 0
    benchmark = slice(UNANNOTATED + 1, None)
    return {
        "truth": counts.sum(1)[benchmark].tolist(),
        "predicted": counts.sum(0)[benchmark].tolist(),
        "hits": counts.diagonal()[benchmark].tolist(),
    }


def summarize_confusion(confusion: Tensor) -> dict[str, Any]:
    """JSON-able scores of a confusion matrix; classes that never occur have IoU None."""
    confusion = confusion.cpu()
    iou = class_iou(confusion)
    return {
        "mean_iou": _number(iou.nanmean()),
        "pixel_accuracy": _number(pixel_accuracy(confusion)),
        "mean_accuracy": _number(mean_accuracy(confusion)),
        "class_iou": {name: _number(value) for name, value in zip(label_set().names[1:], iou[1:], strict=True)},
        "confusion": confusion.tolist(),
    }


def _number(value: Tensor) -> float | None:
    return None if torch.isnan(value) else round(float(value), 6)

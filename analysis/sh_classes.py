"""Do spherical-harmonic coefficients carry class information that colour does not?

Pixels are sampled uniformly from all views of a store. Their 27 coefficients are projected on the principal components,
and a linear discriminant (nearest class centroid under the pooled within-class covariance) is scored on held-out
pixels for several sets of features. The margin of "rgb + sh" over "rgb" is information that colour alone does not
have. "sh residual" is what remains of the coefficients after the best linear prediction from colour.

Coefficients of degree 1 and 2 are in each scene's own rotated frame unless the views were rendered in a common one;
over several scenes they are then blurred by that rotation, and the scores are a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader import ViewStore
from dataloader.view_channels import decode
from utils.arrays import read_npz
from utils.errors import reading
from utils.labels import UNANNOTATED, label_set
from utils.seeding import generator
from utils.spherical_harmonics import SH_CHANNELS

_DC_CHANNELS = [0, 9, 18]
_RIDGE = 1e-3
_MIN_PIXELS_PER_CLASS = 20


@dataclass(frozen=True)
class PixelSample:
    """Annotated pixels drawn from views."""

    rgb: Tensor  # float32 [M, 3]
    sh: Tensor  # float32 [M, 27]
    label: Tensor  # int64 [M]
    group: Tensor  # int64 [M], what may not be split between training and testing: the scene, or a run of frames

    def save(self, path: Path) -> None:
        """Write as npz without pickles, coefficients in half precision."""
        np.savez(path, rgb=self.rgb.half().numpy(), sh=self.sh.half().numpy(),
                 label=self.label.to(torch.uint8).numpy(), group=self.group.numpy())

    @staticmethod
    def load(path: Path) -> PixelSample:
        """Read what :meth:`save` wrote."""
        what, advice = "a sample of pixels", "delete it, and run 'analyze' again"
        arrays = read_npz(path, what, ("rgb", "sh", "label", "group"), advice=advice)
        with reading(path, what, advice):
            rgb, sh, label, group = (torch.from_numpy(arrays[name]) for name in ("rgb", "sh", "label", "group"))
            return PixelSample(rgb.float(), sh.float(), label.long(), group)

    def select(self, chosen: Tensor) -> PixelSample:
        """The pixels that an index or mask ``chosen [M']`` names."""
        return PixelSample(self.rgb[chosen], self.sh[chosen], self.label[chosen], self.group[chosen])

    def draw(self, count: int, *seed: int | str) -> PixelSample:
        """At most ``count`` of the pixels, drawn at random."""
        return self.select(torch.randperm(len(self.label), generator=generator(*seed))[:count])


def sample_pixels(path: str | Path, num_pixels: int, seed: int) -> PixelSample:
    """About ``num_pixels`` annotated pixels of a view store, the same number from each view.

    ``group`` numbers ten runs of consecutive frames. One view is decoded at a time.
    """
    store = ViewStore.open(path)
    num_views = len(store)
    views = torch.linspace(0, num_views - 1, min(num_views, num_pixels)).round().long().unique().tolist()
    per_view = -(-num_pixels // len(views))
    # Made once: small tensors that stay, allocated between large ones that go, would leave holes of a view's size.
    most = per_view * len(views)
    rgb, sh, group = torch.empty(most, 3), torch.empty(most, SH_CHANNELS), torch.empty(most, dtype=torch.int64)
    label = torch.empty(most, dtype=torch.int64)
    count = 0
    for view in views:
        labels = store.read_stored("label", view).flatten()
        annotated = (labels != UNANNOTATED).nonzero()[:, 0]
        draw = torch.randperm(len(annotated), generator=generator(seed, store.cameras.scene, view))[:per_view]
        pixels = annotated[draw]
        drawn = slice(count, count + len(pixels))
        for name, values in (("rgb", rgb), ("sh", sh)):
            stored = store.read_stored(name, view).flatten(1)[:, pixels, None]
            values[drawn] = decode(name, stored, store.sh_range)[..., 0].T
        label[drawn], group[drawn] = labels[pixels].long(), view * 10 // num_views
        count += len(pixels)
    return PixelSample(rgb[:count], sh[:count], label[:count], group[:count])


def merge_samples(samples: dict[str, PixelSample]) -> PixelSample:
    """One sample from several scenes; a scene is a group when there are three or more."""
    parts = [
        PixelSample(part.rgb, part.sh, part.label, torch.full_like(part.group, number)) if len(samples) >= 3 else part
        for number, part in enumerate(samples.values())
    ]
    return PixelSample(*(torch.cat([getattr(p, name) for p in parts]) for name in ("rgb", "sh", "label", "group")))


def principal_components(features: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``[M, C]`` on the principal components of ``features [M, C]`` and the variance share ``[C]`` of each.

    A component's sign is chosen so that its largest loading is positive.
    """
    centred = (features - features.mean(0)).double()
    variance, axes = torch.linalg.eigh(centred.T @ centred / max(len(centred) - 1, 1))
    variance, axes = variance.flip(0).clamp(min=0), axes.flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return (centred @ axes).float(), (variance / variance.sum().clamp(min=1e-30)).float()


def linear_residual(target: Tensor, predictors: Tensor, train: Tensor) -> Tensor:
    """``target [M, C]`` minus its affine prediction from ``predictors [M, P]``, least squares over ``train [M]``."""
    design = torch.cat((predictors, torch.ones(len(predictors), 1)), dim=1).double()
    weights = torch.linalg.lstsq(design[train], target[train].double()).solution
    return (target - design @ weights).float()


def discriminant_accuracy(features: Tensor, labels: Tensor, train: Tensor) -> float:
    """Class-balanced accuracy on ``~train`` pixels of a linear discriminant fitted on ``train`` pixels.

    Args:
        features: ``[M, C]``.
        labels: ``[M]`` class indices; every class occurs in both parts.
        train: ``[M]`` bool.
    """
    classes, target = labels.unique(return_inverse=True)
    scaled = (features - features[train].mean(0)) / features[train].std(0).clamp(min=1e-6)
    scaled = scaled.double()
    centroids = torch.stack([scaled[train & (target == k)].mean(0) for k in range(len(classes))])
    within = scaled[train] - centroids[target[train]]
    pooled = within.T @ within / len(within)
    pooled += _RIDGE * torch.eye(pooled.shape[0], dtype=pooled.dtype)
    whitener = torch.linalg.inv(torch.linalg.cholesky(pooled)).T
    predicted = torch.cdist(scaled[~train] @ whitener, centroids @ whitener).argmin(1)
    truth = target[~train]
    recalls = [(predicted[truth == k] == k).double().mean() for k in range(len(classes))]
    return float(torch.stack(recalls).mean())


def class_information(sample: PixelSample) -> dict[str, Any] | None:
    """Variance shares of the principal components and held-out accuracy of each feature set.

    A third of the groups is held out. Classes need 20 pixels in both parts; None when fewer than two have them.
    """
    groups = sample.group.unique()
    train = ~torch.isin(sample.group, groups[1::3])
    classes = label_set().num_classes
    counts = torch.stack([torch.bincount(sample.label[part], minlength=classes) for part in (train, ~train)])
    usable = (counts >= _MIN_PIXELS_PER_CLASS).all(0).nonzero()[:, 0]
    if len(usable) < 2:
        return None
    kept = torch.isin(sample.label, usable)
    sample, train = sample.select(kept), train[kept]
    features = {
        "rgb": sample.rgb,
        "sh degree 0": sample.sh[:, _DC_CHANNELS],
        "sh": sample.sh,
        "rgb + sh": torch.cat((sample.rgb, sample.sh), dim=1),
        "sh residual": linear_residual(sample.sh, sample.rgb, train),
    }
    return {
        "num_pixels": len(sample.label),
        "classes": [label_set().names[k] for k in usable.tolist()],
        "chance": 1 / len(usable),
        "accuracy": {name: discriminant_accuracy(x, sample.label, train) for name, x in features.items()},
        "explained_variance": principal_components(sample.sh)[1].tolist(),
    }

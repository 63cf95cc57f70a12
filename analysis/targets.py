"""Targets of novel views: objects of rare classes at the centre of an original view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gin
import torch
from torch import Tensor

from analysis.coverage import central_window, view_chunks, window_coverage
from analysis.surface import surface_depth
from dataloader import ViewStore
from dataloader.hold_out import held_out_views
from utils.cameras import unproject


@gin.configurable
@dataclass(frozen=True)
class TargetOptions:
    """Which objects become targets.

    Attributes:
        window: sides of the central window as a fraction of the image's sides.
        min_coverage: share of the window that the class must have; 0.5 in the paper, 0.25 in its code.
        separation: metres; of targets of one class that are closer, only the best covered one is kept.
        max_per_class: most targets of one class in one scene; 0 is no limit.
        max_per_scene: most targets in one scene, round-robin over the classes; 0 is no limit.
        held_out: whether frames that were held out of the field give targets too, as is right where whole scenes
            train or test; with False, what they show does not decide where the new cameras look.
    """

    window: float = 0.5
    min_coverage: float = 0.25
    separation: float = 0.5
    max_per_class: int = 4
    max_per_scene: int = 12
    held_out: bool = True


@dataclass(frozen=True)
class Target:
    """A point on an object of a rare class, and the view that shows it."""

    class_index: int
    point: Tensor  # float64 [3], world
    eye: Tensor  # float64 [3], where the view was taken from
    view: int  # index into the store
    frame: str
    pixel: tuple[float, float]  # (u, v) of the target in that view
    coverage: float  # share of the central window


def check_targets(store: ViewStore, options: TargetOptions) -> None:
    """Raise :class:`UserError` when a store lacks what :func:`find_targets` needs of it."""
    store.check_channel("label")
    if not options.held_out:
        held_out_views(store)


def find_targets(path: str | Path, classes: Sequence[int], options: TargetOptions) -> list[Target]:
    """Targets in one annotated view store, by decreasing coverage within a class, round-robin over the classes.

    Args:
        path: the view store; it needs labels and a depth channel, see :func:`analysis.surface.surface_depth`.
        classes: class indices by priority.

    Raises:
        UserError: a channel is missing.
    """
    store = ViewStore.open(path)
    labels = store.tensor("label")
    size = tuple(labels.shape[-2:])
    chunks = view_chunks(len(labels), size)
    coverage = torch.cat([window_coverage(labels[chunk], options.window) for chunk in chunks])
    if not options.held_out:
        coverage[held_out_views(store)] = -1  # below any threshold
    ranked = []
    for order, class_index in enumerate(classes):
        targets = _targets_of_class(store, labels, coverage[:, class_index], class_index, options)
        ranked += [(rank, order, target) for rank, target in enumerate(targets)]
    ranked.sort(key=lambda entry: entry[:2])
    return [target for _, _, target in ranked][: options.max_per_scene or None]


def _targets_of_class(
    store: ViewStore, labels: Tensor, coverage: Tensor, class_index: int, options: TargetOptions
) -> list[Target]:
    """Greedy non-maximum suppression over the views that show the class, best covered first."""
    limit = options.max_per_class or len(coverage)
    targets: list[Target] = []
    for view in torch.sort(coverage, descending=True, stable=True).indices.tolist():
        if coverage[view] < options.min_coverage or len(targets) == limit:
            break
        target = _target_in_view(store, labels[view], view, class_index, options.window)
        if target is None:
            continue
        if all(torch.dist(target.point, kept.point) >= options.separation for kept in targets):
            targets.append(target)
    return targets


def _target_in_view(
    store: ViewStore, labels: Tensor, view: int, class_index: int, window: float
) -> Target | None:
    """The target of one view, or None where the class has no depth."""
    depth = surface_depth(store, view)
    rows, columns = central_window(tuple(labels.shape), window)
    mask = (labels == class_index) & (depth > 0)
    pixel = interior_pixel(mask[rows, columns])
    if pixel is None:
        return None
    row, column = pixel[0] + rows.start, pixel[1] + columns.start
    cameras = store.cameras
    uv = torch.tensor([column + 0.5, row + 0.5], dtype=torch.float64)
    pose = cameras.camera_to_world[view]
    point = unproject(uv, depth[row, column].double(), cameras.intrinsics[view], pose)
    return Target(
        class_index=class_index,
        point=point,
        eye=pose[:3, 3].clone(),
        view=view,
        frame=cameras.names[view],
        pixel=tuple(uv.tolist()),
        coverage=float(window_coverage(labels[None], window)[0, class_index]),
    )


def interior_pixel(
    mask: Tensor,  # bool [H, W]
) -> tuple[int, int] | None:
    """Row and column of a pixel well inside the region, since its centroid may lie outside the object.

    The mask is eroded until nothing would be left (the image's border does not erode); of the surviving pixels, the
    one nearest the region's centroid is taken. The centroid itself can lie outside a bent or divided region.
    """
    if not mask.any():
        return None
    centroid = mask.nonzero().double().mean(0)
    survivors = mask
    for _ in range(max(mask.shape)):
        background = torch.nn.functional.max_pool2d((~survivors).float()[None], 3, stride=1, padding=1)[0]
        eroded = background == 0
        if not eroded.any():
            break
        survivors = eroded
    pixels = survivors.nonzero()
    nearest = pixels[(pixels.double() - centroid).square().sum(1).argmin()]
    return int(nearest[0]), int(nearest[1])

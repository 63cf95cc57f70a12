"""Rooms without labels of their own as training rooms: another network's predictions, fused in the fields, are theirs.

Which labels are predicted stands in the run's settings and results. A room with predicted labels is in no other list,
and the network that predicted them has seen neither that room nor one that is tested.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataloader import StoreViews
from dataloader.predicted_labels import CONFIDENCE_FILE, LABEL_FILE, PredictedLabels
from enet.options import SelfTrainingOptions, SplitOptions
from enet.splits import refuse_overlap
from utils.errors import UserError, reading
from utils.files import read_json
from utils.identity import file_identity
from utils.labels import has_label_set
from utils.outputs import finished_settings
from utils.scenes import require_scenes, resolve_scenes

logger = logging.getLogger(__name__)
SOURCE_FILE = "source.json"  # of a scene's fused predictions: which scenes the network knows
_WHAT, _ADVICE = "predictions that 'fuse' wrote", "run 'fuse' again"


def predicted_scenes(options: SelfTrainingOptions, views_dir: str | Path) -> list[str]:
    """Names of the scenes whose labels are predicted, none by default.

    Raises:
        UserError: they have no views.
    """
    if options.scenes is None:
        return []
    names = resolve_scenes(options.scenes, views_dir)
    require_scenes(names, views_dir)
    return names


def predicted_views(
    options: SelfTrainingOptions,
    names: Sequence[str],
    views_dir: str | Path,
    labelled: Sequence[StoreViews],
    validation: Sequence[StoreViews],
    split: SplitOptions,
    color: str | None = None,
) -> list[StoreViews]:
    """The views of scenes whose labels are predicted, with these.

    Args:
        options: where the labels are.
        names: of :func:`predicted_scenes`.
        views_dir: folder of their view stores.
        labelled: training views with labels of their own.
        validation: views to validate on.
        split: names the scenes that will be tested.
        color: as in :class:`dataloader.StoreViews`.

    Raises:
        UserError: a room is in another list too, or its labels are absent, of other views or classes, or by a network
            that has seen the room or one that is tested.
    """
    if not names:
        return []
    test = [] if split.test_scenes is None else resolve_scenes(split.test_scenes, views_dir)
    others = {"train_scenes": _scenes(labelled), "val_scenes": _scenes(validation), "test_scenes": test}
    for other, scenes in others.items():
        refuse_overlap({"SelfTrainingOptions.scenes": names, other: scenes})
    labels = {name: _labels(Path(options.fused_dir) / name, Path(views_dir) / name) for name in names}
    teachers = sorted({scene for found in labels.values() for scene in found.trained_on})
    for other, scenes in {"SelfTrainingOptions.scenes": names, "test_scenes": test}.items():
        refuse_overlap({"the training of the network that predicted labels": teachers, other: scenes})
    return [StoreViews(Path(views_dir) / name, color=color, predicted=labels[name]) for name in names]


def describe_predicted(views: Sequence[StoreViews]) -> dict[str, Any]:
    """What a run's results say of predicted labels: nothing where there are none."""
    found = {entry.path.name: entry.predicted for entry in views if entry.predicted is not None}
    if not found:
        return {}
    return {"predicted_labels": {
        "scenes": list(found), "fused_dir": str(next(iter(found.values())).folder.parent),
        "network_trained_on": sorted({scene for labels in found.values() for scene in labels.trained_on}),
    }}  # fmt: skip


def _scenes(views: Sequence[StoreViews]) -> list[str]:
    return sorted({entry.path.name for entry in views})


def _labels(folder: Path, store: Path) -> PredictedLabels:
    """A scene's, checked against its views.

    Raises:
        UserError: see :func:`predicted_views`.
    """
    for name in (LABEL_FILE, CONFIDENCE_FILE, SOURCE_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} does not exist; predict this scene's labels by 'fuse', with "
                            f"fuse.fused_dir = '{folder.parent}'")
    settings = finished_settings(folder)
    if settings.get("cameras") != file_identity(store / "cameras.json"):
        raise UserError(f"{folder} holds labels of other views than those of {store}; {_ADVICE}")
    if not has_label_set(settings):
        raise UserError(f"{folder} holds labels of other classes than those of label_set.table; {_ADVICE}")
    source = read_json(folder / SOURCE_FILE, kind=dict)
    with reading(folder / SOURCE_FILE, _WHAT, _ADVICE):
        known = source["trained_on"]
        if known is None:
            logger.warning("%s: which scenes the network that predicted these labels has seen is not known", folder)
        elif not all(isinstance(scene, str) for scene in known):
            raise TypeError("its scenes are no names")
    return PredictedLabels(folder, tuple(known or ()))

"""The two sources of a training, by gin's group ``data``: stores, or fields and meshes that are rendered live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dataloader import StoreViews
from enet.live_options import DataOptions
from enet.live_scenes import LiveSelection, choose_live
from enet.live_views import LiveViews
from enet.options import SelfTrainingOptions, SplitOptions
from enet.self_training import describe_predicted, predicted_scenes, predicted_views
from enet.splits import choose_views, hold_out_views, refuse_shared_views, stores_of
from enet.stored_views import StoredViews
from enet.training import TrainingOptions
from enet.view_source import ViewSource
from utils.errors import UserError

_NAMED = 5  # scenes left out, in the plan


@dataclass(frozen=True)
class Sources:
    """What is trained and validated on.

    Attributes:
        training, validation: the sources.
        epoch_views: views of an epoch unless a number is given: as many as the first folder, or the recorded poses.
        notes: lines of the plan.
        remarks: what the run's results say of them.
    """

    training: ViewSource
    validation: ViewSource
    epoch_views: int
    notes: tuple[str, ...] = ()
    remarks: dict[str, Any] = field(default_factory=dict)


def choose_sources(
    views: Sequence[str], colors: Sequence[str] | None, data: DataOptions, options: TrainingOptions, seed: int,
    device: torch.device,
) -> Sources:  # fmt: skip
    """Open what the train task is asked to train and validate on.

    Args:
        views, colors, seed: parameters of the train task.
        data: where training views come from.
        options: of the training.
        device: that is trained on.

    Raises:
        UserError: something is missing, views are trained and validated on, or the device has too little memory.
    """
    if data.is_live:
        sources = _live(views, data, options, seed)
        _check_memory(sources.training, data, device)
        return sources
    if not views:
        raise UserError("train.views names no folder of views; give those that 'render' wrote, or set data.source = "
                        "'live'")
    options.mix.check(views)
    if colors is not None and len(colors) != len(views):
        raise UserError(f"train.colors has {len(colors)} entries, train.views has {len(views)} folders; give one for "
                        "each")
    split, itself = SplitOptions(), SelfTrainingOptions()
    predicted = predicted_scenes(itself, views[0])
    training, validation = choose_views(views, split, seed, colors, predicted)
    refuse_shared_views(training, validation)
    color = colors[0] if colors else None
    training += predicted_views(itself, predicted, views[0], training, validation, split, color)
    network, weighted = options.network, options.loss.uses_quality
    source = StoredViews(
        training, options.views, network.uses_sh, options.augmentation, weighted, network.beside.geometry, options.mix
    )  # fmt: skip
    originals = sum(len(entry) for entry in training if entry.folder == 0)
    remarks = describe_predicted(training)
    return Sources(source, _stored_validation(validation, options), originals, remarks=remarks)


def _live(views: Sequence[str], data: DataOptions, options: TrainingOptions, seed: int) -> Sources:
    if SelfTrainingOptions().scenes is not None:
        raise UserError("SelfTrainingOptions.scenes gives stored views predicted labels; with data.source = 'live' "
                        "labels are rasterized: leave it out")
    if options.mix.shares is not None:
        raise UserError("MixOptions.shares mixes folders of train.views; with data.source = 'live' the share of new "
                        "poses is that of data.poses: leave MixOptions.shares out")
    selection = choose_live(data, SplitOptions(), seed)
    network = options.network
    training = LiveViews(
        selection.training, data, options.views, network.uses_sh, options.augmentation, options.loss.uses_quality,
        network.beside.geometry, data.poses,
    )  # fmt: skip
    if data.validation == "stored":
        validation: ViewSource = _stored_validation(_stores(views, selection), options)
        if validation.size != data.size:
            raise UserError(f"data.size is {data.size}, but the stores of {views[0]} that validate hold views of "
                            f"{validation.size}; choose one size, or data.validation = 'live'")
    else:
        validation = LiveViews(
            selection.validation, data, options.views, network.uses_sh, geometry=network.beside.geometry,
            pool=training.pool,
        )  # fmt: skip
    return Sources(training, validation, len(training), _notes(training, selection, data))


def _check_memory(training: LiveViews, data: DataOptions, device: torch.device) -> None:
    """Raise :class:`UserError` where the scenes that are to be on a GPU at once are more than it can hold."""
    if device.type != "cuda":
        return
    there, need = torch.cuda.mem_get_info(device)[1], min(sum(training.nbytes), data.resident_bytes)
    if need > there:
        raise UserError(f"live scenes would take about {need / 1e9:.1f} GB on a GPU that has {there / 1e9:.1f}; set "
                        f"data.resident to what the network leaves of these, such as {0.6 * there / 1e9:.0f}")


def _stored_validation(chosen: Sequence[StoreViews], options: TrainingOptions) -> StoredViews:
    return StoredViews(chosen, options.views, options.network.uses_sh, geometry=options.network.beside.geometry)


def _stores(views: Sequence[str], selection: LiveSelection) -> list[StoreViews]:
    """Stores of the validation scenes; of frames that were held out, where these validate."""
    if not views:
        raise UserError("data.validation = 'stored' needs a folder of stores in train.views; give it, or validate "
                        "'live'")
    split, names = SplitOptions(), [scene.name for scene in selection.validation]
    stores = stores_of(names, views[:1])
    return hold_out_views(stores, len(names), split.val_every)[1] if split.by_frames else stores


def _notes(training: LiveViews, selection: LiveSelection, data: DataOptions) -> tuple[str, ...]:
    """What is rendered, the memory that it takes, and what was left out."""
    height, width = training.size
    count, need = len(selection.training), sum(training.nbytes)
    lines = [f"live: {len(training)} recorded poses of {count} scenes at {width}x{height}, "
             f"{sum(len(scene.cameras) for scene in selection.validation)} of {len(selection.validation)} to validate"]
    share = min(1.0, data.resident_bytes / need)
    kept = "all resident" if training.fits else (
        f"{share:.0%} of it resident ({data.resident:g} GB): scenes are visited in groups")
    lines.append(f"live: training scenes take about {need / 1e9:.2f} GB on a GPU, {kept}")
    if selection.left_out:
        named = ", ".join(list(selection.left_out)[:_NAMED])
        more = ", ..." if len(selection.left_out) > _NAMED else ""
        lines.append(f"live: {len(selection.left_out)} scenes are left out: {named}{more}")
    return tuple(lines)

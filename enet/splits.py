"""Which scenes train, validate and test, and that no room is in two of the lists."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dataloader import StoreViews, ViewStore
from dataloader.hold_out import held_out_views
from enet.options import SplitOptions
from utils.errors import UserError
from utils.scenes import require_scenes, resolve_scenes
from utils.seeding import generator

logger = logging.getLogger(__name__)

_SCANNET_SCAN = re.compile(r"(scene\d{4})_\d{2}")


def room_of(scene: str) -> str:
    """The room a scan shows: ScanNet's sceneRRRR_SS is scan SS of room RRRR; other names are rooms of their own."""
    match = _SCANNET_SCAN.fullmatch(scene)
    return match.group(1) if match else scene


def refuse_overlap(splits: Mapping[str, Sequence[str]]) -> None:
    """Raise :class:`UserError` that names a room scanned in two splits; keys are the splits' names."""
    for (first, first_scenes), (second, second_scenes) in itertools.combinations(splits.items(), 2):
        scan_of_room = {room_of(scene): scene for scene in first_scenes}
        for scene in second_scenes:
            twin = scan_of_room.get(room_of(scene))
            if twin is not None:
                same = "the same scene" if twin == scene else "scans of the same room"
                raise UserError(
                    f"{first} holds {twin} and {second} holds {scene}, {same}; scores would be too good, "
                    f"so take the room out of one of the two lists"
                )


def refuse_shared_views(training: Sequence[StoreViews], validation: Sequence[StoreViews]) -> None:
    """Raise :class:`UserError` that names a store of which views are trained on and measured on too."""
    for entry in validation:
        if any(entry.shares_views(trained) for trained in training):
            raise UserError(
                f"{entry.path} is a training store and a validation store; take it out of one list"
            )


def hold_out_rooms(scenes: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Split scenes into training and validation by whole rooms: ``share`` of the rooms, at least one, validate.

    Raises:
        UserError: ``share`` is not between 0 and 1, or there is only one room.
    """
    rooms = sorted({room_of(scene) for scene in scenes})
    if not 0 < share < 1 or len(rooms) < 2:
        raise UserError(
            f"{share} of {len(rooms)} rooms cannot be held out for validation; name val_scenes, or, with one room, "
            "hold out some of its views: SplitOptions.val_frames = 'held_out'"
        )
    order = torch.randperm(len(rooms), generator=generator(seed, "validation rooms")).tolist()
    held_out = {rooms[index] for index in order[: min(max(round(share * len(rooms)), 1), len(rooms) - 1)]}
    training = [scene for scene in scenes if room_of(scene) not in held_out]
    return training, [scene for scene in scenes if room_of(scene) in held_out]


def stores_of(
    scenes: Sequence[str], folders: Sequence[str | Path], colors: Sequence[str] | None = None
) -> list[StoreViews]:
    """The scenes' stores in each folder. The first must hold all of them; in the others scenes may be missing.

    Args:
        scenes: their names.
        folders: of stores.
        colors: which picture is the colour in each folder; None: the same in all.

    Raises:
        UserError: the first folder lacks a scene, or another holds none of them, so that it would add nothing.
    """
    require_scenes(scenes, folders[0])
    colors = colors or [None] * len(folders)
    stores = [StoreViews(Path(folders[0]) / scene, color=colors[0]) for scene in scenes]
    for number, (folder, color) in enumerate(zip(folders[1:], colors[1:], strict=True), start=1):
        paths = [Path(folder) / scene for scene in scenes]
        found = [StoreViews(path, color=color, folder=number) for path in paths if path.is_dir()]
        if not found:
            raise UserError(
                f"{folder} holds views of none of the {len(scenes)} scenes (such as {scenes[0]}), so that it would add "
                "nothing; render views of these scenes there (novel ones need cameras that 'filter' accepted), or take "
                "the folder out"
            )
        logger.info("%s: %d of %d scenes have views there", folder, len(found), len(scenes))
        stores += found
    return stores


def hold_out_views(stores: Sequence[StoreViews], num_first: int, every: int = 0) -> tuple[list[StoreViews], ...]:
    """Split views of single rooms: those of the ``num_first`` first stores that are held out validate.

    Where a further store is one of the first ones again, with another colour, the same views of it are left out. This
    measures interpolation within a room, not generalisation to others; use it where there is one room.

    Args:
        every: see :func:`dataloader.hold_out.held_out_views`.
    """
    training, validation = [], []
    for entry in stores[:num_first]:
        store = ViewStore.open(entry.path)
        held_out = set(held_out_views(store, every))
        training.append(replace(entry, indices=tuple(view for view in range(len(store)) if view not in held_out)))
        validation.append(replace(entry, indices=tuple(sorted(held_out))))
    kept = {entry.path.resolve(): entry.indices for entry in training}
    others = [replace(entry, indices=kept.get(entry.path.resolve())) for entry in stores[num_first:]]
    return [*training, *others], validation


def choose_scenes(
    split: SplitOptions, seed: int, root: str | Path, prefix: str = "", left_out: Sequence[str] = ()
) -> tuple[list[str], list[str] | None]:
    """Scenes that train, and those that validate; None for the latter where frames of the former do.

    Args:
        split: which they are.
        seed: of the rooms held out where no scenes are named.
        root: folder of all scenes' stores or fields.
        prefix: what its sub-folders' names carry before the scene's name.
        left_out: scenes that "all" training scenes do not mean.

    Raises:
        UserError: a list is absent, or splits share a room.
    """
    training = resolve_scenes(split.train_scenes, root, prefix)
    take_all = split.train_scenes == "all"
    if take_all:
        training = [scene for scene in training if scene not in left_out]
    if split.test_scenes is not None:
        test = resolve_scenes(split.test_scenes, root, prefix)
        if take_all:
            training = [scene for scene in training if scene not in test]
        refuse_overlap({"train_scenes": training, "test_scenes": test})
    if split.by_frames:
        return training, None
    if split.val_scenes is None:
        return hold_out_rooms(training, split.val_rooms, seed)
    validation = resolve_scenes(split.val_scenes, root, prefix)
    if take_all:
        training = [scene for scene in training if scene not in validation]
    refuse_overlap({"train_scenes": training, "val_scenes": validation})
    if split.test_scenes is not None:
        refuse_overlap({"val_scenes": validation, "test_scenes": test})
    return training, validation


def choose_views(
    folders: Sequence[str | Path], split: SplitOptions, seed: int, colors: Sequence[str] | None = None,
    left_out: Sequence[str] = (),
) -> tuple[list[StoreViews], list[StoreViews]]:  # fmt: skip
    """Training and validation views, as :class:`SplitOptions` describes them; the latter come from the first folder.

    Args:
        folders: of view stores.
        split: see there.
        seed: of what is drawn.
        colors: as in :func:`stores_of`.
        left_out: scenes that "all" training scenes do not mean.

    Raises:
        UserError: stores are missing, or splits share a room.
    """
    require_scenes(resolve_scenes(split.train_scenes, folders[0]), folders[0])
    training, validation = choose_scenes(split, seed, folders[0], left_out=left_out)
    if validation is None:
        return hold_out_views(stores_of(training, folders, colors), len(training), split.val_every)
    return stores_of(training, folders, colors), stores_of(validation, folders[:1], colors and colors[:1])

"""Which frames of a scene are held out: one fact, by name, written by the fit and read by everything after it.

A fit holds some frames out and is evaluated on them. Later trainings and novel views must be able to hold out the
same ones, whatever was rendered of them in between. So the names are stored with the field (``held_out.json``) and with
every view store rendered from it (attribute ``held_out`` of its metadata).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from dataloader.view_store import ViewStore
from utils.errors import UserError
from utils.files import read_json, write_json

HELD_OUT_FILE = "held_out.json"
ATTRIBUTE = "held_out"


def choose_held_out(frames: Sequence[str], every: int, splits: Sequence[str] | None = None) -> list[str]:
    """Names of the frames to hold out, in the frames' order.

    Args:
        frames: the scene's frames in numeric order.
        every: hold out frames 0, every, 2 * every, ...; 0 holds none out.
        splits: "train", "val" or "test" of each frame, where the dataset has splits of its own: then its "test" (or
            "val") frames are held out, unless ``every`` is 0.
    """
    if not every:
        return []
    if splits and "train" in splits:
        measured = "test" if "test" in splits else "val"
        return [frame for frame, split in zip(frames, splits, strict=True) if split == measured]
    return list(frames[::every])


def save_held_out(folder: str | Path, scene: str, frames: Sequence[str]) -> None:
    """Write the names beside a field."""
    write_json(Path(folder) / HELD_OUT_FILE, {"scene": scene, "frames": list(frames)})


def load_held_out(folder: str | Path) -> list[str] | None:
    """Frames held out of the field in ``folder``; None where it has no record, as downloaded ones.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(folder) / HELD_OUT_FILE
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not _are_names(content.get("frames")):
        raise UserError(f"{path} is damaged: expected {{'scene': ..., 'frames': [names]}}; fit the scene again")
    return content["frames"]


def held_out_of(store: ViewStore) -> frozenset[str] | None:
    """Frames held out of the field that a store was rendered from; None without a record.

    Raises:
        UserError: the store's metadata are damaged.
    """
    names = store.attributes.get(ATTRIBUTE)
    if names is None:
        return None
    if not _are_names(names):
        raise UserError(f"{store.path}/meta.json is damaged: {ATTRIBUTE} is no list of names; render the views again")
    return frozenset(names)


def held_out_views(store: ViewStore, every: int = 0) -> list[int]:
    """The views of a store of recorded frames that are held out, ascending; as :func:`held_out_frames`."""
    return held_out_frames(store.cameras.names, held_out_of(store), every, store.path)


def held_out_frames(names: Sequence[str], fact: Collection[str] | None, every: int, place: Path) -> list[int]:
    """Which of a scene's frames are held out, as numbers, ascending.

    Args:
        names: of the frames.
        fact: those held out of the field; None without a record.
        every: for a field without a record of its held-out frames: frames 0, every, 2 * every, ... are. With a field
            that has one, it must mean the same frames.
        place: the store or the field, for messages.

    Raises:
        UserError: there is no record of what is held out, no frame or every frame is, or ``every`` contradicts the
            field.
    """
    by_number = list(range(0, len(names), every)) if every else None
    if fact is None:
        if by_number is None:
            raise UserError(f"{place} does not say which frames were held out of its field, as with downloaded "
                            "fields; hold out every n-th view instead: SplitOptions.val_every = n")
        views = by_number
    else:
        views = [index for index, name in enumerate(names) if name in fact]
        if views and by_number is not None and by_number != views:
            raise UserError(f"{place}: every {every}th view is not what was held out of its field, which is "
                            f"{_few(views, names)}; scores would be too good: use SplitOptions.val_frames = 'held_out'")
    if not views or len(views) == len(names):
        raise UserError(f"{place}: {len(views)} of its {len(names)} views are held out; hold out some, not all "
                        "(FitData.holdout_every)")
    return views


def _few(views: Sequence[int], names: Sequence[str]) -> str:
    shown = ", ".join(names[view] for view in views[:4])
    return f"{shown}{', ...' if len(views) > 4 else ''}"


def _are_names(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, dict)) and all(
        isinstance(name, str) for name in value
    )

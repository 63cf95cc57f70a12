"""Which views of a store are meant: all of them, or some by their number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataloader.view_store import ViewStore
from utils.errors import UserError
from utils.identity import store_identity, value_identity


@dataclass(frozen=True)
class StoreViews:
    """Some views of one store: its path, and which ones (None: all)."""

    path: Path
    indices: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(ViewStore(self.path)) if self.indices is None else len(self.indices)

    def shares_views(self, other: StoreViews) -> bool:
        """Whether both mean the same store and at least one view in common."""
        if self.path.resolve() != other.path.resolve():
            return False
        return self.indices is None or other.indices is None or not set(self.indices).isdisjoint(other.indices)

    def identity(self, channels: Iterable[str]) -> dict[str, Any]:
        """JSON-able identity of the views, as far as a run uses ``channels``."""
        views = None if self.indices is None else value_identity(list(self.indices))
        return {
            "folder": self.path.absolute().parent.name, "scene": ViewStore(self.path).scene,
            "store": store_identity(self.path, channels), "views": views,
        }  # fmt: skip


def as_selections(stores: Sequence[str | Path | StoreViews]) -> list[StoreViews]:
    """Paths as selections of all their views."""
    return [store if isinstance(store, StoreViews) else StoreViews(Path(store)) for store in stores]


def refuse_shared_views(training: Sequence[StoreViews], held_out: Sequence[StoreViews]) -> None:
    """Raise :class:`UserError` that names a store of which views are trained on and measured on too."""
    for entry in held_out:
        if any(entry.shares_views(trained) for trained in training):
            raise UserError(
                f"{entry.path} is a training store and a validation or test store; take it out of one list"
            )

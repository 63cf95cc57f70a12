"""What a task is going to do: everything that can be known before it works or writes anything.

A task's function checks settings, files and sizes, finds out what is done already, and returns a :class:`Plan`.
``run.py --dry-run`` prints it; a run that is accepted calls :attr:`Plan.work`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.outputs import DONE, output_state

_MOST_OPENED = 100
FAILED = "failed"  # key of a task's metrics: {scene: reason}
CANNOT = "cannot"
ADD = "add"
_WORDS = {DONE: "is finished", ADD: "adds", CANNOT: "cannot be made"}


@dataclass(frozen=True)
class Item:
    """One output of a task.

    Attributes:
        name: of the scene or whatever it is.
        path: of the output.
        state: DONE, MAKE, CONTINUE, REPLACE (see :mod:`utils.outputs`), ADD (to what is there) or CANNOT.
        detail: what would be made, or why it cannot be, in a few words.
    """

    name: str
    path: Path
    state: str
    detail: str = ""

    def __str__(self) -> str:
        text = f"{self.name}: {self.path} {_WORDS.get(self.state, f'to {self.state}')}"
        return f"{text} ({self.detail})" if self.detail else text


@dataclass(frozen=True)
class Plan:
    """What a task found out, and what does the work.

    Attributes:
        work: does it, and returns the task's metrics.
        items: its outputs, one by one, as far as they are known beforehand.
        notes: further lines of the printed plan.
    """

    work: Callable[[], dict[str, Any] | None]
    items: Sequence[Item] = ()
    notes: Sequence[str] = ()

    @property
    def finished(self) -> bool:
        """Whether all outputs are there already, so that nothing would be made."""
        return bool(self.items) and all(item.state == DONE for item in self.items)

    def lines(self, most: int = 40) -> list[str]:
        """The plan as text; of more than ``most`` items only the first are shown."""
        lines = [str(item) for item in self.items[:most]]
        if len(self.items) > most:
            lines.append(f"... and {len(self.items) - most} more")
        if self.items:
            count = Counter(item.state for item in self.items)
            lines.append("in all: " + ", ".join(f"{number} {state if state in (DONE, CANNOT) else f'to {state}'}"
                                                for state, number in count.items()))  # fmt: skip
        return [*lines, *self.notes]


def plan_output(
    name: str, path: Path, settings: Mapping[str, Any], overwrite: bool = False, detail: str = "", partly: bool = False
) -> Item:
    """The item of an output folder that :func:`utils.outputs.prepare_output` will be asked for with ``settings``.

    Raises:
        UserError: it is there with other settings, or another process is writing it.
    """
    return Item(name, path, output_state(path, dict(settings), overwrite, partly), detail)


def plan_scenes(
    names: Sequence[str], plan_one: Callable[[str, bool], Item], on_error: str = "refuse"
) -> list[Item]:
    """One item a scene. Under ``on_error = "skip"`` a scene that cannot be made is an item that says why.

    Args:
        plan_one: called with the scene's name, and whether its inputs are to be opened. Of more than a hundred scenes
            only a hundred are opened, evenly spread: opening ScanNet's takes half an hour.

    Raises:
        UserError: a scene cannot be made, under "refuse"; or none can.
    """
    items = []
    stride = -(-len(names) // _MOST_OPENED)
    for number, name in enumerate(names):
        try:
            items.append(plan_one(name, number % stride == 0))
        except UserError as error:
            if on_error == "refuse":
                raise
            items.append(Item(name, Path(name), CANNOT, str(error)))
    if items and all(item.state == CANNOT for item in items):
        raise UserError(f"none of the {len(items)} scenes can be made; the first: {items[0].detail}")
    return items

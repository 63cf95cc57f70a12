"""Which row of an experiment a run belongs to, and whether its runs may be averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.files import read_json
from utils.identity import value_identity
from utils.outputs import finished_settings, first_difference

_FUSED = " (fused)"


def row_of(run: str, seed: int) -> str:
    """The row that a run's name says: ``ROW_SEED`` where it ends with its seed, else the whole name.

    Args:
        run: name of the run, which is the name of its folder.
        seed: of its training.
    """
    row, _, ending = run.rpartition("_")
    return row if row and ending == str(seed) else run


def fused_row(row: str) -> str:
    """Name of the row that scores a row's predictions as fused in the fields."""
    return row + _FUSED


def single_row(row: str) -> str:
    """The inverse of :func:`fused_row`; other names stay."""
    return row.removesuffix(_FUSED)


def fused_scores(test: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Scores of fused predictions beside those of single views in a test's folder, where there are some.

    The second value says of what else than the single views' scores they are, "checkpoint" or "stores"; None of the
    same.
    """
    path = test / "fused" / "results.json"
    if not path.is_file():
        return None, None
    single, fused = (finished_settings(test / part) for part in ("scores", "fused"))
    differs = (what for what in ("checkpoint", "stores") if single.get(what) != fused.get(what))
    return read_json(path, kind=dict), next(differs, None)


def settings_but_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A training's settings without ``budget.seed``."""
    return {**settings, "budget": {name: value for name, value in settings["budget"].items() if name != "seed"}}


def settings_identity(settings: Mapping[str, Any]) -> str:
    """Equal for trainings that differ in nothing but their seed."""
    return value_identity(settings_but_seed(settings))


def why_not_one_row(settings: Sequence[Mapping[str, Any]]) -> str | None:
    """Why trainings of one name are no seeds of one row, in a few words; None where they are."""
    first, *others = settings
    for other in others:
        difference = first_difference(settings_but_seed(first), settings_but_seed(other))
        if difference is not None:
            return difference
    seeds = [entry["budget"]["seed"] for entry in settings]
    repeated = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    return None if repeated is None else f"two have the seed {repeated}"

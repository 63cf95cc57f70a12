"""Selecting scenes, and applying a function to each."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError, check_choice, reading, short
from utils.files import read_text
from utils.names import is_system_name, plain_name, some_of
from utils.paths import find_config
from utils.plans import FAILED
from utils.progress import Progress
from utils.scene_workers import SceneWorkers, on_workers

logger = logging.getLogger(__name__)


def resolve_scenes(spec: str | Sequence[str], root: str | Path | None = None, prefix: str = "") -> list[str]:
    """Scene names from ``"all"``, a list of names, or the path of a text file with one name a line.

    Args:
        spec: see above. In a text file, blank lines and lines that start with ``#`` are skipped.
        root: for ``"all"``: the folder whose sub-folders are the scenes. Unfinished outputs are not scenes.
        prefix: what the sub-folders' names carry before the scene's name.

    Raises:
        UserError: nothing found, a name twice, or the text file is absent.
    """
    if not isinstance(spec, str):
        names = list(spec)
    elif spec == "all":
        names = scene_folders(root, prefix)
    elif listed := find_config(spec):
        lines = (line.strip() for line in read_text(listed, "a list of scene names").splitlines())
        names = [plain_name(line, listed, "scene's name") for line in lines if line and not line.startswith("#")]
    else:
        raise UserError(f"scenes = {spec!r} is neither 'all' nor an existing text file of scene names; "
                        "correct the path, give 'all' or a list of names, or bring the file (ScanNet's lists go into "
                        "configs/splits, whose README.md says where they are)")
    if not names:
        raise UserError(f"no scenes found for scenes = {spec!r}" + (f" in {root}" if root else ""))
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        given = repr(spec) if isinstance(spec, str) else short(spec)
        raise UserError(f"scenes = {given} names scenes twice: {some_of(repeated)}")
    return names


def require_scenes(names: Sequence[str], root: str | Path) -> None:
    """Raise :class:`UserError` that names the first scene without a sub-folder of ``root``, and what is there."""
    there = scene_folders(root)
    for name in names:
        if name not in there:
            raise UserError(f"scene {name!r} is not in {root}, which holds {len(there)} scenes"
                            + (f": {some_of(there)}" if there else "; make it there, or take it out of the list"))


def scene_folders(root: str | Path | None, prefix: str = "") -> list[str]:
    """Names of the scenes that have a sub-folder in ``root``, sorted, without ``prefix``.

    Raises:
        UserError: ``root`` is not a folder.
    """
    if root is None or not Path(root).is_dir():
        raise UserError(f"{root} is not a folder; expected one sub-folder per scene there")
    with reading(root, "a folder of scenes"):
        return sorted(
            path.name.removeprefix(prefix)
            for path in Path(root).iterdir()
            if path.is_dir() and path.name.startswith(prefix) and not is_system_name(path.name)
            and not path.name.endswith(".partial")
            and path.name not in ("run", "tensorboard")
        )


def for_each_scene(
    names: Sequence[str], function: Callable[[str], Any], description: str, on_error: str = "refuse",
    describe: Callable[[Any], str] = lambda result: "", on_gpu: bool = False,
) -> dict[str, Any]:
    """Call ``function(name)`` for each scene, where :class:`SceneWorkers` says so several at a time, with progress.

    A log has one line a scene, and at the end the scenes that failed, by their reasons.

    Args:
        on_error: ``"refuse"`` stops at the first scene that fails; ``"skip"`` logs why, with the traceback where it is
            not a mistake of the user, and continues.
        describe: a scene's result in a few words, for its line.
        on_gpu: whether the function computes on a GPU.

    Returns:
        Results by scene name; with ``"skip"``, also :data:`utils.plans.FAILED`: {scene: reason}, when any failed.

    Raises:
        UserError: a scene failed under ``"refuse"``, or every scene failed.
    """
    check_on_error(on_error)
    workers = SceneWorkers()
    outcomes = on_workers(names, function, workers, on_gpu) if workers.count else _in_turn(names, function)
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}
    with Progress(description, len(names), "scene", every=True) as meter, contextlib.closing(outcomes):
        for name, outcome in outcomes:
            note = name
            if not isinstance(outcome, Exception):
                results[name] = outcome
                note = f"{name}: {text}" if (text := describe(outcome)) else name
            elif on_error == "refuse":
                raise outcome
            else:
                failed[name] = _log_failure(name, outcome)
                note = f"{name}: failed"
            del outcome  # its traceback may hold gigabytes that the next scene needs
            meter.update(note=note)
    if failed and not results:
        first = next(iter(failed.values())).partition("\n")[0]
        raise UserError(f"all {len(failed)} scenes failed; the first: {first}")
    if failed:
        logger.error("%d of %d scenes failed:\n%s", len(failed), len(names), _by_reason(failed))
    results = {name: results[name] for name in names if name in results}
    return {**results, FAILED: failed} if failed else results


def check_on_error(on_error: str) -> None:
    """Raise :class:`UserError` unless ``on_error`` is known."""
    check_choice("on_error", on_error, ("refuse", "skip"))


def _log_failure(name: str, error: Exception) -> str:
    """Log why a scene is left out; returns the reason, with the traceback where it is a bug."""
    if isinstance(error, UserError):
        logger.error("%s skipped: %s", name, error)
        return str(error)
    text = "".join(traceback.format_exception(error))
    logger.error("%s skipped, because the program failed on it:\n%s", name, text)
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}\n{text}"


def _by_reason(failed: dict[str, str]) -> str:
    """One line a reason, with the scenes of which it was told; their own names in it make no difference."""
    scenes: dict[str, list[str]] = {}
    for name, reason in failed.items():
        scenes.setdefault(reason.partition("\n")[0].replace(name, "SCENE"), []).append(name)
    return "\n".join(
        f"  {some_of(names)}: {reason}"
        for reason, names in sorted(scenes.items(), key=lambda entry: -len(entry[1]))
    )


def _in_turn(names: Sequence[str], function: Callable[[str], Any]) -> Iterator[tuple[str, Any | Exception]]:
    for name in names:
        try:
            yield name, function(name)
        except Exception as error:
            yield name, error

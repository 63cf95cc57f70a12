"""Output folders that are complete or absent, never made twice and never mixed.

Every stage writes one folder per scene through :func:`prepare_output` and :func:`commit_output`. The folder holds
``settings.json``: everything that determined its content, inputs included (:mod:`utils.identity`). A finished folder
with equal settings is not made again; one with other settings is refused, so that results of different settings are
never mixed. While a folder is made it is called ``NAME.partial`` and locked (:mod:`utils.locks`).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from utils.disk import flush, remove_orphans, writing
from utils.errors import UserError, short
from utils.files import read_json, write_json
from utils.identity import PREFIX, Stamps, resolve_inputs
from utils.locks import check_unlocked, lock, unlock
from utils.run_state import resume_requested

SETTINGS_FILE = "settings.json"
INPUTS_FILE = "inputs.json"
DONE, MAKE, CONTINUE, REPLACE = "done", "make", "continue", "replace"
_ABSENT = object()


def partial_path(path: str | Path) -> Path:
    """Path of the unfinished content of the output folder ``path``."""
    path = Path(path)
    return path.with_name(path.name + ".partial")


def output_state(
    path: str | Path, settings: dict[str, Any], overwrite: bool = False, partly: bool = False
) -> str:
    """What :func:`prepare_output` would do, without changing anything: DONE, MAKE, CONTINUE or REPLACE.

    Args:
        path, settings, overwrite: as for :func:`prepare_output`.
        partly: ``settings`` are only some of those that determine the output; the others are not compared.

    Raises:
        UserError: as :func:`prepare_output`.
    """
    path, partial = Path(path), partial_path(path)
    check_unlocked(path)
    if path.exists():
        if overwrite:
            return REPLACE
        _refuse_difference(path, _resolved(settings, path)[0], partly)
        return DONE
    unfinished = resume_requested() and (partial / SETTINGS_FILE).exists()
    if not unfinished:
        return MAKE
    resolved, _ = _resolved(settings, partial)
    return MAKE if first_difference(read_json(partial / SETTINGS_FILE), resolved) else CONTINUE


def prepare_output(path: str | Path, settings: dict[str, Any], overwrite: bool = False) -> Path | None:
    """Start, resume or skip the output folder ``path``, and lock it until :func:`commit_output`.

    Args:
        path: the finished folder's name.
        settings: JSON-able but for :class:`utils.identity.FileSet`; everything that determines the bytes written.
        overwrite: make it again although it is finished.

    Returns:
        The folder to write into (``<path>.partial``), or None when ``path`` is finished with equal settings.
        With ``--resume``, an unfinished folder with equal settings keeps its content; otherwise it is emptied.

    Raises:
        UserError: a finished folder with other settings is there and ``overwrite`` is off, or another process is
            writing the folder.
    """
    path, partial = Path(path), partial_path(path)
    if path.exists() and not overwrite:
        _refuse_difference(path, _resolved(settings, path)[0])
        return None
    lock(path)
    if path.exists() and not overwrite:  # another run finished it just now
        unlock(path)
        return prepare_output(path, settings, overwrite)
    for retired in path.parent.glob(f".{path.name}.*.old"):  # of a run that was killed while it replaced the folder
        shutil.rmtree(retired)
    remove_orphans(path.parent)
    resolved, stamps = _resolved(settings, partial)
    keep = (
        resume_requested()
        and (partial / SETTINGS_FILE).exists()
        and first_difference(read_json(partial / SETTINGS_FILE), resolved) is None
    )
    if keep:
        remove_orphans(partial, locked=True)
        return partial
    shutil.rmtree(partial, ignore_errors=True)
    with writing(path):
        partial.mkdir(parents=True)
    if stamps:
        write_json(partial / INPUTS_FILE, stamps)
    write_json(partial / SETTINGS_FILE, resolved)
    return partial


def commit_output(path: str | Path) -> None:
    """Turn the unfinished folder of ``path`` into the finished one, replacing an older one, and unlock it.

    What is in it is on the disk before it gets its name.
    """
    path, partial = Path(path), partial_path(path)
    with writing(path):
        for folder, _, files in os.walk(partial, topdown=False):
            for name in files:
                flush(os.path.join(folder, name))
            flush(folder)
        if path.exists():
            retired = path.with_name(f".{path.name}.{os.getpid()}.old")
            os.replace(path, retired)
            os.replace(partial, path)
            shutil.rmtree(retired)
        else:
            os.replace(partial, path)
        flush(path.parent)
    unlock(path)


def finished_settings(path: str | Path) -> dict[str, Any]:
    """What the folder ``path`` was made with; empty where it does not say."""
    file = Path(path) / SETTINGS_FILE
    return read_json(file, kind=dict) if file.exists() else {}


def _refuse_difference(path: Path, settings: dict[str, Any], partly: bool = False) -> None:
    there = finished_settings(path)
    difference = first_difference({key: there[key] for key in settings if key in there} if partly else there, settings)
    if difference is not None:
        raise UserError(
            f"{path} was made with other settings ({difference}); choose another output folder, "
            "delete this one, or set overwrite = True"
        )


def _resolved(settings: dict[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, Stamps]]:
    """Settings as JSON gives them back, and stamps of the input files; what ``folder`` remembers is not read again."""
    file = folder / INPUTS_FILE
    known, remembered = ({}, 0) if not file.is_file() else (read_json(file, kind=dict), file.stat().st_mtime_ns)
    resolved, stamps = resolve_inputs(settings, known, remembered)
    return json.loads(json.dumps(resolved)), stamps


def first_difference(old: Any, new: Any, name: str = "") -> str | None:
    """Where two JSON values first differ, in the order of ``new``: "options.step_size = 0.5 there, 1.0 now"; or None.

    Dicts are followed down to the entry that differs, lists of dicts to the element.
    """
    if old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*new, *(key for key in old if key not in new)]
        parts = [(f"{name}.{key}" if name else key, old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in keys]
    elif _is_list_of_dicts(old) and _is_list_of_dicts(new) and len(old) == len(new):
        parts = [(f"{name}[{index}]", *pair) for index, pair in enumerate(zip(old, new, strict=True))]
    elif _is_identity(old) and _is_identity(new):
        return f"{name} changed since"
    else:
        there = "is absent there" if old is _ABSENT else f"= {short(old)} there"
        return f"{name} {there}, {'absent' if new is _ABSENT else short(new)} now"
    return next(filter(None, (first_difference(*pair, part) for part, *pair in parts)))


def _is_identity(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(PREFIX)


def _is_list_of_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)

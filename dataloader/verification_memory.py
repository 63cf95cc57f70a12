"""What ``verify`` found before, so that folders that have not changed since are not read again.

A folder's findings are remembered with its stamp: the names, sizes and times of change of its files, how it was
checked, and the sources of the checks. What has another stamp is checked again, and so is whatever changed within the
last seconds before it was looked at. A disk that loses bits without a change of time is found by a fresh check only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataloader.scene import Scene
from dataloader.verification import Finding
from utils.errors import UserError, reading
from utils.files import atomic_path, json_text, read_json
from utils.identity import code_identity, folder_stamp, settled, value_identity

_CHECKED_BY = ("utils", "dataloader")


def remembered(
    memory: Path, folder: Path, options: dict[str, Any], check: Callable[[], list[Finding]], fresh: bool
) -> tuple[list[Finding], bool]:
    """The findings of ``check()``, and whether they are those of an earlier run.

    Args:
        memory: file of what was found in ``folder`` before.
        folder: that is checked.
        options: JSON-able; what else determines the findings.
        check: raises nothing.
        fresh: check in any case.
    """
    began = time.time_ns()
    listing, changed = folder_stamp(folder)
    stamp = value_identity([listing, options, code_identity(*_CHECKED_BY)])
    known = None if fresh else _load(memory, stamp)
    if known is not None:
        return known, True
    findings = check()
    if settled(changed, began):
        with atomic_path(memory, flushed=False) as temporary:
            temporary.write_text(json_text({"stamp": stamp, "findings": [asdict(finding) for finding in findings]}))
    else:
        memory.unlink(missing_ok=True)
    return findings, False


def _load(memory: Path, stamp: str) -> list[Finding] | None:
    """None where nothing is remembered of that state of the folder, or not legibly: a killed machine may do that."""
    if not memory.is_file():
        return None
    try:
        content = read_json(memory, kind=dict)
        with reading(memory, "what 'verify' found"):
            return [Finding(**finding) for finding in content["findings"]] if content["stamp"] == stamp else None
    except UserError:
        return None


def has_files_elsewhere(scene: Scene) -> bool:
    """Whether a scene lists files that are not in its folder, whose changes its stamp does not show."""
    paths = [*scene.color_paths, *scene.depth_paths, *(scene.mask_paths or []), scene.mesh_path]
    return any(path is not None and (not path.is_relative_to(scene.path) or ".." in path.parts) for path in paths)

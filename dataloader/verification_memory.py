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
from typing import Any, NamedTuple

from dataloader.field_facts import FieldFacts
from dataloader.scene import Scene
from dataloader.verification import Finding
from utils.errors import UserError, reading
from utils.files import atomic_path, json_text, read_json
from utils.identity import code_identity, folder_stamp, settled, value_identity

_CHECKED_BY = ("utils", "dataloader")


class Checked(NamedTuple):
    """What was found in a folder, and what it holds, if it is a field's that could be read."""

    findings: list[Finding]
    facts: FieldFacts | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        facts = None if self.facts is None else self.facts.to_json()
        return {"findings": [asdict(finding) for finding in self.findings], "facts": facts}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Checked:
        """Inverse of :meth:`to_json`."""
        facts = content["facts"]
        return cls([Finding(**finding) for finding in content["findings"]],
                   None if facts is None else FieldFacts.from_json(facts))  # fmt: skip


def remembered(
    memory: Path, folder: Path, options: dict[str, Any], check: Callable[[], Checked], fresh: bool
) -> tuple[Checked, bool]:
    """What ``check()`` found, and whether they are those of an earlier run.

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
    checked = check()
    if settled(changed, began):
        with atomic_path(memory, flushed=False) as temporary:
            temporary.write_text(json_text({"stamp": stamp, **checked.to_json()}))
    else:
        memory.unlink(missing_ok=True)
    return checked, False


def _load(memory: Path, stamp: str) -> Checked | None:
    """None where nothing is remembered of that state of the folder, or not legibly: a killed machine may do that."""
    if not memory.is_file():
        return None
    try:
        content = read_json(memory, kind=dict)
        with reading(memory, "what 'verify' found"):
            return Checked.from_json(content) if content["stamp"] == stamp else None
    except UserError:
        return None


def has_files_elsewhere(scene: Scene) -> bool:
    """Whether a scene lists files that are not in its folder, whose changes its stamp does not show."""
    paths = [*scene.color_paths, *scene.depth_paths, *(scene.mask_paths or []), scene.mesh_path]
    return any(path is not None and (not path.is_relative_to(scene.path) or ".." in path.parts) for path in paths)

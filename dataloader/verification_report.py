"""What ``verify`` found, as a file for programs that decide what to run next: ``report.json``.

::

    {"version": 1,
     "status": "broken",                        the worst of all scenes
     "counts": {"scan": {"sound": 1512, "incomplete": 0, "absent": 0, "broken": 1}, "field": ..., "views": ...},
     "scenes": {"scene0000_00": {
         "status": "incomplete",                the worst of its folders, where "absent" is "incomplete"
         "scan": {"status": "sound", "reasons": [], "notes": ["frame 5 is left out: ..."]},
         "field": {"status": "sound", "reasons": [], "notes": [], "holds": {"voxels": [81234], "psnr": 24.1, ...}},
         "views": {"status": "incomplete", "reasons": ["no annotation yet; ..."], "notes": []}}}}

``broken``: cannot be used; reasons say what to do. ``incomplete``: a stage has work left there. ``absent``: another
folder has the scene and this one has not. ``sound``: the next stage can take it; notes are for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dataloader.verification_memory import Checked

VERSION = 1
SOUND, INCOMPLETE, ABSENT, BROKEN = "sound", "incomplete", "absent", "broken"
STATES = (SOUND, INCOMPLETE, ABSENT, BROKEN)  # from good to bad


def report(found: Mapping[str, Mapping[str, Checked]]) -> dict[str, Any]:
    """The file's content.

    Args:
        found: by kind of folder ("scan", "field", "views") and scene; a kind that was not checked is left out.
    """
    names = sorted({name for scenes in found.values() for name in scenes})
    scenes = {name: _scene({kind: scenes.get(name) for kind, scenes in found.items()}) for name in names}
    counts = {kind: Counter(scene[kind]["status"] for scene in scenes.values()) for kind in found}
    return {
        "version": VERSION,
        "status": _worst([scene["status"] for scene in scenes.values()]),
        "counts": {kind: {state: count[state] for state in STATES} for kind, count in counts.items()},
        "scenes": scenes,
    }


def _scene(folders: Mapping[str, Checked | None]) -> dict[str, Any]:
    entries = {kind: _folder(checked) for kind, checked in folders.items()}
    worst = _worst([entry["status"] for entry in entries.values()])
    return {"status": INCOMPLETE if worst == ABSENT else worst, **entries}


def _folder(checked: Checked | None) -> dict[str, Any]:
    if checked is None:
        return {"status": ABSENT, "reasons": [], "notes": []}
    findings = checked.findings
    reasons = [finding.text for finding in findings if finding.broken or finding.unfinished]
    notes = [finding.text for finding in findings if not (finding.broken or finding.unfinished)]
    state = BROKEN if any(finding.broken for finding in findings) else INCOMPLETE if reasons else SOUND
    holds = {} if checked.facts is None else {"holds": checked.facts.to_json()}
    return {"status": state, "reasons": reasons, "notes": notes, **holds}


def _worst(states: Sequence[str]) -> str:
    return max(states, key=STATES.index, default=SOUND)

"""Task ``verify``: is this data complete and sound?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dataloader.field_facts import FieldFacts, format_facts
from dataloader.lens_options import LensOptions
from dataloader.perfception import FIELD_PREFIX
from dataloader.scene import Scene
from dataloader.sensors import SensorOptions
from dataloader.verification import (
    Finding,
    examine,
    format_findings,
    inspect_field,
    unfinished_beside,
    verify_scan,
    verify_views,
)
from dataloader.verification_memory import Checked, has_files_elsewhere, remembered
from dataloader.verification_report import report
from utils.cores import usable_cores
from utils.errors import UserError
from utils.files import write_json
from utils.labels import label_set, label_settings
from utils.plans import Plan
from utils.progress import Progress
from utils.scene_workers import SceneWorkers, on_workers
from utils.scenes import resolve_scenes, scene_folders
from utils.tasks import task

logger = logging.getLogger(__name__)
REPORT_FILE = "report.json"
_KINDS = {"scan": "scans", "field": "fields", "views": "views"}  # and what several are called


@task(
    summary="check that scans, fields and view stores are complete and sound",
    records="{results_dir}",
    configures=(SceneWorkers, label_set, SensorOptions, LensOptions),
)
def verify(
    scans_dir: str | None = None,
    fields_dir: str | None = None,
    views_dir: str | None = None,
    scenes: str | list[str] = "all",
    unlabelled: str | Sequence[str] = (),
    read_images: bool = True,
    min_frames: int = 20,
    results_dir: str = "",
    fresh: bool = False,
    workers: int = 1,
) -> Plan:
    """Print tables of all problems and their remedies, and of what fields hold; fail when data is broken.

    Folders that have not changed since an earlier run with the same results_dir are not read again.

    Args:
        scans_dir: folder of scene folders (ScanNet, ScanNet++, ARKitScenes, instant-ngp or nerfstudio, NSVF or COLMAP);
            None checks none.
        fields_dir: folder of plenoxel_scannet_SCENE folders; not checked while it does not exist or is empty.
        views_dir: folder of view stores; not checked while it does not exist or is empty.
        scenes: "all" (whatever is in each folder), a list of names, or a text file of names.
        unlabelled: scenes that have no labels, such as ScanNet's test scenes: a list of names, or a text file.
        read_images: decode every image, which finds damaged ones; False decodes one of each kind.
        min_frames: scans with fewer usable frames get a note.
        results_dir: folder for report.json, which says of each scene whether it is sound, incomplete or broken and why,
            and for what was found before; "" writes neither.
        fresh: read everything, whatever was found before.
        workers: folders at a time, each in a process of its own or, with SceneWorkers.address, on Ray; 0 takes as many
            as this machine has cores, 1 none but this process.
    """
    if workers < 0:
        raise UserError(f"verify.workers = {workers}: expected at least 0")
    without = frozenset(resolve_scenes(unlabelled)) if unlabelled else frozenset()
    folders = {"scan": scans_dir, "field": fields_dir, "views": views_dir}
    found: dict[str, list[str]] = {}
    for kind, folder in folders.items():
        if folder is None or (kind != "scan" and not Path(folder).is_dir()):
            continue
        prefix = _prefix(kind)
        empty = kind != "scan" and scenes == "all" and not scene_folders(folder, prefix)
        found[kind] = [] if empty else resolve_scenes(scenes, folder, prefix)
    if not found:
        raise UserError("verify has nothing to check; set verify.scans_dir, fields_dir or views_dir to existing "
                        "folders")
    notes = [f"{folders[kind]}: {len(names) or 'no'} {_KINDS[kind]} to check" for kind, names in found.items()]
    checks = _Checks({kind: str(folders[kind]) for kind in found}, without, read_images, min_frames, results_dir, fresh)
    return Plan(lambda: _verify(checks, found, workers or usable_cores()), notes=notes)


def _prefix(kind: str) -> str:
    return FIELD_PREFIX if kind == "field" else ""


@dataclass(frozen=True)
class _Checks:
    """How a folder is checked: sent to workers."""

    folders: dict[str, str]  # by kind
    without_labels: frozenset[str]
    read_images: bool
    min_frames: int
    results_dir: str
    fresh: bool

    def __call__(self, key: str) -> tuple[Checked, bool]:
        """What is found in the folder ``KIND/SCENE``, and whether it was known before."""
        kind, _, name = key.partition("/")
        path = Path(self.folders[kind]) / f"{_prefix(kind)}{name}"
        elsewhere: list[bool] = []

        def check() -> Checked:
            held: list[FieldFacts] = []
            findings = examine(lambda path: self._check(kind, path, elsewhere, held), path, kind, name)
            return Checked(findings, held[0] if held else None)

        if self.results_dir:
            memory = Path(self.results_dir) / "found" / kind / f"{name}.json"
            checked, before = remembered(memory, path, self._options(kind, name, path), check, self.fresh)
            if any(elsewhere):
                memory.unlink(missing_ok=True)
        else:
            checked, before = check(), False
        return checked._replace(findings=checked.findings + unfinished_beside(path, kind, name)), before

    def _check(self, kind: str, path: Path, elsewhere: list[bool], held: list[FieldFacts]) -> list[Finding]:
        labelled = path.name not in self.without_labels
        if kind == "field":
            findings, facts = inspect_field(path)
            held.extend([] if facts is None else [facts])
            return findings
        if kind == "views":
            return verify_views(path, labelled)

        def opened(scene: Scene) -> None:
            elsewhere.append(has_files_elsewhere(scene))

        return verify_scan(path, self.read_images, self.min_frames, labelled, opened)

    def _options(self, kind: str, name: str, path: Path) -> dict[str, Any]:
        """What beside the folder's content determines the findings; messages name its place."""
        options = {"place": str(path), "labelled": name not in self.without_labels, "labels": label_settings(),
                   "table": str(label_set().path)}  # fmt: skip
        if kind == "scan":
            options |= {"read_images": self.read_images, "min_frames": self.min_frames,
                        "sensors": asdict(SensorOptions()), "lenses": asdict(LensOptions())}  # fmt: skip
        return options


def _verify(checks: _Checks, names: dict[str, list[str]], workers: int) -> dict[str, int]:
    found = _find_all(checks, names, workers)
    findings = [finding for scenes in found.values() for each in scenes.values() for finding in each.findings]
    facts = [each.facts for each in found.get("field", {}).values() if each.facts is not None]
    if facts:
        logger.info("what fields hold:\n%s", format_facts(facts))
    if checks.results_dir:
        write_json(Path(checks.results_dir) / REPORT_FILE, report(found))
    if findings:
        logger.info("what was found:\n%s", format_findings(findings))
    broken = sum(finding.broken for finding in findings)
    counts = {_KINDS[kind]: len(scenes) for kind, scenes in names.items()}
    checked = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    if broken:
        raise UserError(f"{broken} problems in {checked}; the table above has their remedies")
    logger.info("%s are complete and sound (%d notes)", checked, len(findings))
    return {**counts, "broken": 0, "notes": len(findings)}


def _find_all(checks: _Checks, names: dict[str, list[str]], workers: int) -> dict[str, dict[str, Checked]]:
    """What was found by kind and scene, in the order of ``names``."""
    keys = [f"{kind}/{name}" for kind, scenes in names.items() for name in scenes]
    workers = min(workers, len(keys))
    outcomes = ((key, checks(key)) for key in keys)
    if workers > 1:
        outcomes = on_workers(keys, checks, replace(SceneWorkers(), count=workers))
    found: dict[str, Checked] = {}
    known = 0
    with Progress("verify", len(keys), "folder") as meter:
        for key, outcome in outcomes:
            if isinstance(outcome, Exception):
                kind, _, name = key.partition("/")
                outcome = Checked([Finding(kind, name, True, f"{name} cannot be checked: {outcome}")]), False
            found[key], before = outcome
            known += before
            meter.update()
    if known:
        logger.info("%d of %d folders have not changed since they were checked; verify.fresh = True reads them again",
                    known, len(keys))
    return {kind: {name: found[f"{kind}/{name}"] for name in scenes} for kind, scenes in names.items()}

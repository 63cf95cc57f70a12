"""Task ``verify``: is this data complete and sound?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from dataloader.field_facts import FieldFacts, format_facts
from dataloader.lens_options import LensOptions
from dataloader.perfception import FIELD_PREFIX
from dataloader.sensors import SensorOptions
from dataloader.verification import (
    Finding,
    examine,
    format_findings,
    inspect_field,
    verify_scan,
    verify_views,
)
from utils.errors import UserError
from utils.files import write_json
from utils.labels import label_set
from utils.outputs import partial_path
from utils.plans import Plan
from utils.progress import progress
from utils.scenes import resolve_scenes, scene_folders
from utils.tasks import task

logger = logging.getLogger(__name__)


@task(
    summary="check that scans, fields and view stores are complete and sound",
    configures=(label_set, SensorOptions, LensOptions),
)
def verify(
    scans_dir: str | None = None,
    fields_dir: str | None = None,
    views_dir: str | None = None,
    scenes: str | list[str] = "all",
    unlabelled: str | Sequence[str] = (),
    read_images: bool = True,
    min_frames: int = 20,
    report: str = "",
) -> Plan:
    """Print tables of all problems and their remedies, and of what fields hold; fail when data is broken.

    Args:
        scans_dir: folder of scene folders (ScanNet, ScanNet++, ARKitScenes, instant-ngp or nerfstudio, NSVF or COLMAP);
            None checks none.
        fields_dir: folder of plenoxel_scannet_SCENE folders; not checked while it does not exist or is empty.
        views_dir: folder of view stores; not checked while it does not exist or is empty.
        scenes: "all" (whatever is in each folder), a list of names, or a text file of names.
        unlabelled: scenes that have no labels, such as ScanNet's test scenes: a list of names, or a text file.
        read_images: decode every image, which finds damaged ones; False decodes one of each kind.
        min_frames: scans with fewer usable frames get a note.
        report: a JSON file that receives the problems and what each field holds (resolution, voxels and their size by
            level, bytes, PSNR and SSIM, background, what was held out); "" writes none.
    """
    without = set(resolve_scenes(unlabelled)) if unlabelled else set()

    def scan(path: Path) -> list[Finding]:
        return verify_scan(path, read_images, min_frames, labelled=path.name not in without)

    def views(path: Path) -> list[Finding]:
        return verify_views(path, labelled=path.name not in without)

    facts: list[FieldFacts] = []

    def field(path: Path) -> list[Finding]:
        findings, found = inspect_field(path)
        facts.extend([] if found is None else [found])
        return findings

    checks = [
        _Check("scans", scans_dir, "", scan),
        _Check("fields", fields_dir, FIELD_PREFIX, field),
        _Check("views", views_dir, "", views),
    ]
    found: list[tuple[_Check, list[str]]] = []
    for check in checks:
        if check.folder is None or (check.kind != "scans" and not Path(check.folder).is_dir()):
            continue
        empty = check.kind != "scans" and scenes == "all" and not scene_folders(check.folder, check.prefix)
        found.append((check, [] if empty else resolve_scenes(scenes, check.folder, check.prefix)))
    if not found:
        raise UserError("verify has nothing to check; set verify.scans_dir, fields_dir or views_dir to existing "
                        "folders")
    notes = [f"{check.folder}: {len(names) or 'no'} {check.kind} to check" for check, names in found]
    return Plan(lambda: _verify(found, facts, report), notes=notes)


class _Check(NamedTuple):
    """What is checked in one folder."""

    kind: str
    folder: str | None
    prefix: str
    check: Callable[[Path], list[Finding]]


def _verify(checks: list[tuple[_Check, list[str]]], facts: list[FieldFacts], report: str) -> dict[str, int]:
    """Check everything, and tell it.

    Args:
        facts: what fields hold, filled while they are checked.
    """
    findings = [finding for check, names in checks for finding in _check_all(check, names)]
    if facts:
        logger.info("what fields hold:\n%s", format_facts(facts))
    if report:
        write_json(report, {"fields": [one.to_json() for one in facts],
                            "findings": [asdict(finding) for finding in findings]})
    if findings:
        logger.info("what was found:\n%s", format_findings(findings))
    broken = sum(finding.broken for finding in findings)
    counts = {check.kind: len(names) for check, names in checks}
    checked = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    if broken:
        raise UserError(f"{broken} problems in {checked}; the table above has their remedies")
    logger.info("%s are complete and sound (%d notes)", checked, len(findings))
    return {**counts, "broken": 0, "notes": len(findings)}


def _check_all(check: _Check, names: list[str]) -> list[Finding]:
    findings = []
    for name in progress(names, f"verify {check.kind}", unit="scene"):
        path = Path(check.folder) / f"{check.prefix}{name}"
        findings += examine(check.check, path, check.kind.removesuffix("s"), name)
        if partial_path(path).exists():
            findings.append(Finding(check.kind.removesuffix("s"), name, False,
                                    f"{partial_path(path).name} is unfinished; run its stage with --resume"))
    return findings

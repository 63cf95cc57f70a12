"""Task ``verify``: is this data complete and sound?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from dataloader.perfception import FIELD_PREFIX
from dataloader.verification import (
    Finding,
    format_findings,
    verify_field,
    verify_scan,
    verify_views,
)
from utils.errors import UserError
from utils.outputs import partial_path
from utils.progress import progress
from utils.scenes import resolve_scenes, scene_folders
from utils.tasks import task

logger = logging.getLogger(__name__)


@task(summary="check that scans, fields and view stores are complete and sound")
def verify(
    scans_dir: str | None = None,
    fields_dir: str | None = None,
    views_dir: str | None = None,
    scenes: str | list[str] = "all",
    read_images: bool = True,
    min_frames: int = 20,
) -> dict[str, int]:
    """Print a table of all problems with what to do about each; fail when data is broken.

    Args:
        scans_dir: folder of scene folders (ScanNet, instant-ngp, NSVF or COLMAP); None checks none.
        fields_dir: folder of plenoxel_scannet_SCENE folders; not checked while it does not exist or is empty.
        views_dir: folder of view stores; not checked while it does not exist or is empty.
        scenes: "all" (whatever is in each folder), a list of names, or a text file of names.
        read_images: decode every image, which finds truncated ones.
        min_frames: scans with fewer usable frames get a note.
    """
    checks = [
        ("scans", scans_dir, "", lambda path: verify_scan(path, read_images, min_frames)),
        ("fields", fields_dir, FIELD_PREFIX, verify_field),
        ("views", views_dir, "", verify_views),
    ]
    counts: dict[str, int] = {}
    findings: list[Finding] = []
    for kind, folder, prefix, check in checks:
        if folder is None or (kind != "scans" and not Path(folder).is_dir()):
            continue
        if kind != "scans" and scenes == "all" and not scene_folders(folder, prefix):
            logger.info("%s: nothing there yet", folder)
            counts[kind] = 0
            continue
        names = resolve_scenes(scenes, folder, prefix)
        counts[kind] = len(names)
        findings += _check_all(Path(folder), names, prefix, check, kind)
    if not counts:
        raise UserError("verify has nothing to check; set verify.scans_dir, fields_dir or views_dir to existing "
                        "folders")
    if findings:
        logger.info("what was found:\n%s", format_findings(findings))
    broken = sum(finding.broken for finding in findings)
    checked = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    if broken:
        raise UserError(f"{broken} problems in {checked}; the table above says what to do about each")
    logger.info("%s are complete and sound (%d notes)", checked, len(findings))
    return {**counts, "broken": 0, "notes": len(findings)}


def _check_all(
    folder: Path, names: list[str], prefix: str, check: Callable[[Path], list[Finding]], kind: str
) -> list[Finding]:
    findings = []
    for name in progress(names, f"verify {kind}", unit="scene"):
        path = folder / f"{prefix}{name}"
        findings += check(path)
        if partial_path(path).exists():
            findings.append(Finding(kind.removesuffix("s"), name, False,
                                    f"{partial_path(path).name} is unfinished; run its stage with --resume"))
    return findings

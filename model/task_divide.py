"""Task ``divide``: one recorded room as two scenes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gin

from model.divided_scene import ACROSS, ALONG, HALVES, DividedScene
from utils.errors import UserError, check_choice
from utils.labels import label_set
from utils.plans import Plan
from utils.tasks import task


@task(
    summary="divide one labelled room into two scenes, to learn in one half and test on the other",
    inputs=("scan",),
    records="{scans_dir}/run",
    configures=(label_set,),
)
def divide(
    scan: str = gin.REQUIRED,
    scans_dir: str = gin.REQUIRED,
    plane: str = "across",
    margin: float = 0.25,
    overwrite: bool = False,
) -> Plan:
    """Write ``{scans_dir}/SCENE_a`` and ``SCENE_b``, scenes in ScanNet's layout.

    A vertical plane has half of the labelled vertices on each side. A frame belongs to
    the half of which it shows more; each half's mesh keeps the labels of that half alone, so that no surface that one
    of the scenes has a label for is scored in the other.

    Args:
        scan: folder of a scene in ScanNet's layout, with a labelled mesh and z up.
        scans_dir: folder that receives the two scenes.
        plane: "across" the room's longer side, or "along" it: choose the one that leaves the classes on both sides.
        margin: metres to both sides of the plane whose labels neither half has.
        overwrite: divide again what was divided with other settings.
    """
    if not 0 <= margin < math.inf:
        raise UserError(f"divide.margin = {margin}; expected metres, 0 or more")
    if not Path(scan).is_dir():
        raise UserError(f"divide.scan = {scan!r} is no folder; expected that of one scene")
    check_choice("divide.plane", plane, (ACROSS, ALONG))
    divided = DividedScene(Path(scan), Path(scans_dir), margin, plane)

    def work() -> dict[str, Any]:
        return divided.divide(overwrite)

    return Plan(work, divided.plan(overwrite), [f"halves {' and '.join(HALVES)} of {scan}"])

"""A copy of the project to run commands in as they are written, with configs made small."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FOLDERS = ("utils", "lib", "dataloader", "model", "enet", "analysis", "configs", "scripts", "blender_scripts")
SMALL = {
    "base.gin": "SIZE = (31, 40)\nDEVICE = 'cpu'\n",
    "stage/fit.gin": "FitGrid.resolutions = (24,)\nFitOptimization.steps = (60,)\n"
                     "FitOptimization.rays_per_step = (400,)\nFitPoses.rounds = 0\n",
    "stage/sample.gin": "sample.classes = ['sink', 'toilet', 'chair']\nFilterOptions.min_coverage = 0.02\n"
                        "SpaceOptions.clearance = 0.1\nSelectionOptions.min_observed = 0.05\n",
    "stage/filter.gin": "FilterOptions.min_coverage = 0.02\nFilterOptions.min_quality = 0.001\n"
                        "FilterOptions.max_per_class = 6\n",
    "stage/train.gin": "train.epochs = 1\ntrain.batch_size = 8\ntrain.epoch_views = 16\n",
}  # fmt: skip


def clone_project(folder: Path) -> dict[str, str]:
    """Copy what commands need, with :data:`SMALL` added to configs; returns the environment to run them in.

    Its ``scripts/setup.sh`` takes this environment as it is.
    """
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("csrc"))
    for name in ("run.py", "setup.py", "pyproject.toml", "requirements.txt", "requirements.lock"):
        shutil.copy2(ROOT / name, folder)
    for name, text in SMALL.items():
        with open(folder / "configs" / name, "a") as config:
            config.write(f"\n{text}")
    (folder / "scripts" / "setup.sh").write_text(
        f'SSIR_ROOT="{folder}" PYTHON="{sys.executable}"\nexport SSIR_ROOT PYTHON\n'
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}

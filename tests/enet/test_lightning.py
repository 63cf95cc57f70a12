"""That a training does not import what torchmetrics would, and that others can still do so."""

import subprocess
import sys
from pathlib import Path

from enet.lightning import UNUSED

ROOT = Path(__file__).resolve().parents[2]


def test_installed_packages_that_are_not_used_are_not_imported(tmp_path):
    for name in UNUSED:
        package, information = tmp_path / name, tmp_path / f"{name}-99.0.dist-info"
        package.mkdir()
        information.mkdir()
        (package / "__init__.py").write_text("print('imported', __name__)\n")
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")
    code = (
        "import enet.training, sys\n"
        f"print([name for name in {UNUSED} if name in sys.modules])\n"
        "import transformers, torchmetrics.functional.classification\n"
        "from lightning_utilities.core.imports import RequirementCache, package_available\n"
        "print(bool(RequirementCache('torchvision>=1')), package_available('torchvision'))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == ["[]", "imported transformers", "True True"]

"""That each module which calls compiled ops registers them itself, whatever was imported before."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def modules_with_ops() -> dict[str, str]:
    """Modules of lib whose import must register ops, and the library's namespace."""
    found = {}
    for path in sorted((ROOT / "lib/plenoxel").glob("*.py")):
        if not path.stem.endswith("registrations") and (match := re.search(r"torch\.ops\.(\w+)\.", path.read_text())):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = match[1]
    return found


@pytest.mark.parametrize("module", modules_with_ops())
def test_ops_are_there_after_a_module_alone_is_imported(module):
    code = f"import {module}, torch; print('at', torch.ops.plenoxel.render_rays)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "at plenoxel.render_rays" in found.stdout, found.stderr

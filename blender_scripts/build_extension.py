"""Packs the add-on as an extension for Blender 4.2 or newer, in one file that needs nothing else of the project.

    python blender_scripts/build_extension.py [FOLDER]       (default: build)

In Blender: Edit, Preferences, Get Extensions, Install from Disk; or drag the file into the window.
"""

from __future__ import annotations

import sys
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
_LEFT_OUT = (Path(__file__).name,)
# An extension's imports are relative.
_IMPORTS = {"from blender_scripts.": "from .", "from utils.label_table": "from .label_table"}


def build(folder: Path) -> Path:
    """Write ``scannet_scenes-VERSION.zip`` into ``folder``; returns its path."""
    manifest = (HERE / "blender_manifest.toml").read_text(encoding="utf-8")
    values = tomllib.loads(manifest)
    sources = {path.name: path for path in sorted(HERE.glob("*.py")) if path.name not in _LEFT_OUT}
    sources["label_table.py"] = HERE.parent / "utils" / "label_table.py"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{values['id']}-{values['version']}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("blender_manifest.toml", manifest)
        archive.write(HERE.parent / "LICENSE", "LICENSE")
        for name, path in sources.items():
            text = path.read_text(encoding="utf-8")
            for old, new in _IMPORTS.items():
                text = text.replace(old, new)
            archive.writestr(name, text)
        for table in sorted((HERE.parent / "configs" / "labels").glob("*.tsv")):
            archive.write(table, table.name)
    return target


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "build")))

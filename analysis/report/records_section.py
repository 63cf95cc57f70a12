"""Run times, configurations and versions of the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.report.links import links_to
from utils.errors import reading
from utils.files import read_json, read_text

_MAX_DEPTH = 3
_FILES = ("metrics.json", "run.json", "config.gin", "operative_config.gin")


def records_section(folders: list[Path], search_dir: Path | None, page_dir: Path) -> dict[str, Any] | None:
    """Time and operative config of every task with records in ``folders``; None without any.

    Of a search only its own record is taken: each of its many trials has one too.
    """
    entries = [_entry(path, folder.parent, page_dir) for folder in folders for path in _record_files(folder)]
    if search_dir is not None and (search_dir / "run.json").exists():
        entries.append(_entry(search_dir / "run.json", search_dir.parent, page_dir))
    if not entries:
        return None
    entries.sort(key=lambda entry: entry["started"])
    versions = [dict(entry.pop("versions")) for entry in entries]
    return {"tasks": entries, "versions": {name: value for version in versions for name, value in version.items()}}


def _record_files(folder: Path) -> list[Path]:
    """Records up to three levels deep."""
    return [path for depth in range(_MAX_DEPTH) for path in sorted(folder.glob("*/" * depth + "run.json"))]


def _entry(path: Path, root: Path, page_dir: Path) -> dict[str, Any]:
    runs = read_json(path, kind=list)
    config = path.with_name("operative_config.gin")
    with reading(path, "the records of a stage", "delete it"):
        record = runs[-1]
        return {
            "task": record["task"],
            "folder": "/".join(part for part in path.parent.relative_to(root).parts if part != "run"),
            "started": runs[0]["started"],
            "seconds": sum(run["seconds"] for run in runs),
            "gpu": record.get("gpu"),
            "threads": record.get("threads"),
            "links": links_to([path.with_name(name) for name in _FILES], page_dir),
            "config": read_text(config) if config.exists() else "",
            "versions": {"python": record["python"], **record.get("packages", {})},
        }

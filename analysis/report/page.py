"""The report's content as one dict, and its formats: HTML, Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.report.fused_section import fused_section
from analysis.report.records_section import records_section
from analysis.report.results_section import results_section
from analysis.report.scenes_section import classes_section, domes_section, fields_section, tail_gain, views_section
from analysis.report.search_section import search_section
from utils.labels import label_set

_TEMPLATES = Path(__file__).parent / "templates"
_PICTURES = ("curves", "predictions", "pictures", "before_after", "plans", "pairs", "picture", "plot")


@dataclass(frozen=True)
class Sources:
    """The folders that the stages wrote; any may be absent."""

    fields_dir: Path
    views_dir: Path
    novel_views_dir: Path
    analysis_dir: Path
    domes_dir: Path
    domes_filtered_dir: Path
    runs_dir: Path
    search_dir: Path | None = None
    fused_dir: Path | None = None

    @property
    def stage_folders(self) -> list[Path]:
        """All but the search's, which holds whole trainings."""
        return [folder for name, folder in vars(self).items() if name != "search_dir" and folder is not None]


def collect(sources: Sources, title: str, examples: int, page_dir: Path) -> dict[str, Any]:
    """All sections; what is missing is None, and ``missing`` names in one line each the task that makes it.

    Args:
        title: of the page.
        examples: how many scenes are shown in pictures.
        page_dir: folder of the page.
    """
    content = {
        "title": title,
        "results": results_section(sources.runs_dir, page_dir),
        "search": search_section(sources.search_dir),
        "fused": fused_section(sources.fused_dir, sources.views_dir, examples),
        "fields": fields_section(sources.fields_dir, examples),
        "classes": classes_section(sources.analysis_dir, sources.novel_views_dir),
        "domes": domes_section(sources.domes_filtered_dir, examples),
        "original_views": views_section(sources.views_dir, examples),
        "novel_views": views_section(sources.novel_views_dir, examples),
        "records": records_section(sources.stage_folders, sources.search_dir, page_dir),
    }
    content["tail_gain"] = tail_gain(content["classes"]) if content["classes"] else None
    content["missing"] = _missing(content, sources)
    return content


def _missing(content: dict[str, Any], sources: Sources) -> list[str]:
    """One line for each part that could not be made."""
    results, classes = content["results"], content["classes"]
    lines = {
        f"No training run in {sources.runs_dir}: run 'train' and 'test'.": results is None,
        f"No fitted field in {sources.fields_dir}: run 'fit', or these fields have no measurements.":
            content["fields"] is None,
        f"No class statistics in {sources.analysis_dir}: run 'analyze'.": classes is None,
        f"No filtered domes in {sources.domes_filtered_dir}: run 'sample' and 'filter'.": content["domes"] is None,
        f"No rendered views in {sources.views_dir}: run 'render'.": not content["original_views"],
        f"No rendered novel views in {sources.novel_views_dir}: run 'render' on the filtered domes.":
            not content["novel_views"],
        "No comparison of the ways to take in SH: train with two or more stems on rendered views.":
            results is not None and not results["fusion"],
        "No analysis of SH coefficients: the views have no SH, or too few classes.":
            classes is not None and classes["sh"] is None,
    }
    lines |= {f"Run {name} was not tested; its scores are of the validation views." : True
              for name in (results or {}).get("untested", [])}
    lines |= dict.fromkeys((results or {}).get("left_out", []), True)
    return [line for line, holds in lines.items() if holds]


def without_pictures(value: Any) -> Any:
    """The same without embedded pictures: what ``report.json`` holds."""
    if isinstance(value, dict):
        return {key: without_pictures(entry) for key, entry in value.items() if key not in _PICTURES}
    if isinstance(value, list):
        return [without_pictures(entry) for entry in value]
    return value


def render_template(name: str, content: dict[str, Any]) -> str:
    """One of the templates, filled in; HTML is escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=name.endswith(".html"),
    )
    environment.filters.update(number=_number, duration=_duration, thousands=lambda value: f"{value:,}")
    classes = zip(label_set().names, label_set().colors, strict=True)
    colors = {name: "#{:02x}{:02x}{:02x}".format(*color) for name, color in classes}
    return environment.get_template(name).render(**content, colors=colors)


def results_csv(results: dict[str, Any]) -> str:
    """The table of results, one line a row, in per cent."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "runs", "stem", "seeds", "measured_on", "mean_iou", "mean_iou_std", "paper_mean_iou",
                     *(f"iou_{name.replace(' ', '_')}" for name in label_set().names[1:])])
    for row in results["rows"]:
        ious = [(row["class_iou"].get(name) or {}).get("mean") for name in label_set().names[1:]]
        writer.writerow([row["title"], " ".join(row["runs"]), row["stem"], len(row["runs"]), row["measured_on"],
                         _number(row["mean_iou"], 3), _number(row["mean_iou_std"], 3), _number(row["paper_mean_iou"]),
                         *(_number(value, 3) for value in ious)])
    return text.getvalue()


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"

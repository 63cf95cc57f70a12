"""Task ``report``: one page of all results."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gin

from utils.files import write_json, write_text
from utils.images import write_image
from utils.labels import label_set
from utils.outputs import MAKE, REPLACE
from utils.plans import Item, Plan
from utils.tasks import task

if TYPE_CHECKING:
    from analysis.report.page import Sources

logger = logging.getLogger(__name__)


@task(summary="write all results as one HTML page, Markdown, CSV and JSON", records="{report_dir}/run",
      configures=(label_set,))  # fmt: skip
def report(
    report_dir: str = gin.REQUIRED,
    fields_dir: str = gin.REQUIRED,
    views_dir: str = gin.REQUIRED,
    novel_views_dir: str = gin.REQUIRED,
    analysis_dir: str = gin.REQUIRED,
    domes_dir: str = gin.REQUIRED,
    domes_filtered_dir: str = gin.REQUIRED,
    runs_dir: str = gin.REQUIRED,
    search_dir: str | None = None,
    fused_dir: str | None = None,
    title: str = "Segmentation with implicit representations",
    examples: int = 3,
) -> Plan:
    """Write ``index.html`` (self-contained) to ``report_dir``, also as Markdown, JSON and CSV, and ``overview.jpg``.

    Folders that do not exist, and stages that have not run, are named in one line each and left out.

    Args:
        report_dir: where the report goes.
        fields_dir: fitted fields.
        views_dir: rendered original views.
        novel_views_dir: rendered novel views.
        analysis_dir: class statistics.
        domes_dir: dome cameras.
        domes_filtered_dir: filtered dome cameras.
        runs_dir: training runs.
        search_dir: the study of a hyper-parameter search; None for none.
        fused_dir: what 'fuse' wrote; None for none.
        title: of the page.
        examples: how many scenes are shown in pictures.
    """
    from analysis.report.page import Sources

    sources = Sources(*map(Path, (fields_dir, views_dir, novel_views_dir, analysis_dir, domes_dir, domes_filtered_dir,
                                  runs_dir)),
                      None if search_dir is None else Path(search_dir), None if fused_dir is None else Path(fused_dir))
    folder = Path(report_dir)
    page = Item("report", folder / "index.html", REPLACE if (folder / "index.html").exists() else MAKE)
    return Plan(lambda: _write_report(sources, folder, title, examples), [page])


def _write_report(sources: Sources, folder: Path, title: str, examples: int) -> dict[str, Any]:
    from analysis.report.overview import overview_picture
    from analysis.report.page import collect, render_template, results_csv, without_pictures

    content = collect(sources, title, examples, folder)
    write_text(folder / "index.html", render_template("page.html", content))
    write_text(folder / "report.md", render_template("page.md", content))
    write_json(folder / "report.json", without_pictures(content))
    if content["results"] is not None:
        write_text(folder / "results.csv", results_csv(content["results"]))
    picture = overview_picture(sources.views_dir)
    if picture is not None:
        write_image(folder / "overview.jpg", picture)
    for line in content["missing"]:
        logger.info("%s", line)
    logger.info("report: %s", folder / "index.html")
    rows = content["results"]["rows"] if content["results"] else []
    return {"mean_iou": {row["title"]: row["mean_iou"] for row in rows}, "missing": content["missing"]}

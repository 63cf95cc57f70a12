"""Task ``compare``: the table of an experiment, from its runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gin

from analysis.experiment import (
    GROUPS,
    Difference,
    RowResult,
    RunScores,
    compare_rows,
    with_fused_rows,
)
from analysis.rows import fused_scores, row_of, settings_identity, single_row
from utils.errors import UserError, reading
from utils.files import read_json, read_text, write_json, write_text
from utils.labels import label_set
from utils.outputs import MAKE, REPLACE
from utils.plans import Item, Plan
from utils.tasks import task

logger = logging.getLogger(__name__)
_BEGIN, _END = "<!-- compare: begin -->", "<!-- compare: end -->"


@task(summary="compare the rows of an experiment: means over seeds, differences with intervals",
      records="{output_dir}/run", configures=(label_set,))  # fmt: skip
def compare(
    output_dir: str = gin.REQUIRED,
    runs_dir: str | None = None,
    results_dir: str | None = None,
    rows: str | Sequence[str] = "all",
    baseline: str = "rendered_rgb",
    document: str | None = None,
    draws: int = 2000,
) -> Plan:
    """Write ``output_dir/table.md`` and ``table.json``.

    A run belongs to the row that its name says: ``ROW_SEED``, or ``ROW`` where there is one seed. Rows that lack a seed
    that others have are refused, not averaged; so are runs that are not finished or not tested, unless ``rows`` leaves
    them out. Where a row was tested with ``test.fused``, its fused predictions are a row beside it, ``ROW (fused)``.

    Args:
        output_dir: where the table goes.
        runs_dir: trained and tested runs, whose scores are first written to ``results_dir`` where that is given.
        results_dir: one small JSON file a run, read when ``runs_dir`` is not given.
        rows: "all", or the names of some.
        baseline: the row that all others are compared with.
        document: a Markdown file whose text between the lines ``compare: begin`` and ``compare: end`` (as HTML
            comments) is replaced by the table.
        draws: of the bootstrap.
    """
    if (runs_dir or results_dir) is None:
        raise UserError("compare.runs_dir or compare.results_dir must be set")
    wanted = None if rows == "all" else list(rows)
    runs = finished_runs(Path(runs_dir), wanted) if runs_dir is not None else kept_results(Path(results_dir))
    if wanted is not None:
        missing = sorted(set(wanted) - {run.row for run in runs})
        if missing:
            raise UserError(f"compare.rows: no finished run of {', '.join(missing)}")
        runs = [run for name in wanted for run in runs if run.row == name]
    results = compare_rows(with_fused_rows(runs), baseline, draws)
    if document is not None:
        _inserted(document, "")
    target = Path(output_dir) / "table.md"

    def work() -> dict[str, Any]:
        if runs_dir is not None and results_dir is not None:
            for run in runs:
                write_json(Path(results_dir) / f"{run.row}_{run.seed}.json", run.to_json())
        text = as_markdown(results, baseline, len(runs[0].rooms))
        write_text(target, text)
        write_json(target.with_suffix(".json"), [_plain(result) for result in results])
        if document is not None:
            write_text(document, _inserted(document, text))
        logger.info("%d rows, %d runs\n%s", len(results), len(runs), text)
        return {result.row: {"mean_iou": round(result.mean, 3)} for result in results}

    return Plan(work, [Item("table", target, REPLACE if target.exists() else MAKE)])


def finished_runs(folder: Path, rows: Sequence[str] | None = None) -> list[RunScores]:
    """All runs in ``folder``, or those of ``rows``.

    Raises:
        UserError: one of them is not finished, or not tested.
    """
    found = []
    for run in sorted({path.parents[1] for path in folder.glob("*/training*/settings.json")}):
        scores = run / "test" / "scores" / "results.json"
        if rows is not None and row_of(run.name, _seed_of(run)) not in rows:
            continue
        for part, result in (("train", run / "training" / "results.json"), ("test", scores)):
            if not result.is_file():
                raise UserError(f"{result} does not exist: run {part!r} on {run.name}, or remove its folder from the "
                                "runs that are compared")
        training = read_json(run / "training" / "results.json", kind=dict)
        settings = read_json(run / "training" / "settings.json", kind=dict)
        tested = read_json(scores, kind=dict)
        with reading(scores, "the scores of a test", "test again"):
            facts = {
                "mean_iou": tested["mean_iou"], "pixel_accuracy": tested["pixel_accuracy"],
                **{name: training[name] for name in ("epochs", "best_epoch", "seconds", "images_per_second")},
                **_machine(run / "run.json"),
            }  # fmt: skip
            seed = _seed_of(run)
            content = {"row": row_of(run.name, seed), "seed": seed, "settings": settings_identity(settings),
                       "by_scene": tested["by_scene"], **_fused_counts(run / "test")}
            found.append(RunScores.from_json({**content, **facts}))
    return found


def _fused_counts(test: Path) -> dict[str, Any]:
    """Counts of fused predictions in a test's folder, ``{"fused_by_scene": ...}``; empty where there are none.

    Raises:
        UserError: they are of another network or other views than the single views' scores.
    """
    found, other = fused_scores(test)
    if found is None:
        return {}
    if other is not None:
        raise UserError(f"{test / 'fused'} is of another {other} than {test / 'scores'}: run 'test' on "
                        f"{test.parent.name} with test.fused = True and test.overwrite = True")
    with reading(test / "fused" / "results.json", "the scores of fused predictions", "test again"):
        return {"fused_by_scene": found["by_scene"]}


def _seed_of(run: Path) -> int:
    """Of a run's training, finished or not."""
    path = next(iter(sorted(run.glob("training*/settings.json"))))
    with reading(path, "the settings of a training", "train again, or remove the run's folder"):
        return int(read_json(path, kind=dict)["budget"]["seed"])


def kept_results(folder: Path) -> list[RunScores]:
    """Results as :func:`compare` keeps them."""
    found = []
    for path in sorted(folder.glob("*.json")):
        content = read_json(path, kind=dict)
        with reading(path, "the results of a run", "write it again by 'compare'"):
            found.append(RunScores.from_json(content))
    return found


def _machine(record: Path) -> dict[str, Any]:
    runs = read_json(record, kind=list)
    with reading(record, "the record of a run", "delete it"):
        return {"gpu": runs[-1]["gpu"], "python": runs[-1]["python"], "packages": runs[-1]["packages"]}


def as_markdown(results: Sequence[RowResult], baseline: str, rooms: int) -> str:
    """The table, best row first after the baseline, fused after single views, with the classes' IoU below."""
    means = {result.row: result.mean for result in results}

    def place(result: RowResult) -> tuple[bool, float, str, bool]:
        single = result.row if result.gain is None else single_row(result.row)
        return single != baseline, -means[single], single, result.gain is not None

    ordered = sorted(results, key=place)
    lines = [
        f"mIoU in per cent over {rooms} test rooms and {len(ordered[0].seeds)} seeds; differences to `{baseline}` with "
        "95% intervals (rooms drawn again, paired); **bold** where the interval leaves out 0.",
        "",
        "| row | mIoU ± deviation over seeds | difference | " + " | ".join(GROUPS) + " | difference in the tail |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in ordered:
        deviation = "" if math.isnan(result.deviation) else f" ± {result.deviation:.2f}"
        groups = " | ".join(f"{result.groups[name]:.1f}" for name in GROUPS)
        lines.append(f"| `{result.row}` | {result.mean:.2f}{deviation} | {_text(result.difference)} | {groups} | "
                     f"{_text(result.tail_difference)} |")
    lines += _gains([result for result in ordered if result.gain is not None], means)
    names = list(ordered[0].classes)
    lines += ["", "| row | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for result in ordered:
        lines.append(f"| `{result.row}` | " + " | ".join(f"{result.classes[name]:.1f}" for name in names) + " |")
    return "\n".join(lines) + "\n"


def _gains(fused: Sequence[RowResult], means: Mapping[str, float]) -> list[str]:
    """What fusing gains, row by row; nothing where no row has fused scores."""
    if not fused:
        return []
    lines = [
        "",
        "Predictions of each row fused in the test rooms' fields, without labels, against the same predictions view by "
        "view:",
        "",
        "| row | single views | fused | gain | gain in the tail |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in fused:
        single = single_row(result.row)
        lines.append(f"| `{single}` | {means[single]:.2f} | {result.mean:.2f} | {_text(result.gain)} | "
                     f"{_text(result.tail_gain)} |")
    return lines


def _text(difference: Difference | None) -> str:
    if difference is None:
        return ""
    text = f"{difference.mean:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})"
    return f"**{text}**" if difference.resolved else text


def _plain(result: RowResult) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    return {**asdict(result), "deviation": None if math.isnan(result.deviation) else result.deviation}


def _inserted(document: str, table: str) -> str:
    """The document with another table between its marks.

    Raises:
        UserError: it has none.
    """
    text = read_text(document, "a Markdown document")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise UserError(f"{document} has no place for the table; add the lines {_BEGIN} and {_END}")
    return f"{before}{begin}\n{table}{end}{after}"

"""Task ``analyze``: class statistics of annotated views, tail classes, and the class information in SH coefficients."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from analysis.statistics import check_rule
from utils.files import read_json, write_json
from utils.identity import store_identity
from utils.labels import label_set
from utils.outputs import MAKE, commit_output, prepare_output
from utils.plans import Item, Plan, plan_output, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import for_each_scene, require_scenes, resolve_scenes
from utils.tasks import task

logger = logging.getLogger(__name__)

STATISTICS_FILE = "statistics.json"
_SH_SAMPLE_FILE = "sh_sample.npz"
_MAX_SH_PIXELS = 60000


@task(
    summary="count classes in annotated views, find tail classes, plot; PCA of SH by class",
    inputs=("views_dir",),
    records="{analysis_dir}/run",
    configures=(SceneWorkers, label_set),
)
def analyze(
    views_dir: str = gin.REQUIRED,
    analysis_dir: str = gin.REQUIRED,
    scenes: str | Sequence[str] = "all",
    window: float = 0.5,
    tail: str | Sequence[str] = "share",
    tail_threshold: float = 0.011,
    sh_pixels: int = 4000,
    seed: int = 0,
    overwrite: bool = False,
) -> Plan:
    """Class statistics of the view stores in ``views_dir``, written to ``analysis_dir``.

    ``statistics.json`` holds totals, every scene's counts and the SH scores; ``scenes/SCENE/statistics.json`` also
    holds each frame's coverage. Views are read a few at a time from memory-mapped files.

    Args:
        views_dir: folder of annotated view stores, one a scene.
        analysis_dir: where statistics and plots go.
        scenes: "all", a list of names, or a text file with one name a line.
        window: sides of the central window as a fraction of the image's sides.
        tail: rule for tail classes: "share" (of all pixels, below tail_threshold), "paper" (its list), or a list of
            class names; classes that never occur are left out.
        tail_threshold: share of all pixels for tail = "share"; 0.011 gives the paper's list from its own shares.
        sh_pixels: pixels drawn from each scene for the analysis of SH coefficients; 0 leaves it out.
        seed: of the draw of pixels.
        overwrite: count scenes again that are already counted with other settings.
    """
    root, output = Path(views_dir), Path(analysis_dir)

    check_rule(tail)
    names = resolve_scenes(scenes, root)
    require_scenes(names, root)

    def plan_one(scene: str, opened: bool) -> Item:
        return plan_output(scene, output / "scenes" / scene, _inputs(root / scene, window, sh_pixels, seed), overwrite)

    def count(scene: str) -> dict[str, Any]:
        return _analyze_scene(root / scene, output / "scenes" / scene, window, sh_pixels, seed, overwrite)

    def work() -> dict[str, Any]:
        results = for_each_scene(names, count, "analyze")
        return _write_statistics(output, results, window, tail, tail_threshold, seed)

    items = plan_scenes(names, plan_one)
    statistics = output / STATISTICS_FILE
    return Plan(work, [*items, Item("all scenes", statistics, MAKE, "totals and plots are made again")])


def _write_statistics(
    output: Path, results: dict[str, dict[str, Any]], window: float, tail: str | Sequence[str], threshold: float,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Totals, plots and SH scores of all scenes; returns the task's metrics."""
    statistics = _statistics_of_all(results, window, tail, threshold)
    _plot_statistics(output, statistics, results)
    information = _analyze_sh(output, list(results), seed)
    if information is not None:
        statistics["sh"] = information
    write_json(output / STATISTICS_FILE, statistics)
    total = statistics["total"]
    logger.info("%d frames of %d scenes; tail classes: %s", total["num_frames"], total["num_scenes"],
                ", ".join(total["tail_classes"]) or "none")
    return {"num_frames": total["num_frames"], "num_scenes": total["num_scenes"], "share": total["share"],
            "tail_classes": total["tail_classes"], "sh": information}


def _inputs(store: Path, window: float, sh_pixels: int, seed: int) -> dict[str, Any]:
    """What determines a scene's statistics."""
    from dataloader import ViewStore

    ViewStore(store).check_channel("label")
    identity = store_identity(store, ("label", "rgb", "sh"))
    return {"store": identity, "window": window, "sh_pixels": sh_pixels, "seed": seed}


def _analyze_scene(
    store: Path, output: Path, window: float, sh_pixels: int, seed: int, overwrite: bool
) -> dict[str, Any]:
    """Count one store unless it is counted already; returns its statistics without each frame's coverage."""
    from analysis.sh_classes import sample_pixels
    from analysis.statistics import scene_statistics
    from dataloader import ViewStore

    partial = prepare_output(output, _inputs(store, window, sh_pixels, seed), overwrite)
    if partial is not None:
        write_json(partial / STATISTICS_FILE, scene_statistics(store, window).to_json())
        if sh_pixels and {"rgb", "sh"} <= set(ViewStore.open(store).channels):
            sample_pixels(store, sh_pixels, seed).save(partial / _SH_SAMPLE_FILE)
        commit_output(output)
    counted = read_json(output / STATISTICS_FILE, kind=dict)
    return {key: value for key, value in counted.items() if key != "window_coverage"}  # which is long in long scenes


def _statistics_of_all(
    scenes: dict[str, dict[str, Any]], window: float, tail: str | Sequence[str], threshold: float
) -> dict[str, Any]:
    """The content of ``statistics.json`` without the SH scores."""
    from analysis.statistics import summarize_scenes

    return {"window": window, "total": summarize_scenes(scenes, tail, threshold), "scenes": scenes}


def _plot_statistics(output: Path, statistics: dict[str, Any], scenes: dict[str, dict[str, Any]]) -> None:
    from analysis.plotting import save_figure
    from analysis.statistics_plots import plot_class_distribution, plot_scene_distribution, plot_window_coverage

    save_figure(plot_class_distribution(statistics["total"]), output / "class_distribution.png")
    save_figure(plot_scene_distribution(scenes), output / "scene_distribution.png")
    coverage = (read_json(output / "scenes" / name / STATISTICS_FILE, kind=dict)["window_coverage"] for name in scenes)
    save_figure(plot_window_coverage(coverage, statistics["window"]), output / "window_coverage.png")


def _analyze_sh(output: Path, scenes: list[str], seed: int) -> dict[str, Any] | None:
    """Score and plot the SH samples of all scenes that have one."""
    from analysis.plotting import save_figure
    from analysis.sh_classes import PixelSample, class_information, merge_samples
    from analysis.statistics_plots import plot_sh_classes

    files = {name: output / "scenes" / name / _SH_SAMPLE_FILE for name in scenes}
    files = {name: path for name, path in files.items() if path.exists()}
    if not files:
        logger.info("no store holds both rgb and sh: the analysis of SH coefficients is left out")
        return None
    quota = _MAX_SH_PIXELS // len(files)
    samples = {name: PixelSample.load(path).draw(quota, seed, name) for name, path in files.items()}
    merged = merge_samples(samples)
    information = class_information(merged)
    if information is None:
        logger.info("fewer than two classes have enough pixels: the analysis of SH coefficients is left out")
        return None
    save_figure(plot_sh_classes(merged, information), output / "sh_classes.png")
    return information

"""Task ``filter``: filter dome cameras by the labelled mesh and by the quality that the field would render."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gin
import torch

from analysis.coverage import view_chunks
from analysis.domes import floor_height
from analysis.filtering import FilterOptions, count_reasons, judge_views, limit_per_class, refuse_by_quality
from analysis.quality import CHANNELS, QualityEstimator, QualityOptions, expected_quality
from analysis.surface import DEPTH_CHANNELS
from dataloader import CameraList, Mesh, Scene, load_scene
from dataloader.label_mesh import label_files, load_label_mesh
from dataloader.perfception import FIELD_PREFIX
from dataloader.sensors import SensorOptions
from model.annotation import annotate_views
from model.radiance_field import RadianceField
from utils.device import choose_device
from utils.errors import UserError
from utils.identity import FileSet, field_inputs, file_identity, store_identity
from utils.labels import label_set, label_settings
from utils.outputs import commit_output, prepare_output
from utils.plans import Item, Plan, plan_output, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import for_each_scene, resolve_scenes
from utils.tasks import task

logger = logging.getLogger(__name__)
_SHEET_VIEWS = 48
_SHEET_WIDTH = 1280


@task(
    summary="keep the dome cameras whose views show the target's class well",
    inputs=("domes_dir", "scans_dir", "views_dir", "fields_dir"),
    records="{filtered_dir}/run",
    configures=(FilterOptions, QualityOptions, SensorOptions, SceneWorkers, label_set),
)
def filter(
    domes_dir: str = gin.REQUIRED,
    scans_dir: str = gin.REQUIRED,
    filtered_dir: str = gin.REQUIRED,
    views_dir: str | None = None,
    fields_dir: str | None = None,
    scenes: str | Sequence[str] = "all",
    device: str = "auto",
    overwrite: bool = False,
) -> Plan:
    """Write ``filtered_dir/SCENE.json``: all dome cameras, each with ``accepted``, ``reason`` and ``coverage``.

    ``filtered_dir/SCENE`` holds a floor plan and a contact sheet of the accepted views' annotation.

    Args:
        domes_dir: folder of SCENE.json camera lists that 'sample' wrote.
        scans_dir: folder of scenes with labelled meshes, in any layout that 'fit' reads.
        filtered_dir: where the filtered cameras go.
        views_dir: folder of the original views' stores, the observations for FilterOptions.min_quality.
        fields_dir: folder of the fields, for FilterOptions.min_quality.
        scenes: "all", a list of names, or a text file with one name a line.
        device: "auto", "cpu" or "cuda", for rasterizing and rendering.
        overwrite: filter again what was filtered with other settings.
    """
    domes, scans, output = Path(domes_dir), Path(scans_dir), Path(filtered_dir)
    chosen_device = choose_device(device)

    names = resolve_scenes(scenes, domes)
    for name in names:
        if not (file := domes / f"{name}.json").is_file():
            raise UserError(f"{file} does not exist; run 'sample' on the scene, or take it out of the list")

    sources = _quality_sources(views_dir, fields_dir)

    def filtering(scene: str) -> _DomeFilter:
        return _DomeFilter(domes / f"{scene}.json", scans / scene, output, sources, chosen_device)

    def plan_one(scene: str, opened: bool) -> Item:
        return filtering(scene).plan(overwrite, opened)

    def filter_one(scene: str) -> dict[str, int]:
        return filtering(scene).run(overwrite)

    def work() -> dict[str, Any]:
        results = for_each_scene(names, filter_one, "filter", on_gpu=chosen_device.type == "cuda")
        total = sum((Counter(result) for result in results.values()), Counter())
        logger.info("dome cameras: %s", ", ".join(f"{reason} {count}" for reason, count in total.most_common()))
        return {"reasons": dict(total), "scenes": results}

    return Plan(work, plan_scenes(names, plan_one))


def _quality_sources(views_dir: str | None, fields_dir: str | None) -> tuple[Path, Path] | None:
    """Folders of original views and fields where quality is asked for."""
    if FilterOptions().min_quality <= 0:
        return None
    if views_dir is None or fields_dir is None:
        raise UserError(f"FilterOptions.min_quality = {FilterOptions().min_quality} needs filter.views_dir and "
                        "filter.fields_dir; give both, or set it to 0")
    return Path(views_dir), Path(fields_dir)


class _DomeFilter:
    """One scene's dome cameras, and what they are judged by.

    Args:
        domes_file: the cameras that 'sample' wrote.
        scan: the scene's folder with the labelled mesh.
        filtered_dir: where the judged cameras go.
        sources: folders of original views and fields where quality is asked for.
        device: of rasterizing and rendering.
    """

    def __init__(
        self, domes_file: Path, scan: Path, filtered_dir: Path, sources: tuple[Path, Path] | None, device: torch.device
    ):
        self._domes_file, self._scan, self._device = domes_file, scan, device
        self._scene = domes_file.stem
        self._path, self._folder = filtered_dir / f"{self._scene}.json", filtered_dir / self._scene
        self._store = None if sources is None else sources[0] / self._scene
        self._field = None if sources is None else sources[1] / f"{FIELD_PREFIX}{self._scene}"
        self._options, self._quality = FilterOptions(), QualityOptions()

    def plan(self, overwrite: bool, opened: bool) -> Item:
        """What would be made."""
        detail = f"{len(CameraList.load(self._domes_file))} cameras"
        again = overwrite or not self._path.exists()
        return plan_output(self._scene, self._folder, self._inputs(opened), again, detail, partly=not opened)

    def run(self, overwrite: bool) -> dict[str, int]:
        """Filter the cameras unless that is done; returns the number of views by reason."""
        partial = prepare_output(self._folder, self._inputs(), overwrite or not self._path.exists())
        if partial is None:
            return count_reasons(CameraList.load(self._path).info)
        domes = CameraList.load(self._domes_file)
        mesh = load_label_mesh(self._scanned)
        domes = replace(domes, info=limit_per_class(self._judge(domes, mesh), self._options.max_per_class))
        _plot(domes, mesh, partial, self._device)
        domes.save(self._path)
        commit_output(self._folder)
        return count_reasons(domes.info)

    @cached_property
    def _scanned(self) -> Scene:
        return load_scene(self._scan)

    def _inputs(self, opened: bool = True) -> dict[str, Any]:
        """What determines the result; without the mesh and the field where they are not opened."""
        inputs = {"domes": file_identity(self._domes_file), "options": asdict(self._options)}
        if self._store is not None:
            observers = store_identity(self._store, (*DEPTH_CHANNELS, *CHANNELS))
            inputs |= {"quality": asdict(self._quality), "observers": observers}
        if not opened:
            return inputs
        if self._field is not None:
            inputs["field"] = field_inputs(self._field)
        return {**inputs, **label_settings(), "mesh": FileSet(label_files(self._scanned))}

    def _judge(self, domes: CameraList, mesh: Mesh) -> list[dict[str, Any]]:
        """Rasterize and judge, a million pixels at a time; then the quality of those that are left."""
        judged = []
        for chunk in view_chunks(len(domes.names), tuple(domes.image_size)):
            part = domes.select(range(*chunk.indices(len(domes.names))))
            views = annotate_views(mesh, part, device=self._device)
            judged += judge_views(views.label.cpu(), views.depth.cpu(), part, self._options)
        good = [index for index, info in enumerate(judged) if info["accepted"]]
        if self._store is None or not good:
            return judged
        cameras = domes.select(good).resized(tuple(self._options.quality_size))
        field = RadianceField.load(self._field, self._device)
        estimator = QualityEstimator.of_scene(self._store, self._quality, self._field, field)
        quality = expected_quality(estimator, field, mesh, cameras)
        return refuse_by_quality(judged, dict(zip(good, quality, strict=True)), self._options)


def _plot(domes: CameraList, mesh: Mesh, folder: Path, device: torch.device) -> None:
    """The floor plan, and the annotation of up to 48 accepted views."""
    from analysis.dome_plots import contact_sheet, pick_evenly, plot_plan
    from analysis.plotting import save_figure
    from utils.images import write_image
    from utils.labels import colorize, ids_to_classes

    floor = floor_height(mesh.vertices, mesh.labels)
    save_figure(plot_plan(domes, mesh.vertices, ids_to_classes(mesh.labels), floor), folder / "plan.png")
    accepted = [index for index, info in enumerate(domes.info) if info["accepted"]]
    if accepted:
        shown = domes.select([accepted[k] for k in pick_evenly(len(accepted), _SHEET_VIEWS)])
        images = colorize(annotate_views(mesh, shown, device=device).label.cpu())
        columns = max(1, _SHEET_WIDTH // (domes.image_size[1] + 4))
        write_image(folder / "contact_sheet.png", contact_sheet(list(images), columns))

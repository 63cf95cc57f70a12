"""Task ``filter``: filter dome cameras by the labelled mesh, before anything is rendered."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gin
import torch

from analysis.coverage import view_chunks
from analysis.domes import floor_height
from analysis.filtering import FilterOptions, count_reasons, judge_views, limit_per_class
from dataloader import CameraList, Mesh, load_mesh, load_scene
from model.annotation import annotate_views
from utils.device import choose_device
from utils.errors import UserError
from utils.identity import FileSet, file_identity
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
    inputs=("domes_dir", "scans_dir"),
    records="{filtered_dir}/run",
    configures=(FilterOptions, SceneWorkers),
)
def filter(
    domes_dir: str = gin.REQUIRED,
    scans_dir: str = gin.REQUIRED,
    filtered_dir: str = gin.REQUIRED,
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
        scenes: "all", a list of names, or a text file with one name a line.
        device: "auto", "cpu" or "cuda", for rasterizing.
        overwrite: filter again what was filtered with other settings.
    """
    domes, scans, output = Path(domes_dir), Path(scans_dir), Path(filtered_dir)
    chosen_device = choose_device(device)

    names = resolve_scenes(scenes, domes)
    for name in names:
        if not (file := domes / f"{name}.json").is_file():
            raise UserError(f"{file} does not exist; run 'sample' on the scene, or take it out of the list")

    def plan_one(scene: str, opened: bool) -> Item:
        return _plan_scene(domes / f"{scene}.json", scans / scene, output, overwrite, opened)

    def filter_one(scene: str) -> dict[str, int]:
        return _filter_scene(domes / f"{scene}.json", scans / scene, output, chosen_device, overwrite)

    def work() -> dict[str, Any]:
        results = for_each_scene(names, filter_one, "filter")
        total = sum((Counter(result) for result in results.values()), Counter())
        logger.info("dome cameras: %s", ", ".join(f"{reason} {count}" for reason, count in total.most_common()))
        return {"reasons": dict(total), "scenes": results}

    return Plan(work, plan_scenes(names, plan_one))


def _inputs(domes_file: Path, mesh: Path | None) -> dict[str, Any]:
    """What determines the result; without the mesh where it is not known."""
    inputs = {"domes": file_identity(domes_file), "options": asdict(FilterOptions())}
    return inputs if mesh is None else {**inputs, "mesh": FileSet({"mesh": mesh})}


def _plan_scene(domes_file: Path, scan: Path, filtered_dir: Path, overwrite: bool, opened: bool) -> Item:
    scene = domes_file.stem
    again = overwrite or not (filtered_dir / f"{scene}.json").exists()
    mesh = load_scene(scan).label_mesh_path if opened else None
    detail = f"{len(CameraList.load(domes_file))} cameras"
    return plan_output(scene, filtered_dir / scene, _inputs(domes_file, mesh), again, detail, partly=not opened)


def _filter_scene(
    domes_file: Path, scan: Path, filtered_dir: Path, device: torch.device, overwrite: bool
) -> dict[str, int]:
    """Filter one scene's cameras unless that is done; returns the number of views by reason."""
    options = FilterOptions()
    scene = domes_file.stem
    path, folder = filtered_dir / f"{scene}.json", filtered_dir / scene
    domes = CameraList.load(domes_file)
    mesh_path = load_scene(scan).label_mesh_path
    partial = prepare_output(folder, _inputs(domes_file, mesh_path), overwrite or not path.exists())
    if partial is None:
        return count_reasons(CameraList.load(path).info)
    mesh = load_mesh(mesh_path, require_labels=True)
    judged = limit_per_class(_judge(domes, mesh, options, device), options.max_per_class)
    domes = replace(domes, info=judged)
    _plot(domes, mesh, partial, device)
    domes.save(path)
    commit_output(folder)
    return count_reasons(judged)


def _judge(domes: CameraList, mesh: Mesh, options: FilterOptions, device: torch.device) -> list[dict[str, Any]]:
    """Rasterize and filter, a million pixels at a time."""
    bounds = torch.stack((mesh.vertices.amin(0), mesh.vertices.amax(0))).double()
    judged = []
    for chunk in view_chunks(len(domes.names), tuple(domes.image_size)):
        part = domes.select(range(*chunk.indices(len(domes.names))))
        views = annotate_views(mesh, part, device=device)
        judged += judge_views(views.label.cpu(), views.depth.cpu(), part, bounds, options)
    return judged


def _plot(domes: CameraList, mesh: Mesh, folder: Path, device: torch.device) -> None:
    """The floor plan, and the annotation of up to 48 accepted views."""
    from analysis.dome_plots import contact_sheet, pick_evenly, plot_plan
    from analysis.plotting import save_figure
    from utils.images import write_image
    from utils.labels import colorize, nyu40_to_class

    floor = floor_height(mesh.vertices, mesh.labels)
    save_figure(plot_plan(domes, mesh.vertices, nyu40_to_class(mesh.labels), floor), folder / "plan.png")
    accepted = [index for index, info in enumerate(domes.info) if info["accepted"]]
    if accepted:
        shown = domes.select([accepted[k] for k in pick_evenly(len(accepted), _SHEET_VIEWS)])
        images = colorize(annotate_views(mesh, shown, device=device).label.cpu())
        columns = max(1, _SHEET_WIDTH // (domes.image_size[1] + 4))
        write_image(folder / "contact_sheet.png", contact_sheet(list(images), columns))

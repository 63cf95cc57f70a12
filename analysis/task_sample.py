"""Task ``sample``: find objects of tail classes on the labelled mesh and place cameras around them, in free space."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import gin
import torch
from torch import Tensor

from analysis.budget import BudgetOptions, share_out
from analysis.dome_selection import (
    DomeSelector,
    Selection,
    SelectionOptions,
    refused_by_reason,
    refused_places,
    selected_cameras,
)
from analysis.domes import DomeOptions, floor_height
from analysis.filtering import FilterOptions
from analysis.observers import Observers, frames_not_fitted
from analysis.quality import QualityOptions
from analysis.room_space import RoomSpace, SpaceOptions
from analysis.surface import DEPTH_CHANNELS
from analysis.targets import Target, TargetOptions, check_targets, find_targets, usable_views
from dataloader import CameraList, Mesh, Scene, ViewStore, load_scene
from dataloader.label_mesh import label_files, load_label_mesh
from dataloader.perfception import FIELD_PREFIX
from dataloader.sensors import SensorOptions
from model.radiance_field import RadianceField
from utils.errors import UserError, reading
from utils.files import read_json, write_json
from utils.identity import FileSet, field_inputs, store_identity
from utils.labels import class_index, label_set, label_settings
from utils.outputs import commit_output, prepare_output
from utils.plans import Item, Plan, plan_output, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import for_each_scene, require_scenes, resolve_scenes
from utils.tasks import task

logger = logging.getLogger(__name__)
CANDIDATES_FILE = "candidates.json"
_OPTIONS = {
    "targets": TargetOptions, "space": SpaceOptions, "domes": DomeOptions, "selection": SelectionOptions,
    "budget": BudgetOptions, "filter": FilterOptions, "quality": QualityOptions,
}  # fmt: skip


@task(
    summary="find objects of tail classes and place cameras around them where a camera can stand",
    inputs=("views_dir", "scans_dir", "fields_dir", "statistics"),
    records="{domes_dir}/run",
    configures=(*_OPTIONS.values(), SensorOptions, SceneWorkers, label_set),
)
def sample(
    views_dir: str = gin.REQUIRED,
    scans_dir: str = gin.REQUIRED,
    domes_dir: str = gin.REQUIRED,
    fields_dir: str | None = None,
    statistics: str | None = None,
    classes: str | Sequence[str] = "tail",
    scenes: str | Sequence[str] = "all",
    seed: int = 0,
    overwrite: bool = False,
) -> Plan:
    """Write ``domes_dir/SCENE.json``, the dome cameras of each scene.

    ``domes_dir/SCENE`` holds ``candidates.json`` (targets, and how many candidates were refused for which reason) and
    a floor plan. A scene without a target gets an empty list.

    Args:
        views_dir: folder of the original views' stores with depth, one a scene.
        scans_dir: folder of scenes with labelled meshes.
        domes_dir: where the cameras go.
        fields_dir: fields whose opaque voxels are obstacles like the mesh; None asks the mesh alone.
        statistics: the statistics.json that 'analyze' wrote, for classes = "tail" and to share the budget by the
            scenes that show a class; None takes it that all scenes show all classes.
        classes: "tail" (those found by 'analyze'), "paper" (the paper's list), or a list of class names.
        scenes: "all", a list of names, or a text file with one name a line.
        seed: of the candidates.
        overwrite: make domes again that were made with other settings.
    """
    wanted = wanted_classes(classes, statistics)
    views, scans, output = Path(views_dir), Path(scans_dir), Path(domes_dir)
    fields = None if fields_dir is None else Path(fields_dir)

    names = resolve_scenes(scenes, views)
    require_scenes(names, views)
    shown = _scenes_with_class(statistics, wanted, len(names))

    def sampling(scene: str) -> _DomeSampling:
        field = None if fields is None else fields / f"{FIELD_PREFIX}{scene}"
        return _DomeSampling(views / scene, scans / scene, field, output, shown, seed)

    def plan_one(scene: str, opened: bool) -> Item:
        return sampling(scene).plan(overwrite, opened)

    def sample_one(scene: str) -> dict[str, Any]:
        return sampling(scene).run(overwrite)

    def work() -> dict[str, Any]:
        return _summary(for_each_scene(names, sample_one, "sample"), wanted)

    return Plan(work, plan_scenes(names, plan_one), [f"classes: {', '.join(wanted) or 'none'}"])


def _summary(results: dict[str, dict[str, Any]], wanted: Sequence[str]) -> dict[str, Any]:
    """The task's metrics, which are also logged."""
    done = {name: result for name, result in results.items() if name != "failed"}
    cameras, refused = (sum((Counter(result[key]) for result in done.values()), Counter())
                        for key in ("cameras", "refused"))  # fmt: skip
    with_target = [name for name, result in done.items() if result["targets"]]
    empty = [name for name in with_target if not sum(done[name]["cameras"].values())]
    logger.info("%d dome cameras in %d scenes: %s", cameras.total(), len(with_target) - len(empty),
                ", ".join(f"{name} {count}" for name, count in cameras.most_common()) or "no target qualifies")
    logger.info("candidates refused: %s",
                ", ".join(f"{name} {count}" for name, count in refused.most_common()) or "none")
    if empty:
        logger.warning("targets, but no camera that sees one, in %s: see candidates.json there", ", ".join(empty))
    return {
        "num_cameras": cameras.total(), "cameras_by_class": dict(cameras), "refused_candidates": dict(refused),
        "scenes_with_targets": len(with_target), "scenes_without_views": empty, "classes": list(wanted),
        "scenes": results,
    }  # fmt: skip


def _scenes_with_class(statistics: str | Path | None, wanted: Sequence[str], num_scenes: int) -> dict[str, int]:
    """Scenes that show each wanted class, in the classes' order."""
    if statistics is None:
        return dict.fromkeys(wanted, num_scenes)
    content = read_json(statistics)
    with reading(statistics, "class statistics", "run 'analyze' again"):
        return {name: int(content["total"]["scenes_with_class"][name]) for name in wanted}


def wanted_classes(classes: str | Sequence[str], statistics: str | Path | None) -> list[str]:
    """Class names to look for, the rarest first where that is known.

    Raises:
        UserError: a name is unknown, or "tail" is asked for without statistics.
    """
    if classes == "paper":
        return [label_set().names[k] for k in label_set().tail]
    if classes == "tail":
        if statistics is None:
            raise UserError("sample.classes = 'tail' needs sample.statistics; run 'analyze' and give its "
                            "statistics.json, or set sample.classes = 'paper' or a list of class names")
        content = read_json(statistics)
        with reading(statistics, "class statistics", "run 'analyze' again"):
            return [label_set().names[label_set().names.index(name)] for name in content["total"]["tail_classes"]]
    if isinstance(classes, str):
        raise UserError(f"sample.classes = {classes!r} is unknown; use 'tail', 'paper' or a list of class names")
    try:
        return [label_set().names[class_index(name)] for name in classes]
    except ValueError as error:
        raise UserError(f"sample.classes: {error}") from None


class _DomeSampling:
    """One scene's store, labelled mesh and field, and the domes to be made.

    Args:
        store: its original views.
        scan: its folder with the labelled mesh.
        field: its field's folder, or None.
        domes_dir: where the cameras go.
        classes: wanted classes by priority, with the number of scenes that show each.
        seed: of the candidates.
    """

    def __init__(
        self, store: Path, scan: Path, field: Path | None, domes_dir: Path, classes: Mapping[str, int], seed: int
    ):
        self._store, self._scan, self._field, self._classes, self._seed = store, scan, field, classes, seed
        self._path, self._folder = domes_dir / f"{store.name}.json", domes_dir / store.name
        self._options = {name: options() for name, options in _OPTIONS.items()}

    def plan(self, overwrite: bool, opened: bool) -> Item:
        """What would be made.

        Raises:
            UserError: store, scan or field cannot be used, or the domes are there with other settings.
        """
        return plan_output(self._store.name, self._folder, self._inputs(opened), overwrite or not self._path.exists(),
                           partly=not opened)

    def run(self, overwrite: bool) -> dict[str, Any]:
        """Make the domes unless they are there; returns targets, cameras by class, and refused candidates by reason."""
        partial = prepare_output(self._folder, self._inputs(), overwrite or not self._path.exists())
        if partial is not None:
            self._make(partial)
            commit_output(self._folder)
        made = read_json(self._folder / CANDIDATES_FILE, kind=dict)
        cameras = Counter(info["target_class"] for info in CameraList.load(self._path).info)
        return {"targets": len(made["targets"]), "cameras": dict(cameras), "refused": made["refused"]}

    def _make(self, folder: Path) -> None:
        mesh = load_label_mesh(self._scanned)
        store = ViewStore.open(self._store)
        originals = store.cameras.select(usable_views(store, self._options["targets"]))
        classes = {class_index(name): count for name, count in self._classes.items()}
        targets = find_targets(mesh, store, list(classes), self._options["targets"])
        floor = floor_height(mesh.vertices, mesh.labels)
        selection, counts = Selection(), []
        if targets:
            space = self._space(mesh, originals)
            budget = self._options["budget"]
            observers, options = self._observers(originals), self._options["selection"]
            selector = DomeSelector(mesh, originals, observers, space, floor, self._seed, options)
            selection = selector.choose(targets, budget.max_per_target)
            available = [len(poses) for poses in selection.poses]
            counts = share_out(available, [target.instance.class_index for target in targets], classes, budget)
        domes = selected_cameras(selection, counts, targets, originals)
        write_json(folder / CANDIDATES_FILE, _candidates_record(selection, counts, targets))
        _plot(domes, originals, selection, mesh, floor, folder / "plan.png")
        domes.save(self._path)

    def _observers(self, originals: CameraList) -> Observers:
        """The usable original views that the field, where there is one, was fitted to."""
        left_out = frozenset(ViewStore.open(self._store).cameras.names) - frozenset(originals.names)
        if self._field is not None:
            left_out |= frames_not_fitted(self._field, self._store)
        return Observers.from_store(self._store, self._options["quality"].max_views, left_out)

    def _space(self, mesh: Mesh, originals: CameraList) -> RoomSpace:
        eyes = originals.camera_to_world[:, :3, 3].numpy()
        options = self._options["space"]
        if self._field is None:
            return RoomSpace(mesh, eyes, options)
        centres, size = opaque_voxels(RadianceField.load(self._field), options.field_opacity)
        return RoomSpace(mesh, eyes, options, centres.numpy(), size)

    @cached_property
    def _scanned(self) -> Scene:
        return load_scene(self._scan)

    def _inputs(self, opened: bool = True) -> dict[str, Any]:
        """What determines the domes; without the mesh and the field where they are not opened."""
        check_targets(ViewStore(self._store), self._options["targets"])
        inputs = {
            "store": store_identity(self._store, DEPTH_CHANNELS), "classes": dict(self._classes), "seed": self._seed,
            **{name: asdict(options) for name, options in self._options.items()},
        }  # fmt: skip
        if not opened:
            return inputs
        if self._field is not None:
            inputs["field"] = field_inputs(self._field)
            if not inputs["field"].files:
                raise UserError(f"{self._field} holds no field; expected last.ckpt or data.ckpt there: run 'fit', or "
                                "set sample.fields_dir = None to ask the mesh alone")
        return {**inputs, **label_settings(), "mesh": FileSet(label_files(self._scanned))}


def opaque_voxels(field: RadianceField, opacity: float) -> tuple[Tensor, float]:
    """Centres (float64 ``[S, 3]``, metres) and edge (metres) of a field's voxels that stop ``opacity`` of the light.

    The opacity is that of a ray through a voxel of this density along its edge.
    """
    grid = field.grid
    edges = torch.tensor(grid.voxel_size, dtype=torch.float64)
    solid = grid.density.clamp(min=0) * float(edges.min()) >= -torch.log1p(torch.tensor(-opacity))
    centres = grid.voxel_centers(solid).double()
    return field.transform.points_from_grid(centres), float(field.transform.metres(float(edges.max())))


def _candidates_record(selection: Selection, counts: Sequence[int], targets: Sequence[Target]) -> dict[str, Any]:
    """What became of the candidates, for people and for the task's metrics."""
    listed = [
        {"class": label_set().names[target.instance.class_index], "number": target.number,
         "centre": target.instance.centre.round(4).tolist(), "area": round(target.instance.area, 4),
         "seen_by": target.views, "best_frame": target.frame, "placed": len(poses), "cameras": count,
         "refused": dict(reasons)}
        for target, poses, count, reasons in zip(targets, selection.poses, counts, selection.reasons, strict=True)
    ]  # fmt: skip
    return {"targets": listed, "refused": dict(refused_by_reason(selection))}


def _plot(
    domes: CameraList, originals: CameraList, selection: Selection, mesh: Mesh, floor: float, path: Path
) -> None:
    from analysis.dome_plots import plot_plan
    from analysis.plotting import save_figure
    from utils.labels import ids_to_classes

    places = originals.camera_to_world[:, :3, 3]
    figure = plot_plan(domes, mesh.vertices, ids_to_classes(mesh.labels), floor, places, refused_places(selection))
    save_figure(figure, path)

"""Task ``sample``: find objects of tail classes in the original views and place cameras on domes around them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import gin

from analysis.domes import DomeOptions, dome_cameras, floor_height
from analysis.surface import DEPTH_CHANNELS
from analysis.targets import TargetOptions, check_targets, find_targets
from dataloader import CameraList, ViewStore, load_mesh, load_scene
from utils.errors import UserError, reading
from utils.files import read_json
from utils.identity import FileSet, store_identity
from utils.labels import CLASS_NAMES, TAIL_CLASSES, class_index
from utils.outputs import commit_output, prepare_output
from utils.plans import Item, Plan, plan_output, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import for_each_scene, require_scenes, resolve_scenes
from utils.tasks import task

logger = logging.getLogger(__name__)


@task(
    summary="find objects of tail classes and place cameras on domes around them",
    inputs=("views_dir", "scans_dir", "statistics"),
    records="{domes_dir}/run",
    configures=(TargetOptions, DomeOptions, SceneWorkers),
)
def sample(
    views_dir: str = gin.REQUIRED,
    scans_dir: str = gin.REQUIRED,
    domes_dir: str = gin.REQUIRED,
    statistics: str | None = None,
    classes: str | Sequence[str] = "tail",
    scenes: str | Sequence[str] = "all",
    seed: int = 0,
    overwrite: bool = False,
) -> Plan:
    """Write ``domes_dir/SCENE.json``, the dome cameras of each scene, and a floor plan of them in ``domes_dir/SCENE``.

    A scene in which nothing qualifies gets an empty list.

    Args:
        views_dir: folder of annotated view stores with depth, one a scene.
        scans_dir: folder of scenes with labelled meshes, for the floor's height and the floor plan.
        domes_dir: where the cameras go.
        statistics: the statistics.json that 'analyze' wrote, for classes = "tail".
        classes: "tail" (those found by 'analyze'), "paper" (the paper's list), or a list of class names.
        scenes: "all", a list of names, or a text file with one name a line.
        seed: of the jitter.
        overwrite: make domes again that were made with other settings.
    """
    wanted = wanted_classes(classes, statistics)
    views, scans, output = Path(views_dir), Path(scans_dir), Path(domes_dir)

    names = resolve_scenes(scenes, views)
    require_scenes(names, views)

    def plan_one(scene: str, opened: bool) -> Item:
        return _DomeSampling(views / scene, scans / scene, output, wanted, seed).plan(overwrite, opened)

    def sample_one(scene: str) -> dict[str, int]:
        return _DomeSampling(views / scene, scans / scene, output, wanted, seed).run(overwrite)

    def work() -> dict[str, Any]:
        results = for_each_scene(names, sample_one, "sample")
        cameras = sum((Counter(result) for result in results.values()), Counter())
        logger.info("%d dome cameras: %s", cameras.total(),
                    ", ".join(f"{name} {count}" for name, count in cameras.most_common()) or "no target qualifies")
        return {"num_cameras": cameras.total(), "cameras_by_class": dict(cameras), "classes": wanted,
                "scenes": results}  # fmt: skip

    return Plan(work, plan_scenes(names, plan_one), [f"classes: {', '.join(wanted) or 'none'}"])


def wanted_classes(classes: str | Sequence[str], statistics: str | Path | None) -> list[str]:
    """Class names to look for, the rarest first where that is known.

    Raises:
        UserError: a name is unknown, or "tail" is asked for without statistics.
    """
    if classes == "paper":
        return [CLASS_NAMES[k] for k in TAIL_CLASSES]
    if classes == "tail":
        if statistics is None:
            raise UserError("sample.classes = 'tail' needs sample.statistics; run 'analyze' and give its "
                            "statistics.json, or set sample.classes = 'paper' or a list of class names")
        content = read_json(statistics)
        with reading(statistics, "class statistics", "run 'analyze' again"):
            return [CLASS_NAMES[CLASS_NAMES.index(name)] for name in content["total"]["tail_classes"]]
    if isinstance(classes, str):
        raise UserError(f"sample.classes = {classes!r} is unknown; use 'tail', 'paper' or a list of class names")
    try:
        return [CLASS_NAMES[class_index(name)] for name in classes]
    except ValueError as error:
        raise UserError(f"sample.classes: {error}") from None


class _DomeSampling:
    """One scene's store and labelled mesh, and the domes to be made."""

    def __init__(self, store: Path, scan: Path, domes_dir: Path, classes: Sequence[str], seed: int):
        self._store, self._scan, self._classes, self._seed = store, scan, classes, seed
        self._path, self._folder = domes_dir / f"{store.name}.json", domes_dir / store.name
        self._targets, self._domes = TargetOptions(), DomeOptions()

    def plan(self, overwrite: bool, opened: bool) -> Item:
        """What would be made.

        Raises:
            UserError: store or scan cannot be used, or the domes are there with other settings.
        """
        return plan_output(self._store.name, self._folder, self._inputs(opened), overwrite or not self._path.exists(),
                           partly=not opened)

    def run(self, overwrite: bool) -> dict[str, int]:
        """Make the domes unless they are there; returns cameras by class."""
        partial = prepare_output(self._folder, self._inputs(), overwrite or not self._path.exists())
        if partial is not None:
            mesh = load_mesh(self._mesh_path, require_labels=True)
            floor = floor_height(mesh.vertices, mesh.labels)
            targets = find_targets(self._store, [class_index(name) for name in self._classes], self._targets)
            originals = ViewStore.open(self._store).cameras
            domes = dome_cameras(targets, originals, self._domes, floor, self._seed)
            _plot(domes, originals, mesh, floor, partial / "plan.png")
            domes.save(self._path)
            commit_output(self._folder)
        domes = CameraList.load(self._path)
        return dict(Counter(info["target_class"] for info in domes.info))

    @cached_property
    def _mesh_path(self) -> Path:
        return load_scene(self._scan).label_mesh_path

    def _inputs(self, opened: bool = True) -> dict[str, Any]:
        """What determines the domes; without the mesh where the scan is not opened."""
        check_targets(ViewStore(self._store), self._targets)
        inputs = {"store": store_identity(self._store, ("label", *DEPTH_CHANNELS)), "classes": list(self._classes),
                  "seed": self._seed, "targets": asdict(self._targets), "domes": asdict(self._domes)}  # fmt: skip
        return {**inputs, "mesh": FileSet({"mesh": self._mesh_path})} if opened else inputs


def _plot(domes: CameraList, originals: CameraList, mesh: Any, floor: float, path: Path) -> None:
    from analysis.dome_plots import plot_plan
    from analysis.plotting import save_figure
    from utils.labels import nyu40_to_class

    places = originals.camera_to_world[:, :3, 3]
    save_figure(plot_plan(domes, mesh.vertices, nyu40_to_class(mesh.labels), floor, places), path)

"""Task ``render``: view stores from radiance fields."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from dataloader.lens_options import LensOptions
from dataloader.perfception import FIELD_PREFIX
from dataloader.sensors import SensorOptions
from dataloader.view_array import StoreOptions
from lib.plenoxel.options import RenderOptions
from utils.device import choose_device
from utils.errors import UserError, reading
from utils.files import read_json
from utils.plans import FAILED, Item, Plan, plan_scenes
from utils.records import METRICS_FILE
from utils.scene_workers import SceneWorkers
from utils.scenes import check_on_error, for_each_scene, resolve_scenes
from utils.tasks import task

logger = logging.getLogger(__name__)
TRAJECTORY = "trajectory"
_NOTHING_ACCEPTED = "no camera list in {} has an accepted camera: nothing to render; loosen the filter"


@task(
    summary="render each field's views (colour, SH, depth, alpha) into view stores",
    inputs=("fields_dir",),
    records="{views_dir}/run",
    configures=(RenderOptions, SensorOptions, LensOptions, SceneWorkers, StoreOptions),
)
def render(
    scans_dir: str = gin.REQUIRED,
    fields_dir: str = gin.REQUIRED,
    views_dir: str = gin.REQUIRED,
    cameras: str = TRAJECTORY,
    size: tuple[int, int] = (124, 124),
    scenes: str | Sequence[str] = "all",
    sh_dtype: str = "uint8",
    every: int = 1,
    device: str = "auto",
    on_error: str = "refuse",
    overwrite: bool = False,
) -> Plan:
    """Render ``{views_dir}/SCENE`` from ``{fields_dir}/plenoxel_scannet_SCENE``.

    Views of the recorded trajectory also get the photograph at the same size (channel ``photo``). A store is
    resumable view by view, and the same input gives the same bytes.

    Args:
        scans_dir: folder of scenes in any layout that 'fit' reads; read for the trajectory only.
        fields_dir: folder of fitted or downloaded fields.
        views_dir: folder that receives one store a scene.
        cameras: "trajectory" for every recorded frame, or a folder of camera lists, SCENE.json, of which the accepted
            cameras are rendered.
        size: (height, width) of the views; the recorded view is squeezed to it, never cropped.
        scenes: "all", a list of names, or a text file with one name a line.
        sh_dtype: "uint8" (with a range per channel, taken from the field) or "float16".
        every: render every n-th camera only.
        device: "auto", "cpu", "cuda" or "cuda:N".
        on_error: "refuse" stops at the first scene that cannot be rendered, "skip" logs it and continues.
        overwrite: render stores again that were made with other settings.
    """
    from model.view_rendering import StoreRequest, plan_store, render_store

    check_on_error(on_error)
    options, chosen = RenderOptions(), choose_device(device)
    along_trajectory = cameras == TRAJECTORY
    if along_trajectory:
        names = resolve_scenes(scenes, fields_dir, prefix=FIELD_PREFIX)
    else:
        names = _scenes_with_cameras(scenes, Path(cameras))

    def request(name: str) -> StoreRequest:
        return StoreRequest(
            field_path=Path(fields_dir) / f"{FIELD_PREFIX}{name}",
            scan_path=Path(scans_dir) / name if along_trajectory else None,
            camera_list_path=None if along_trajectory else Path(cameras) / f"{name}.json",
            output=Path(views_dir) / name,
            size=tuple(size),
            every=every,
            sh_dtype=sh_dtype,
        )

    def plan_one(name: str, opened: bool) -> Item:
        return plan_store(request(name), options, chosen, overwrite, opened)

    def render_one(name: str) -> dict[str, Any]:
        return render_store(request(name), options, chosen, overwrite)

    def work() -> dict[str, Any]:
        results = for_each_scene(
            names, render_one, "render", on_error, lambda result: f"{result['views']} views", chosen.type == "cuda"
        )
        failed = results.pop(FAILED, {})
        _keep_measured_rates(results, Path(views_dir) / "run" / METRICS_FILE)
        views = sum(result["views"] for result in results.values())
        return {"views": views, "scenes": results, **({FAILED: failed} if failed else {})}

    return Plan(work, plan_scenes(names, plan_one, on_error), () if names else (_NOTHING_ACCEPTED.format(cameras),))


def _keep_measured_rates(results: dict[str, dict[str, Any]], metrics: Path) -> None:
    """Copy the render rate of stores that were finished already from the run that rendered them."""
    if not metrics.is_file():
        return
    content = read_json(metrics)
    with reading(metrics, "the metrics of an earlier run", "delete it"):
        for name, result in results.items():
            if result["views_per_second"] is None:
                result["views_per_second"] = content.get("scenes", {}).get(name, {}).get("views_per_second")


def _scenes_with_cameras(scenes: str | Sequence[str], folder: Path) -> list[str]:
    """Scenes whose camera list has an accepted camera; the others are left out, with a line in the log."""
    from dataloader import CameraList

    if not folder.is_dir():
        raise UserError(f"render.cameras = {str(folder)!r} is no folder; expected one of camera lists, SCENE.json")
    names = sorted(path.stem for path in folder.glob("*.json")) if scenes == "all" else resolve_scenes(scenes)
    if not names:
        raise UserError(f"{folder} holds no camera lists; expected SCENE.json files: run 'sample' and 'filter' first")
    wanted = [name for name in names if CameraList.load(folder / f"{name}.json").accepted().any()]
    if len(wanted) < len(names):
        logger.info("no camera was accepted in %s", ", ".join(name for name in names if name not in wanted))
    return wanted

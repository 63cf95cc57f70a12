"""Task ``export_scene``: fields and views for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from dataloader.lens_options import LensOptions
from dataloader.perfception import FIELD_PREFIX
from dataloader.sensors import SensorOptions
from lib.plenoxel.options import RenderOptions
from model.export.options import GridOptions, MeshOptions, PointOptions
from utils.device import choose_device
from utils.errors import UserError, check_choice
from utils.labels import label_set
from utils.plans import FAILED, Item, Plan, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import check_on_error, for_each_scene, resolve_scenes
from utils.tasks import task


@task(
    summary="write fields as meshes and points, and views as data sets, for other programs",
    records="{exports_dir}/run",
    configures=(
        MeshOptions, PointOptions, GridOptions, RenderOptions, LensOptions, SensorOptions, SceneWorkers, label_set,
    ),
)
def export_scene(
    fields_dir: str = gin.REQUIRED,
    exports_dir: str = gin.REQUIRED,
    forms: Sequence[str] = ("mesh",),
    scans_dir: str = "",
    views_dir: str = "",
    fused_dir: str = "",
    scenes: str | Sequence[str] = "all",
    colors: str = "field",
    image_side: int = 320,
    holdout_every: int = 8,
    device: str = "auto",
    on_error: str = "refuse",
    overwrite: bool = False,
) -> Plan:
    """Write ``{exports_dir}/FORM/SCENE`` for each form; all are in the scan's world.

    Args:
        fields_dir: folder of fitted or downloaded fields.
        exports_dir: folder that receives one folder a form, with one folder a scene.
        forms: "mesh" (mesh.ply: the surface; needs the package scikit-image), "points" (points.ply: voxels that the
            recorded cameras see), "nerfstudio" (transforms.json, images, depth, masks, points of the field where there
            is one, and what is held out; a folder that 'fit' reads too), "perfception" (the field on one grid, as
            plenoxel_scannet_SCENE; with scans_dir, photographs are rendered before and after).
        scans_dir: folder of scenes in any layout that 'fit' reads: recorded cameras and photographs; "" for none.
        views_dir: folder of view stores, whose rendered views "nerfstudio" holds instead of the photographs; "" for
            none.
        fused_dir: folder that 'fuse' wrote: mesh and points get the classes' colours and ids; "" for none.
        scenes: "all" fields, a list of names, or a text file with one name a line.
        colors: "field" (a voxel's mean over all directions) or "cameras" (over those that recorded cameras see it
            from).
        image_side: pixels along the longer side of the recorded views by which it is found out what cameras see.
        holdout_every: where neither field, store nor scan says what is held out: every n-th view is; 0 for none.
        device: "auto", "cpu", "cuda" or "cuda:N".
        on_error: "refuse" stops at the first scene that cannot be exported, "skip" logs it and continues.
        overwrite: write again what was written with other settings.
    """
    from model.export.scene_export import FORMS, GRID, NERFSTUDIO, ExportSettings, SceneExport

    check_on_error(on_error)
    if not forms:
        raise UserError(f"export_scene.forms = {tuple(forms)} is empty, and nothing would be written; give one or more "
                        f"of {', '.join(FORMS)}")
    for form in forms:
        check_choice("export_scene.forms", form, FORMS)
    for name, folder in (("scans_dir", scans_dir), ("views_dir", views_dir), ("fused_dir", fused_dir)):
        if folder and not Path(folder).is_dir():
            raise UserError(f"export_scene.{name} = {folder!r} is no folder; correct the path, or set it to '' where "
                            "there is none")
    chosen = choose_device(device)
    options = MeshOptions(), PointOptions(), GridOptions(), RenderOptions()
    settings = ExportSettings(*options, colors, image_side, holdout_every, chosen)
    only_views = tuple(forms) == (NERFSTUDIO,) and not Path(fields_dir).is_dir()
    names = resolve_scenes(scenes, (views_dir or scans_dir) if only_views else fields_dir,
                           "" if only_views else FIELD_PREFIX)

    def scene(name: str) -> SceneExport:
        folders = (Path(folder) / name if folder else None for folder in (scans_dir, views_dir, fused_dir))
        return SceneExport(name, Path(fields_dir) / f"{FIELD_PREFIX}{name}", *folders, settings)

    def output(form: str, name: str) -> Path:
        return Path(exports_dir) / form / (f"{FIELD_PREFIX}{name}" if form == GRID else name)

    def plan_form(form: str) -> list[Item]:
        return plan_scenes(
            names, lambda name, opened: scene(name).plan(form, output(form, name), overwrite, opened), on_error
        )

    def export_one(name: str) -> dict[str, Any]:
        made = scene(name)
        return {form: made.write(form, output(form, name), overwrite) for form in forms}

    def work() -> dict[str, Any]:
        results = for_each_scene(names, export_one, "export", on_error, on_gpu=chosen.type == "cuda")
        failed = results.pop(FAILED, {})
        return {"scenes": results, **({FAILED: failed} if failed else {})}

    return Plan(work, [item for form in forms for item in plan_form(form)])

"""Task ``fuse``: predictions of a scene's views, fused in its field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from dataloader.perfception import FIELD_PREFIX
from dataloader.sensors import SensorOptions
from lib.plenoxel.options import RenderOptions
from model.fusion import FusionOptions
from model.fusion_refinement import RefinementOptions
from utils.device import choose_device
from utils.errors import UserError
from utils.labels import label_set
from utils.plans import FAILED, Item, Plan, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import check_on_error, for_each_scene, resolve_scenes
from utils.tasks import task


@task(
    summary="fuse predictions of a scene's views in its field, and render them back",
    inputs=("fields_dir", "views_dir"),
    records="{fused_dir}/run",
    configures=(FusionOptions, RefinementOptions, RenderOptions, SensorOptions, SceneWorkers, label_set),
)
def fuse(
    fields_dir: str = gin.REQUIRED,
    views_dir: str = gin.REQUIRED,
    fused_dir: str = gin.REQUIRED,
    checkpoint: str = "",
    predictions: str = "",
    scans_dir: str = "",
    scenes: str | Sequence[str] = "all",
    batch_size: int = 32,
    device: str = "auto",
    other_size: bool = False,
    calibration: str = "",
    on_error: str = "refuse",
    overwrite: bool = False,
) -> Plan:
    """Write ``{fused_dir}/SCENE``: semantic.npz, label.npy (uint8 [N, H, W], in the store's view order), mesh.ply.

    No labels are used; where views or meshes have some, the metrics hold scores of single and of fused predictions.

    Args:
        fields_dir: folder of fitted or downloaded fields.
        views_dir: folder of view stores: poses, sizes, what a checkpoint sees, and labels to score with.
        fused_dir: folder that receives one folder a scene.
        checkpoint: of a network whose predictions are fused; any that 'test' takes.
        predictions: instead of it, a folder of SCENE.npy, float16 [N, C, h, w]: class probabilities of any network,
            in the store's view order, of any size.
        scans_dir: folder of scenes in any layout that 'fit' reads, whose meshes are labelled; "" labels none.
        scenes: "all", a list of names, or a text file with one name a line.
        batch_size: views that the network sees at a time.
        device: "auto", "cpu", "cuda" or "cuda:N".
        other_size: whether views may have another size than those that the network was trained on.
        calibration: folder "fused" of a test of the checkpoint on labelled validation rooms (test.fused = True), whose
            temperature its predictions are given; "" takes FusionOptions.temperature.
        on_error: "refuse" stops at the first scene that cannot be fused, "skip" logs it and continues.
        overwrite: fuse scenes again that were fused with other settings.
    """
    from enet.calibration import calibrated_options
    from enet.fused_scene import FusedScene

    check_on_error(on_error)
    if bool(checkpoint) == bool(predictions):
        raise UserError(f"fuse.checkpoint = {checkpoint!r} and fuse.predictions = {predictions!r}: set one of them, to "
                        "a network's file or to a folder of predicted probabilities, SCENE.npy")
    if batch_size < 1:
        raise UserError(f"fuse.batch_size = {batch_size}: expected 1 or more")
    for name, path, exists in (("checkpoint", checkpoint, Path.is_file), ("predictions", predictions, Path.is_dir),
                               ("scans_dir", scans_dir, Path.is_dir)):  # fmt: skip
        if path and not exists(Path(path)):
            raise UserError(f"fuse.{name} = {path!r} does not exist; correct the path")
    if calibration and not checkpoint:
        raise UserError(f"fuse.calibration = {calibration!r} is of a network; set fuse.checkpoint, or "
                        "FusionOptions.temperature for stored predictions")
    names = resolve_scenes(scenes, views_dir)
    options = calibrated_options(calibration, checkpoint, names)
    chosen = choose_device(device)

    def scene(name: str) -> FusedScene:
        return FusedScene(
            name, Path(fields_dir) / f"{FIELD_PREFIX}{name}", Path(views_dir) / name, Path(fused_dir) / name,
            Path(checkpoint) if checkpoint else None, Path(predictions) / f"{name}.npy" if predictions else None,
            Path(scans_dir) / name if scans_dir else None, batch_size, chosen, other_size, options,
        )  # fmt: skip

    def plan_one(name: str, opened: bool) -> Item:
        return scene(name).plan(overwrite, opened)

    def fuse_one(name: str) -> dict[str, Any]:
        return scene(name).fuse(overwrite)

    def work() -> dict[str, Any]:
        results = for_each_scene(names, fuse_one, "fuse", on_error, on_gpu=chosen.type == "cuda")
        failed = results.pop(FAILED, {})
        return {**summarize(results), **({FAILED: failed} if failed else {})}

    return Plan(work, plan_scenes(names, plan_one, on_error))


def summarize(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Scores over all scenes' views and vertices, and of each scene; None where nothing is labelled."""
    import torch

    from enet.metrics import class_iou, summarize_confusion

    def scores(matrices: list[list[list[int]]]) -> dict[str, Any] | None:
        total = sum(torch.tensor(matrix) for matrix in matrices)
        if not matrices or not total[1:].any():
            return None
        summary = summarize_confusion(total)
        occurs = total.sum(1) > 0
        occurs[0] = False
        return {"mean_iou_of_present": round(float(class_iou(total)[occurs].nanmean()), 6), **summary}

    def all_scores(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        return {part: scores([result[part] for result in chosen if result[part] is not None])
                for part in ("single", "fused", "vertices")}  # fmt: skip

    scenes = {name: {"views": result["views"], **all_scores([result])} for name, result in results.items()}
    return {**all_scores(list(results.values())), "scenes": scenes}

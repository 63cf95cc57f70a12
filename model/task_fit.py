"""Task ``fit``: radiance fields from posed photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from dataloader.lens_options import LensOptions
from dataloader.nested_field import NESTED_FILE
from dataloader.perfception import FIELD_PREFIX
from dataloader.perfception_checkpoint import CHECKPOINT_FILES
from dataloader.sensors import SensorOptions
from lib.plenoxel.options import RenderOptions
from model.fitting.options import (
    FitBackground,
    FitData,
    FitGrid,
    FitOpen,
    FitOptimization,
    FitPoses,
    FitRegularization,
)
from utils.device import choose_device
from utils.errors import check_choice
from utils.outputs import DONE, SETTINGS_FILE
from utils.plans import FAILED, Item, Plan, plan_output, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import check_on_error, for_each_scene, require_scenes, resolve_scenes
from utils.tasks import task


@task(
    summary="fit a Plenoxel radiance field to each scene's photographs",
    inputs=("scans_dir",),
    records="{fields_dir}/run",
    configures=(
        FitData, FitGrid, FitOptimization, FitRegularization, FitPoses, FitBackground, FitOpen, RenderOptions,
        SensorOptions, LensOptions, SceneWorkers,
    ),
)
def fit(
    scans_dir: str = gin.REQUIRED,
    fields_dir: str = gin.REQUIRED,
    scenes: str | Sequence[str] = "all",
    device: str = "auto",
    seed: int = 0,
    bits: int = 8,
    checkpoint_seconds: float = 60.0,
    on_error: str = "refuse",
    on_contradiction: str = "warn",
    overwrite: bool = False,
) -> Plan:
    """Fit fields and write ``{fields_dir}/plenoxel_scannet_SCENE`` in PeRFception's format.

    Each folder also gets ``results.json`` (PSNR and SSIM of every held-out frame), ``render_model/`` (held-out renders
    beside the photographs), ``capture.npz`` (exposures and pose corrections of the training cameras) and
    ``tensorboard/``. Fields that are there without being made here, as PeRFception's, stay as they are.

    Args:
        scans_dir: folder of scenes in ScanNet's, ScanNet++'s, ARKitScenes', instant-ngp's, NSVF's or COLMAP's layout.
        fields_dir: folder that receives one folder a scene.
        scenes: "all", a list of names, or a text file with one name a line.
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the random rays.
        bits: of the saved SH coefficients: 4, 8 (as PeRFception's), 16 or 32.
        checkpoint_seconds: time between checkpoints; --resume continues from the last one, on a CPU bit for bit.
        on_error: "refuse" stops at the first scene that cannot be fitted, "skip" logs it and continues.
        on_contradiction: where a scene's depth maps and poses contradict each other: "warn" and fit, or "refuse".
        overwrite: fit scenes again that were fitted with other settings, or whose field was downloaded.
    """
    from dataloader import load_scene
    from model.fitting.fitter import FitOptions
    from model.fitting.scene_fit import FitSettings, fit_inputs, fit_scene, plan_fit

    check_on_error(on_error)
    check_choice("fit.on_contradiction", on_contradiction, ("warn", "refuse"))
    options = FitOptions(
        FitGrid(), FitOptimization(), FitRegularization(), RenderOptions(), FitPoses(), FitBackground(), FitOpen()
    )
    settings = FitSettings(FitData(), options, seed, bits, checkpoint_seconds)
    chosen = choose_device(device)
    names = resolve_scenes(scenes, scans_dir)
    require_scenes(names, scans_dir)

    def output(name: str) -> Path:
        return Path(fields_dir) / f"{FIELD_PREFIX}{name}"

    downloaded = set() if overwrite else {name for name in names if _is_downloaded(output(name))}

    def plan_one(name: str, opened: bool) -> Item:
        if name in downloaded:
            return Item(name, output(name), DONE, "not made by this project")
        if not opened:
            return plan_output(name, output(name), fit_inputs(settings, chosen), overwrite, partly=True)
        scene = load_scene(Path(scans_dir) / name, options.rendering.background_brightness)
        detail = plan_fit(scene, settings)
        return plan_output(name, output(name), fit_inputs(settings, chosen, scene), overwrite, detail)

    def fit_one(name: str) -> dict[str, Any]:
        return fit_scene(Path(scans_dir) / name, output(name), settings, chosen, overwrite, on_contradiction)

    def work() -> dict[str, Any]:
        fitted = [name for name in names if name not in downloaded]
        results = for_each_scene(fitted, fit_one, "fit", on_error, _describe, chosen.type == "cuda")
        failed = results.pop(FAILED, {})
        return summarize(results, failed)

    return Plan(work, plan_scenes(names, plan_one, on_error))


def _describe(result: dict[str, Any]) -> str:
    """A scene's line in the log."""
    if result["psnr"] is None:
        return "no frame held out"
    return (f"held-out PSNR {result['psnr']:.2f} dB ({result['psnr_neutral']:.2f} dB at the given poses and average "
            f"exposure), SSIM {result['ssim']:.3f}")


def _is_downloaded(field: Path) -> bool:
    """Whether a field is there that this project has not made."""
    made = (field / SETTINGS_FILE).exists()
    return not made and any((field / name).is_file() for name in (*CHECKPOINT_FILES, NESTED_FILE))


def summarize(results: dict[str, dict[str, Any]], failed: dict[str, str]) -> dict[str, Any]:
    """Means over scenes, and each scene's own figures without its single frames."""
    from model.fitting.evaluation import mean_measurements

    scenes = {name: {key: value for key, value in result.items() if key != "held_out"}
              for name, result in results.items()}  # fmt: skip
    measured = [result for result in scenes.values() if result["psnr"] is not None]
    mean = mean_measurements(measured)
    return {**mean, "scenes": scenes, **({FAILED: failed} if failed else {})}

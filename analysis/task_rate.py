"""Task ``rate``: estimate the render quality of novel views, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from analysis.quality import QualityOptions, add_quality, quality_inputs
from dataloader import ViewStore
from dataloader.added_channels import channels_missing
from dataloader.perfception import FIELD_PREFIX
from utils.outputs import DONE
from utils.plans import ADD, Item, Plan, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import for_each_scene, require_scenes, resolve_scenes
from utils.tasks import task


@task(
    summary="estimate the render quality of novel views, pixel by pixel",
    inputs=("novel_views_dir", "views_dir"),
    records="{novel_views_dir}/run/rate",
    configures=(QualityOptions, SceneWorkers),
)
def rate(
    novel_views_dir: str = gin.REQUIRED,
    views_dir: str = gin.REQUIRED,
    fields_dir: str | None = None,
    scenes: str | Sequence[str] = "all",
    overwrite: bool = False,
) -> Plan:
    """Add the channel "quality" to the view stores in ``novel_views_dir``; training can weight its loss by it.

    Args:
        novel_views_dir: folder of rendered stores to rate, one a scene.
        views_dir: folder of the original views' stores, which are the observations.
        fields_dir: fitted fields; frames that were not fitted count as not observed, and errors of the others, where
            ``views_dir`` has their photographs, are looked at.
        scenes: "all", a list of names, or a text file with one name a line.
        overwrite: replace a quality that was made with other settings.
    """
    novel_root, root, options = Path(novel_views_dir), Path(views_dir), QualityOptions()

    names = resolve_scenes(scenes, novel_root)
    require_scenes(names, novel_root)

    def field_of(scene: str) -> Path | None:
        return None if fields_dir is None else Path(fields_dir) / f"{FIELD_PREFIX}{scene}"

    def plan_one(scene: str, opened: bool) -> Item:
        inputs = quality_inputs(novel_root / scene, root / scene, options, field_of(scene))
        missing = channels_missing(novel_root / scene, ["quality"], inputs, overwrite)
        return Item(scene, novel_root / scene, ADD if missing else DONE, "quality" if missing else "")

    def rate_one(scene: str) -> float:
        add_quality(novel_root / scene, root / scene, options, field_of(scene), overwrite)
        store = ViewStore.open(novel_root / scene)
        total = sum(int(quality.long().sum()) for _, quality in store.blocks("quality"))
        return round(total / (255 * len(store) * math.prod(store.size)), 4)

    def work() -> dict[str, Any]:
        return {"mean_quality": for_each_scene(names, rate_one, "rate")}

    return Plan(work, plan_scenes(names, plan_one))

"""Task ``extract``: ScanNet's ``.sens`` streams to scene folders."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gin

from dataloader.sens_extraction import extract_scene, meshes_beside, plan_extraction
from utils.errors import UserError
from utils.names import is_system_name, some_of
from utils.plans import FAILED, Item, Plan, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import check_on_error, for_each_scene, resolve_scenes
from utils.tasks import task

logger = logging.getLogger(__name__)
_COUNTS = ("frames", "lost_poses", "damaged", "meshes")


@task(
    summary="unpack ScanNet's .sens streams into scene folders",
    inputs=("sens_dir",),
    records="{scans_dir}/run",
    configures=(SceneWorkers,),
)
def extract(
    sens_dir: str = gin.REQUIRED,
    scans_dir: str = gin.REQUIRED,
    scenes: str | list[str] = "all",
    frame_skip: int = 1,
    depth: bool = True,
    on_error: str = "refuse",
    overwrite: bool = False,
) -> Plan:
    """Write ``{scans_dir}/SCENE`` from ``{sens_dir}/SCENE/SCENE.sens`` or ``{sens_dir}/SCENE.sens``.

    Meshes beside a stream (``SCENE_vh_clean_2.ply`` and ``.labels.ply``) are linked. Finished scenes are left alone;
    with --resume an interrupted one continues at the frame where it stopped.

    Args:
        sens_dir: folder with ScanNet's downloads.
        scans_dir: folder that receives one folder a scene; another than sens_dir.
        scenes: "all", a list of names, or a text file of names.
        frame_skip: take every n-th frame; frames keep their numbers.
        depth: write depth images.
        on_error: "refuse" stops at a damaged stream, "skip" continues and lists it.
        overwrite: extract again what is there with other settings.
    """
    if frame_skip < 1:
        raise UserError(f"extract.frame_skip = {frame_skip}; expected 1 (every frame) or more")
    if Path(sens_dir).resolve() == Path(scans_dir).resolve():
        raise UserError(f"extract.scans_dir and sens_dir are both {sens_dir}; choose another folder for the output")
    check_on_error(on_error)
    streams = _find_streams(Path(sens_dir), scenes)

    def plan_one(name: str, opened: bool) -> Item:
        return plan_extraction(streams[name], Path(scans_dir) / name, frame_skip, depth, overwrite)

    def extract_one(name: str) -> dict[str, int]:
        return extract_scene(streams[name], Path(scans_dir) / name, frame_skip, depth, overwrite) or {}

    def work() -> dict[str, Any]:
        results = for_each_scene(list(streams), extract_one, "extract", on_error, _describe)
        failed = results.pop(FAILED, {})
        counts = {key: sum(result.get(key, 0) for result in results.values()) for key in _COUNTS}
        done = sum(1 for result in results.values() if result)
        logger.info("extracted %d scenes: %d frames, of which %d have a lost pose; %d were left out as damaged, and %d "
                    "meshes linked; %d scenes were there already, %d failed", done, *counts.values(),
                    len(results) - done, len(failed))  # fmt: skip
        return {"scenes": len(results), **counts, FAILED: failed}

    return Plan(work, plan_scenes(list(streams), plan_one, on_error), [_what_is_found(Path(sens_dir), streams)])


def _describe(result: dict[str, int]) -> str:
    """A scene's line in the log."""
    if not result:
        return "was there already"
    damaged = f", {result['damaged']} left out as damaged" if result["damaged"] else ""
    return f"{result['frames']} frames, {result['lost_poses']} with a lost pose{damaged}"


def _what_is_found(folder: Path, streams: dict[str, Path]) -> str:
    """One line about the downloads, which names scenes without a mesh or its labels."""
    meshes = {name: [path.name for path in meshes_beside(stream)] for name, stream in streams.items()}
    plain = [name for name, files in meshes.items() if f"{name}_vh_clean_2.ply" not in files]
    unlabelled = [name for name, files in meshes.items() if f"{name}_vh_clean_2.labels.ply" not in files]
    line = f"{folder} holds {len(streams)} streams"
    for names, what in ((plain, "mesh"), (unlabelled, "labelled mesh")):
        if names:
            line += f"; {len(names)} without a {what} beside them ({some_of(names)})"
    return line


def _find_streams(folder: Path, scenes: str | list[str]) -> dict[str, Path]:
    """Streams by scene name."""
    paths = [path for path in (*folder.glob("*.sens"), *folder.glob("*/*.sens"))
             if not any(is_system_name(part) for part in path.relative_to(folder).parts)]  # fmt: skip
    found = {path.stem: path for path in paths}
    if not found:
        raise UserError(f"{folder} holds no .sens file, directly or one folder down; correct extract.sens_dir")
    names = sorted(found) if scenes == "all" else resolve_scenes(scenes)
    for name in names:
        if name not in found:
            raise UserError(f"{folder} holds no {name}.sens; download it or take it out of extract.scenes")
    return {name: found[name] for name in names}

"""Task ``view``: a scene in the browser."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gin

from analysis.quality import QualityOptions
from dataloader.lens_options import LensOptions
from dataloader.perfception import FIELD_PREFIX
from dataloader.sensors import SensorOptions
from model import RenderOptions
from utils.device import choose_device
from utils.errors import UserError
from utils.interrupts import Stopped
from utils.labels import label_set
from utils.plans import Plan
from utils.scenes import scene_folders
from utils.tasks import task

if TYPE_CHECKING:
    from analysis.viewer.scene_state import SceneState

logger = logging.getLogger(__name__)


@task(
    summary="open a scene in the browser: field, mesh, cameras, stored views, predictions",
    inputs=("fields_dir", "checkpoint"),
    configures=(RenderOptions, QualityOptions, SensorOptions, LensOptions, label_set),
)
def view(
    scene: str = gin.REQUIRED,
    fields_dir: str = gin.REQUIRED,
    scans_dir: str | None = None,
    views_dir: str | None = None,
    novel_views_dir: str | None = None,
    domes_dir: str | None = None,
    checkpoint: str | Sequence[str] | None = None,
    fused_dir: str | None = None,
    size: tuple[int, int] = (124, 124),
    max_height: int = 720,
    host: str = "127.0.0.1",
    port: int = 8080,
    device: str = "auto",
) -> Plan:
    """Serve the scene until Ctrl-C; other scenes can be chosen. What is missing is left out and logged.

    Args:
        scene: name of the scene, such as 'scene0000_00'.
        fields_dir: folder of plenoxel_scannet_SCENE folders.
        scans_dir: folder of scenes in any layout that 'fit' reads, for the labelled mesh and the trajectory.
        views_dir: folder of the trajectories' view stores, for photographs and annotations.
        novel_views_dir: folder of the domes' view stores.
        domes_dir: folder of SCENE.json camera lists from 'filter' or 'sample'.
        checkpoint: best.ckpt or last.ckpt of a training run, whose prediction is shown; a list of several, whose
            predictions are shown side by side; None for none.
        fused_dir: folder that 'fuse' wrote, for fused labels.
        size: height and width of the views that the network was trained on, where its checkpoint does not say it.
        max_height: rows of the finest picture; the width follows the browser's window.
        host: address to listen on; only this machine can connect by default.
        port: port to listen on; the next free one is taken when it is in use.
        device: "auto", "cpu" or "cuda", for rendering and predicting.
    """
    from analysis.viewer.scene_state import ScenePaths, field_path

    if importlib.util.find_spec("viser") is None:
        raise UserError("the view task needs viser; install it: pip install viser")

    def inside(folder: str | None, name: str) -> Path | None:
        return None if folder is None else Path(folder) / name

    checkpoints = [Path(path) for path in ([checkpoint] if isinstance(checkpoint, str) else checkpoint or ())]

    def paths_of(name: str) -> ScenePaths:
        return ScenePaths(
            field=field_path(Path(fields_dir), name),
            scan=inside(scans_dir, name),
            views=inside(views_dir, name),
            novel_views=inside(novel_views_dir, name),
            domes=inside(domes_dir, f"{name}.json"),
            checkpoints=checkpoints,
            fused=inside(fused_dir, name),
        )

    chosen, options = choose_device(device), (RenderOptions(), QualityOptions())
    scenes = scene_folders(fields_dir, FIELD_PREFIX)

    def load(name: str) -> SceneState:
        from analysis.viewer.scene_state import load_scene_state

        return load_scene_state(name, paths_of(name), *options, tuple(size), chosen)

    return Plan(lambda: _serve(scene, load, scenes, host, port, max_height),
                notes=[f"{scene}: field {paths_of(scene).field}"])  # fmt: skip


def _serve(
    scene: str, load: Callable[[str], SceneState], scenes: list[str], host: str, port: int, max_height: int
) -> None:
    from analysis.viewer.viewer import Viewer

    viewer = Viewer(load(scene), host, port, max_height, scenes, load)
    if not _is_local(host):
        logger.warning("everyone who can reach %s can look at the scenes and start renderings", host)
    logger.info("%s is at %s; Ctrl-C ends it", scene, viewer.url)
    try:
        threading.Event().wait()
    except Stopped:
        logger.info("closed")
    finally:
        viewer.stop()


def _is_local(host: str) -> bool:
    """Whether only this machine can connect to a server bound to ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

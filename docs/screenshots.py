"""Pictures of the viewer, the report and TensorBoard for the documentation, taken in a headless Chromium.

    python docs/screenshots.py WORK [OUTPUT]        (WORK: what scripts/demo.sh wrote; OUTPUT: docs/images)
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial import cKDTree

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from analysis.quality import QualityOptions  # noqa: E402
from analysis.viewer.scene_nodes import ACCEPTED_KIND
from analysis.viewer.scene_state import DOMES, TRAJECTORY, ScenePaths, SceneState, field_path, load_scene_state  # noqa: E402
from analysis.viewer.viewer import Viewer  # noqa: E402
from dataloader import CameraList, ViewStore  # noqa: E402
from model import RenderOptions  # noqa: E402
from tests.browser import Page  # noqa: E402
from utils.cameras import project  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import atomic_path  # noqa: E402
from utils.labels import label_set  # noqa: E402

logger = logging.getLogger(__name__)
_SECONDS = 120
_SETTLE = 3.0  # seconds from the last change of a page to its picture
_ROW = "rendered_rgb"  # the run whose network the viewer shows
_MAX_COLORS, _RARE_COLORS, _WHITE = 256, 50, 255
_BESIDE_PANEL = (0.05, 0.62)  # of the window's width: where nothing covers the scene
_CLOSE_NOTICES = "document.querySelectorAll('.mantine-Notification-closeButton').forEach(button => button.click())"


def take_all(work: Path, output: Path) -> None:
    """Write viewer.png, report.png and tensorboard.png to ``output``.

    Raises:
        UserError: ``work`` is not a finished demo's output, or there is no browser.
    """
    for needed in ("report/index.html", f"runs/{_ROW}/training", "domes_filtered", "data/scans"):
        if not (work / needed).exists():
            raise UserError(f"{work / needed} does not exist; run scripts/demo.sh {work}")
    save_picture(_report(work / "report" / "index.html"), output / "report.png")
    save_picture(_tensorboard(work / "runs"), output / "tensorboard.png")
    save_picture(_viewer(work), output / "viewer.png")


def _report(page_file: Path) -> bytes:
    with Page(page_file.resolve().as_uri()) as page:
        page.wait_for("document.readyState === 'complete'", _SECONDS)
        return page.screenshot()


def _tensorboard(runs: Path) -> bytes:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    named = ",".join(f"{path.parent.parent.name}:{path}" for path in sorted(runs.glob("*/training/tensorboard")))
    command = [sys.executable, "-m", "tensorboard.main", "--logdir_spec", named, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for_server(url, server)
        samples = {"plugin": "images", "tag": "val/samples", "runId": f"defaultExperimentId/{_ROW}/.", "sample": 0}
        cards = [{"plugin": "scalars", "tag": "val/mean_iou"}, samples, {"plugin": "scalars", "tag": "train/loss"}]
        with Page(f"{url}/?smoothing=0&pinnedCards={urllib.parse.quote(json.dumps(cards))}#timeseries") as page:
            page.wait_for("document.querySelector('image-card img')?.naturalWidth > 0", _SECONDS)
            page.click_text("Settings")
            time.sleep(_SETTLE)
            return page.screenshot()
    finally:
        server.terminate()
        server.wait(_SECONDS)


def _wait_for_server(url: str, server: subprocess.Popen) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            opener.open(url, timeout=_SECONDS).close()
            return
        except urllib.error.URLError:
            time.sleep(0.3)
    raise UserError("TensorBoard does not start here; see: python -m tensorboard.main --logdir .")


def _viewer(work: Path) -> bytes:
    scene = _scene_with_most_novel_views(work / "domes_filtered")
    paths = ScenePaths(
        field=field_path(work / "fields", scene),
        scan=work / "data" / "scans" / scene,
        views=work / "views" / "original" / scene,
        novel_views=work / "views" / "novel" / scene,
        domes=work / "domes_filtered" / f"{scene}.json",
        checkpoints=[work / "runs" / _ROW / "training" / "best.ckpt"],
    )
    size = ViewStore.open(paths.views).size
    state = load_scene_state(scene, paths, RenderOptions(), QualityOptions(), size, torch.device("cpu"))
    viewer = Viewer(state, max_height=480)
    try:
        with Page(viewer.url) as page:
            page.wait_for("document.querySelector('canvas')", _SECONDS)
            time.sleep(_SETTLE)
            _arrange(viewer, state, page)
            viewer.display.loop.wait_until_idle(_SECONDS)
            time.sleep(_SETTLE)
            return page.screenshot()
    finally:
        viewer.stop()


def _arrange(viewer: Viewer, state: SceneState, page: Page) -> None:
    """View the domes from where most of their cameras are visible, with the reasons, and one camera's details."""
    page.evaluate(_CLOSE_NOTICES)
    if ACCEPTED_KIND in viewer.display.frusta.kinds:
        viewer.panels.show_kind(ACCEPTED_KIND, True)
    viewer.display.frusta.show_more(True)
    page.click_text("Why rejected")
    cameras = state.sources[DOMES].cameras
    view = _overview(state)
    viewer.panels.choose_camera(TRAJECTORY, view)
    rejected = [index for index in _seen_beside_panel(state, view).nonzero()[:, 0].tolist()
                if cameras.info[index].get("reason", "")]
    time.sleep(_SETTLE)
    if rejected:
        viewer.panels.inspect_camera(DOMES, rejected[0])
    time.sleep(_SETTLE)  # the camera's details move the tabs down
    page.click_text("Cameras")


def _overview(state: SceneState) -> int:
    """The trajectory's camera that sees farthest among those that see many cameras of the domes."""
    source = state.sources[TRAJECTORY]
    seen = [int(_seen_beside_panel(state, view).sum()) for view in range(len(source.cameras))]
    many = [view for view, count in enumerate(seen) if count >= max(seen) / 2]
    return max(many, key=lambda view: float(source.store.tensor("depth")[view].float().mean()))


def _seen_beside_panel(state: SceneState, view: int) -> torch.Tensor:
    """Which cameras, bool ``[N]``, are visible beside the panel in a browser at a trajectory's camera."""
    browser = state.sources[TRAJECTORY].browser_camera(view)
    browser = type(browser)(browser.camera_to_world, browser.fov, 1280 / 800)
    points = state.sources[DOMES].cameras.camera_to_world[:, :3, 3]
    uv, depth = project(points, browser.intrinsics((800, 1280)), browser.camera_to_world)
    x, y = (uv / torch.tensor([1280, 800])).unbind(-1)
    return (depth > 0.5) & (x > _BESIDE_PANEL[0]) & (x < _BESIDE_PANEL[1]) & (y > 0.05) & (y < 0.95)


def _scene_with_most_novel_views(domes: Path) -> str:
    accepted = {path.stem: int(CameraList.load(path).accepted().sum()) for path in sorted(domes.glob("*.json"))}
    if not accepted:
        raise UserError(f"{domes} holds no camera lists; run scripts/demo.sh")
    return max(accepted, key=accepted.get)


def save_picture(png: bytes, path: Path) -> None:
    """Write a picture with 256 colours, which is a third of its size; class colours and white stay exact."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    palette = _palette(pixels)
    colors, places = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    nearest = cKDTree(palette).query(colors)[1].astype(np.uint8)
    small = Image.fromarray(nearest[places].reshape(pixels.shape[:2]), "P")
    small.putpalette(palette.flatten().tolist())
    with atomic_path(path) as temporary:
        small.save(temporary, optimize=True)
    logger.info("%s: %d kB", path, path.stat().st_size // 1000)


def _palette(pixels: np.ndarray) -> np.ndarray:
    """256 colours uint8 ``[256, 3]`` for a picture: exact ones, then its commonest, then rare ones such as of lines."""
    exact = np.concatenate((label_set().colors, np.full((1, 3), _WHITE)))
    methods = {Image.Quantize.MAXCOVERAGE: _RARE_COLORS,
               Image.Quantize.MEDIANCUT: _MAX_COLORS - _RARE_COLORS - len(exact)}  # fmt: skip
    picture = Image.fromarray(pixels)
    chosen = [picture.quantize(count, method).getpalette() for method, count in methods.items()]
    found = np.concatenate([np.array(colors).reshape(-1, 3) for colors in (exact.flatten().tolist(), *chosen)])
    return found[:_MAX_COLORS].astype(np.uint8)


def main() -> int:
    """Read the command line; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description="Pictures of viewer, report and TensorBoard for the documentation.")
    parser.add_argument("work", type=Path, help="what scripts/demo.sh wrote")
    parser.add_argument("output", type=Path, nargs="?", default=Path("docs/images"))
    arguments = parser.parse_args()
    try:
        take_all(arguments.work, arguments.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

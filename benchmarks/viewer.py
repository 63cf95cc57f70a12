"""How many frames per second the viewer draws, without a browser: each frame rendered, encoded, at full size.

    python benchmarks/viewer.py FIELD [SCAN] [--device auto] [--rows 720] [--frames 60]

FIELD is a folder that `run.py fit` wrote, SCAN the scene's own folder; with it, the camera flies along the recorded
trajectory, else it turns around in the grid's middle. Frames pass through the viewer's own renderer and become JPEGs,
as the browser gets them.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from analysis.quality import QualityOptions  # noqa: E402
from analysis.viewer.camera_math import BrowserCamera, interpolate_path  # noqa: E402
from analysis.viewer.pictures import ALPHA, ANNOTATION, COLOR, DEPTH, SH_CHANNEL, SH_GRADIENT  # noqa: E402
from analysis.viewer.scene_state import TRAJECTORY, ScenePaths, SceneState, load_scene_state  # noqa: E402
from analysis.viewer.view_renderer import DisplaySettings, ViewRenderer  # noqa: E402
from dataloader.perfception import FIELD_PREFIX  # noqa: E402
from model import RenderOptions  # noqa: E402
from utils.device import choose_device  # noqa: E402

ASPECT = 1.6
KEYS = 6
JPEG_QUALITY = 90


def flight(state: SceneState, frames: int) -> list[BrowserCamera]:
    """A smooth path of ``frames`` cameras."""
    source = state.sources.get(TRAJECTORY)
    if source is not None and len(source.cameras) >= 2:
        chosen = torch.linspace(0, len(source.cameras) - 1, min(KEYS, len(source.cameras))).long().tolist()
        keys = [source.browser_camera(index) for index in chosen]
        return interpolate_path([BrowserCamera(key.camera_to_world, key.fov, ASPECT) for key in keys], frames)
    start, path = state.initial_camera(), []
    for number in range(frames):
        angle, turn = 2 * math.pi * number / frames, torch.eye(4, dtype=torch.float64)
        turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        pose = turn @ start.camera_to_world
        pose[:3, 3] = start.camera_to_world[:3, 3]
        path.append(BrowserCamera(pose, start.fov, ASPECT))
    return path


def measure(renderer: ViewRenderer, path: list[BrowserCamera], rows: int) -> tuple[float, float]:
    """Milliseconds a frame takes to draw, and to encode."""
    renderer.draw(path[0], rows)
    drawing = encoding = 0.0
    for camera in path:
        started = time.perf_counter()
        picture = renderer.draw(camera, rows)
        drawn = time.perf_counter()
        iio.imwrite(io.BytesIO(), picture.image, extension=".jpeg", quality=JPEG_QUALITY)
        drawing, encoding = drawing + drawn - started, encoding + time.perf_counter() - drawn
    return 1e3 * drawing / len(path), 1e3 * encoding / len(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("field", type=Path)
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=int, default=720)
    parser.add_argument("--frames", type=int, default=60)
    options = parser.parse_args()
    name = options.field.name.removeprefix(FIELD_PREFIX)
    state = load_scene_state(
        name, ScenePaths(options.field, options.scan), RenderOptions(), QualityOptions(), (124, 124),
        choose_device(options.device),
    )  # fmt: skip
    settings, path = DisplaySettings(), flight(state, options.frames)
    renderer = ViewRenderer(state, settings)
    print(f"{name}: {options.rows}x{round(options.rows * ASPECT)} pixels on {state.field.grid.device.type}")
    print(f"{'mode':<14}{'draw ms':>9}{'encode ms':>11}{'frames/s':>10}")
    for mode in (COLOR, SH_CHANNEL, SH_GRADIENT, DEPTH, ALPHA, *([ANNOTATION] if state.mesh is not None else [])):
        settings.mode = mode
        draw, encode = measure(renderer, path, options.rows)
        print(f"{mode:<14}{draw:>9.2f}{encode:>11.2f}{1e3 / (draw + encode):>10.1f}", flush=True)


if __name__ == "__main__":
    main()

"""The README's picture: one row a view: photograph, render, SH image, annotation, a network's prediction, fused labels.

    python docs/answer_picture.py WORK SCENE CHECKPOINT OUTPUT [--views 3 20] [--scale 3]

WORK is that of fit, render, annotate and fuse, with DATA in WORK/data. Pictures are rendered at SCALE times the size of
the views; the network's predictions are enlarged pixel by pixel.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from analysis.false_color import sh_false_color  # noqa: E402
from analysis.quality import QualityOptions  # noqa: E402
from analysis.viewer.comparison import compare  # noqa: E402
from analysis.viewer.fused_view import fused_labels  # noqa: E402
from analysis.viewer.mesh_view import mesh_view  # noqa: E402
from analysis.viewer.scene_state import TRAJECTORY, ScenePaths, field_path, load_scene_state  # noqa: E402
from dataloader import load_scene  # noqa: E402
from model import RenderOptions  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.images import resize_image, resize_nearest, write_image  # noqa: E402
from utils.labels import colorize, label_set  # noqa: E402

logger = logging.getLogger(__name__)
_COLUMNS = ("photograph", "render", "SH image", "annotation", "one view predicted", "all views fused")
_INK, _LINE, _GAP = (31, 41, 51), 26, 4


def picture(work: Path, scene: str, checkpoint: Path, views: list[int], scale: int) -> Tensor:
    """Picture uint8 ``[3, H, W]``: captions, a row a view, and the names of the classes in it.

    Raises:
        UserError: something that it shows has not been made.
    """
    paths = ScenePaths(
        field_path(work / "fields", scene), work / "data" / "scans" / scene, work / "views" / "original" / scene,
        checkpoints=[checkpoint], fused=work / "fused" / scene,
    )  # fmt: skip
    state = load_scene_state(scene, paths, RenderOptions(), QualityOptions(), (124, 124), torch.device("cpu"))
    if state.semantic is None or state.mesh is None:
        raise UserError(f"{work} lacks fused labels or the labelled mesh of {scene}; run 'annotate' and 'fuse'")
    rows, seen = [], set()
    for view in views:
        images, classes = _row(state, load_scene(paths.scan), view, scale)
        rows.append(torch.cat([torch.nn.functional.pad(image, (0, _GAP, 0, _GAP), value=255) for image in images], -1))
        seen |= classes
    body = torch.cat(rows, -2)
    return torch.cat((_captions(body.shape[-1]), body, _names(sorted(seen - {0}), body.shape[-1])), -2)


def _row(state, scan, view: int, scale: int) -> tuple[list[Tensor], set[int]]:
    source = state.sources[TRAJECTORY]
    size = tuple(side * scale for side in source.cameras.image_size)
    cameras = source.cameras.resized(size)
    pose, intrinsics = cameras.camera_to_world[view], cameras.intrinsics[view]
    rendered = state.field.render_view(pose, intrinsics, size, state.options, ("rgb", "sh"), lens=cameras.lens)
    photo = scan.read_color(scan.frames.index(cameras.names[view]))
    truth = mesh_view(state.mesh, pose, intrinsics, size, lens=cameras.lens).label
    fused = fused_labels(state, pose, intrinsics, size, lens=cameras.lens)
    single = compare(state, source, view).pictures["prediction"]
    images = [
        _bytes(resize_image(photo.float() / (255 if photo.dtype == torch.uint8 else 1), size)), _bytes(rendered.rgb),
        sh_false_color(rendered.sh), colorize(truth), resize_nearest(single, size), colorize(fused),
    ]  # fmt: skip
    return images, {*truth.unique().tolist(), *fused.unique().tolist()}


def _bytes(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _captions(width: int) -> Tensor:
    line = Image.new("RGB", (width, _LINE), "white")
    for number, name in enumerate(_COLUMNS):
        middle = (number + 0.5) * width / len(_COLUMNS), _LINE / 2
        ImageDraw.Draw(line).text(middle, name, _INK, ImageFont.load_default(size=16), anchor="mm")
    return torch.from_numpy(np.array(line)).permute(2, 0, 1)


def _names(classes: list[int], width: int) -> Tensor:
    """A line with the classes' colours and names."""
    line, font, x = Image.new("RGB", (width, _LINE), "white"), ImageFont.load_default(size=14), 4
    draw = ImageDraw.Draw(line)
    for index in classes:
        draw.rectangle((x, 6, x + 13, 19), tuple(label_set().colors[index].tolist()))
        draw.text((x + 18, _LINE / 2), label_set().names[index], _INK, font, anchor="lm")
        x += 34 + int(font.getlength(label_set().names[index]))
    return torch.from_numpy(np.array(line)).permute(2, 0, 1)


def main() -> int:
    """Read the command line; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("scene")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--views", type=int, nargs="+", default=[3, 20])
    parser.add_argument("--scale", type=int, default=3)
    options = parser.parse_args()
    try:
        made = picture(options.work, options.scene, options.checkpoint, options.views, options.scale)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_image(options.output, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A generated capture of an object with far surroundings: photographs from all sides, without depth, exact poses.

    python benchmarks/object_capture.py OUT [--views 80] [--far 12] [--height 0.25 0.85]

A ball and two blocks are on a ground that extends to the horizon, pillars are at twice the cameras' distance, and a
textured sky at `--far` closes the scene. OUT becomes a folder with transforms.json, which `run.py fit` and
`benchmarks/fit.py` read. It resembles a capture of a statue on a square.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils.cameras import camera_rays, look_at  # noqa: E402
from utils.images import resize_image, write_image  # noqa: E402

SIZE = (200, 300)
SUPERSAMPLING = 2
WAVES = 24
GOLDEN_ANGLE = 2.399963


class Texture:
    """A smooth random colour of every point: waves of eight frequencies in random directions."""

    def __init__(self, generator: torch.Generator, frequency: float):
        octave = torch.arange(WAVES, dtype=torch.float64) % 8
        self._waves = torch.randn(3, WAVES, generator=generator, dtype=torch.float64) * frequency * 1.35**octave
        self._phases = torch.rand(WAVES, generator=generator, dtype=torch.float64) * 6.28
        self._strengths = 1.15**-octave

    def __call__(self, points: Tensor) -> Tensor:
        """Colours 0..1 ``[N, 3]`` of points ``[N, 3]``."""
        waves = torch.sin(points @ self._waves + self._phases) * self._strengths
        return 0.5 + 0.42 * torch.tanh(0.5 * waves.unflatten(-1, (-1, 3)).sum(-2))


def sphere_distance(origins: Tensor, directions: Tensor, center: Tensor, radius: float, inside: bool = False) -> Tensor:
    """Distance ``[N]`` along rays to a sphere, from outside or inside; infinite where it is missed."""
    relative = origins - center
    along = (relative * directions).sum(-1)
    square = along**2 - (relative**2).sum(-1) + radius**2
    distance = -along + square.clamp(min=0).sqrt() * (1 if inside else -1)
    return torch.where((square > 0) & (distance > 1e-3), distance, torch.inf)


def box_distance(origins: Tensor, directions: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Distance ``[N]`` along rays to a box from outside; infinite where it is missed."""
    first, second = (lower - origins) / directions, (upper - origins) / directions
    entry, leave = torch.minimum(first, second).amax(-1), torch.maximum(first, second).amin(-1)
    return torch.where((entry < leave) & (entry > 1e-3), entry, torch.inf)


class Square:
    """The scene; cameras are about 2 units from its centre."""

    def __init__(self, far: float):
        generator = torch.Generator().manual_seed(0)
        frequencies = (5.0, 5.0, 5.0, 1.5, 2.0, 6.0 / far)  # ball, two blocks, ground, pillars, sky
        self._textures = [Texture(generator, frequency) for frequency in frequencies]
        self._far = far

    def colors(self, origins: Tensor, directions: Tensor) -> Tensor:
        """What rays ``[N, 3]`` (float64) see, ``[N, 3]``."""
        vector = lambda *values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
        ground = torch.where(directions[:, 2] < 0, -origins[:, 2] / directions[:, 2], torch.inf)
        pillars = []
        for number, angle in enumerate(torch.arange(8, dtype=torch.float64) * (torch.pi / 4)):
            x, y = 4.5 * float(angle.cos()), 4.5 * float(angle.sin())
            height = 1.0 + number % 3
            lower, upper = vector(x - 0.4, y - 0.4, 0), vector(x + 0.4, y + 0.4, height)
            pillars.append(box_distance(origins, directions, lower, upper))
        distances = torch.stack((
            sphere_distance(origins, directions, vector(0.1, 0, 0.45), 0.45),
            box_distance(origins, directions, vector(-0.7, -0.5, 0), vector(-0.3, 0.4, 0.7)),
            box_distance(origins, directions, vector(0.3, -0.7, 0), vector(0.9, -0.4, 0.35)),
            ground,
            torch.stack(pillars).amin(0),
            sphere_distance(origins, directions, vector(0, 0, 0), self._far, inside=True),
        ))  # fmt: skip
        distance, surface = distances.min(0)
        points = origins + distance[:, None] * directions
        colors = torch.empty_like(points)
        for number, texture in enumerate(self._textures):
            mine = surface == number
            colors[mine] = texture(points[mine])
        return colors


def camera_poses(views: int, heights: tuple[float, float]) -> Tensor:
    """Poses ``[N, 4, 4]`` around the middle, which look at it."""
    number = torch.arange(views, dtype=torch.float64)
    around, distance = number * GOLDEN_ANGLE, 2 + 0.3 * number.sin()
    height = heights[0] + (heights[1] - heights[0]) * (number * 0.618 % 1)
    eyes = torch.stack((distance * around.cos(), distance * around.sin(), height), -1)
    targets = torch.tensor([0, 0, 0.4], dtype=torch.float64) + 0.15 * torch.stack(
        ((3 * number).sin(), (5 * number).sin(), (7 * number).sin()), -1
    )
    return torch.stack([look_at(eye, target) for eye, target in zip(eyes, targets, strict=True)])


def write_capture(folder: Path, views: int, far: float, heights: tuple[float, float]) -> None:
    """Write images and transforms.json (OpenGL's camera axes)."""
    scene, poses = Square(far), camera_poses(views, heights)
    focal, (height, width) = 0.9 * SIZE[1], SIZE
    fine = tuple(side * SUPERSAMPLING for side in SIZE)
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    scale = torch.tensor([[SUPERSAMPLING], [SUPERSAMPLING], [1.0]], dtype=torch.float64)
    frames = []
    for number, pose in enumerate(poses):
        origins, directions = (rays.reshape(-1, 3).double() for rays in camera_rays(pose, intrinsics * scale, *fine))
        image = scene.colors(origins, directions).float().reshape(*fine, 3).movedim(-1, 0)
        name = f"images/{number:03d}.jpg"
        write_image(folder / name, resize_image(image, SIZE))
        matrix = pose.clone()
        matrix[:3, 1:3] *= -1
        frames.append({"file_path": name, "transform_matrix": matrix.tolist()})
    camera = {"fl_x": focal, "fl_y": focal, "cx": width / 2, "cy": height / 2, "w": width, "h": height}
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": frames}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=80)
    parser.add_argument("--far", type=float, default=12.0, help="distance of the sky; cameras are at 2")
    parser.add_argument("--height", type=float, nargs=2, default=(0.25, 0.85), help="lowest and highest camera")
    options = parser.parse_args()
    write_capture(options.folder, options.views, options.far, tuple(options.height))


if __name__ == "__main__":
    main()

"""A fisheye capture and its pinhole twin: one room from the same poses, each fitted, each measured at both cameras.

    python benchmarks/fisheye.py OUT [--field-of-view 150] [--size 120 160] [--frames 32] [--resolution 64]
                                 [--steps 400] [--rays 4096]

OUT receives two folders of scans. Frames 0, 8, 16, ... are held out of both fits. Pictures have the same number of
pixels, so the fisheye's show each surface at fewer of them. Annotations of the fisheye's held-out cameras are compared
with every face of the mesh, ray by ray.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dataloader import Scene, load_mesh, load_scene  # noqa: E402
from dataloader.synthesis import PictureOptions, RoomOptions, write_room  # noqa: E402
from lib.plenoxel.options import RenderOptions  # noqa: E402
from model import RadianceField  # noqa: E402
from model.annotation import annotate_views, face_labels, vertex_labels  # noqa: E402
from model.fitting.evaluation import mean_measurements, render_held_out  # noqa: E402
from model.fitting.fitter import FitOptions  # noqa: E402
from model.fitting.frames import load_training_frames, split_frames  # noqa: E402
from model.fitting.options import FitData, FitGrid, FitOptimization  # noqa: E402
from model.fitting.preparation import prepare_fitter  # noqa: E402
from utils.cameras import camera_rays, seen_pixels  # noqa: E402
from utils.device import choose_device  # noqa: E402

DATA = FitData()
RAYS_CHECKED = 2000
FACES_AT_ONCE = 2000
NEAR = 0.01  # metres, as annotate.near


def fitted(scene: Scene, options: FitOptions, device: torch.device) -> tuple[RadianceField, float]:
    """The scene's field, and the seconds of its optimisation."""
    frames = load_training_frames(scene, DATA, device)
    fitter, placement = prepare_fitter(scene, frames, DATA, options)
    fitter.run()
    return RadianceField(fitter.grid, placement.transform(), fitter.capture()), fitter.seconds


def measured(field: RadianceField, scene: Scene) -> dict[str, float | None]:
    """Means over the scene's held-out frames."""
    _, held_out = split_frames(scene.frames, DATA, scene.splits)
    views = render_held_out(field, scene, held_out, scene.image_size, RenderOptions())
    return mean_measurements([view.measurements() for view in views])


def nearest_faces(corners: np.ndarray, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Face [R] (-1: none) and distance [R] that rays from one point hit first, by Möller and Trumbore's test of every
    face; their determinants are linear in the directions.

    Args:
        corners: float64 [F, 3, 3].
        origin: [3].
        directions: [R, 3].
    """
    face, distance = np.full(len(directions), -1), np.full(len(directions), np.inf)
    for first in range(0, len(corners), FACES_AT_ONCE):
        a, b, c = corners[first : first + FACES_AT_ONCE].transpose(1, 0, 2)
        edge1, edge2, offset = b - a, c - a, origin - a
        turned = np.cross(offset, edge1)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / (directions @ np.cross(edge2, edge1).T)
            u = directions @ np.cross(edge2, offset).T * inverse
            v = directions @ turned.T * inverse
            t = (edge2 * turned).sum(1) * inverse
            t = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > NEAR), t, np.inf)
        best = t.argmin(1)
        nearer = t[np.arange(len(t)), best] < distance
        distance = np.where(nearer, t[np.arange(len(t)), best], distance)
        face = np.where(nearer, first + best, face)
    return face, distance


def annotation_errors(scene: Scene) -> tuple[int, int, float]:
    """Rays compared, those with another class, and the largest difference of depth in metres of the others."""
    mesh = load_mesh(scene.label_mesh_path, require_labels=True)
    _, held_out = split_frames(scene.frames, DATA, scene.splits)
    cameras = scene.cameras(frames=held_out)
    views = annotate_views(mesh, cameras)
    labels = torch.cat((face_labels(vertex_labels(mesh.labels), mesh.faces), torch.zeros(1, dtype=torch.uint8)))
    corners = mesh.vertices.double()[mesh.faces.long()].numpy()
    generator = torch.Generator().manual_seed(0)
    compared, wrong, largest = 0, 0, 0.0
    for view, pose in enumerate(cameras.camera_to_world):
        seen = seen_pixels(cameras.intrinsics[view], cameras.image_size, cameras.lens).flatten().nonzero()[:, 0]
        chosen = seen[torch.randperm(len(seen), generator=generator)[: RAYS_CHECKED // len(held_out)]]
        rays: Tensor = camera_rays(pose, cameras.intrinsics[view], *cameras.image_size, cameras.lens)[1].reshape(-1, 3)
        face, distance = nearest_faces(corners, pose[:3, 3].numpy(), rays[chosen].double().numpy())
        same = labels[face].numpy() == views.label[view].flatten()[chosen].numpy()
        gap = np.abs(views.depth[view].flatten()[chosen].numpy() - np.where(face >= 0, distance, 0.0))[same]
        compared, wrong, largest = compared + len(chosen), wrong + int((~same).sum()), max(largest, float(gap.max()))
    return compared, wrong, largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--field-of-view", type=float, default=150.0, help="of the fisheye's image circle, degrees")
    parser.add_argument("--pinhole", type=float, default=90.0, help="horizontal field of view of the twin, degrees")
    parser.add_argument("--size", type=int, nargs=2, default=(120, 160), help="height and width of the pictures")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--room", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rays", type=int, default=4096)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    pictures = {"size": tuple(arguments.size), "frames": arguments.frames}
    lenses = {
        "pinhole": PictureOptions(field_of_view=arguments.pinhole, **pictures),
        "fisheye": PictureOptions(field_of_view=arguments.field_of_view, lens="fisheye", **pictures),
    }
    scenes = {}
    for name, options in lenses.items():
        write_room(arguments.out / name, 0, arguments.room, RoomOptions(), options)
        scenes[name] = load_scene(arguments.out / name)
    coarse = arguments.steps // 3
    options = FitOptions(
        FitGrid(resolutions=(arguments.resolution // 2, arguments.resolution)),
        FitOptimization(steps=(coarse, arguments.steps - coarse), rays_per_step=(arguments.rays,)),
    )
    device = choose_device(arguments.device)
    print(f"{'field fitted to':18s} {'at pinholes':>20s} {'through the lens':>20s} {'voxels':>9s} {'seconds':>8s}")
    for name, scene in scenes.items():
        field, seconds = fitted(scene, options, device)
        scores = [measured(field, scenes[camera]) for camera in scenes]
        columns = " ".join(f"{score['psnr']:7.2f} dB SSIM {score['ssim']:.3f}" for score in scores)
        print(f"{name:18s} {columns} {field.grid.num_voxels:9d} {seconds:8.1f}", flush=True)
    started = time.perf_counter()
    compared, wrong, largest = annotation_errors(scenes["fisheye"])
    print(f"annotation: {compared} rays against every face, {wrong} of another class, depth of the others within "
          f"{largest * 1000:.4f} mm ({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()

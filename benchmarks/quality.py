"""Does the estimated render quality of novel views rank their true error?

Generated rooms can be photographed from anywhere: dome cameras around every furniture class are rendered from the
fitted field and compared with the room's own picture from there. The table gives Spearman's rank correlation of the
estimate with the error (mean absolute colour difference over 5x5 pixels), over pixels and over views; -1 is perfect.

    python benchmarks/quality.py WORK      (an output folder of scripts/demo.sh)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.dome_selection import DomeSelector, SelectionOptions, selected_cameras  # noqa: E402
from analysis.domes import floor_height  # noqa: E402
from analysis.quality import Observers, QualityOptions, estimate_quality  # noqa: E402
from analysis.room_space import RoomSpace, SpaceOptions  # noqa: E402
from analysis.targets import TargetOptions, find_targets  # noqa: E402
from dataloader import CameraList, Mesh, ViewStore, load_mesh, load_scannet_scene  # noqa: E402
from dataloader.synthesis.lighting import illuminate  # noqa: E402
from dataloader.synthesis.pictures import PictureOptions, take_picture  # noqa: E402
from dataloader.synthesis.room import RoomOptions, build_room  # noqa: E402
from dataloader.synthesis.shading import Shader  # noqa: E402
from model.annotation import annotate_views  # noqa: E402
from model.radiance_field import RadianceField  # noqa: E402
from utils.files import read_json  # noqa: E402
from utils.images import resize_image  # noqa: E402
from utils.seeding import generator, numpy_generator  # noqa: E402

VIEWS_PER_ROOM = 32
FURNITURE = list(range(3, 21))
MIN_OPACITY = 0.5


def novel_cameras(store: ViewStore, mesh: Mesh, observers: Observers) -> tuple[CameraList, Tensor]:
    """Dome cameras that see their target, well observed or not, and the mesh's depth ``[N, H, W]`` there."""
    targets = find_targets(mesh, store, FURNITURE, TargetOptions(max_per_class=2))
    floor = floor_height(mesh.vertices, mesh.labels)
    space = RoomSpace(mesh, store.cameras.camera_to_world[:, :3, 3].numpy(), SpaceOptions())
    selector = DomeSelector(mesh, store.cameras, observers, space, floor, 0, SelectionOptions(min_observed=0.0))
    selection = selector.choose(targets, VIEWS_PER_ROOM)
    domes = selected_cameras(selection, [len(poses) for poses in selection.poses], targets, store.cameras)
    chosen = torch.randperm(len(domes), generator=generator(0, store.scene))[:VIEWS_PER_ROOM]
    cameras = domes.select(chosen)
    return cameras, annotate_views(mesh, cameras).depth


def true_pictures(scan: Path, cameras: CameraList) -> Tensor:
    """Ground-truth images of the room from ``cameras``: float32 ``[N, 3, H, W]``, without the sensor's noise."""
    settings = read_json(scan / "settings.json")
    room = build_room(settings["seed"], settings["index"], RoomOptions(**settings["room"]))
    shader = Shader(room, illuminate(room, numpy_generator(settings["seed"], "light", settings["index"])))
    options = PictureOptions(**{**settings["pictures"], "noise": 0.0})
    pictures = [take_picture(room, shader, pose.numpy(), options, np.random.default_rng(0)).color
                for pose in cameras.camera_to_world]
    return resize_image(torch.from_numpy(np.stack(pictures)).float() / 255, cameras.image_size)


def rate_room(work: Path, scan: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Estimated quality and error ``[N, H, W]`` of one room's novel views, and where there is a surface."""
    field_path = work / "fields" / f"plenoxel_scannet_{scan.name}"
    store = ViewStore(work / "views" / "original" / scan.name)
    mesh = load_mesh(load_scannet_scene(scan).label_mesh_path, require_labels=True)
    options = QualityOptions()
    held_out = frozenset(read_json(field_path / "results.json")["held_out"])
    observers = Observers.from_store(store.path, options.max_views, held_out)
    cameras, surface = novel_cameras(store, mesh, observers)
    views = RadianceField.load(field_path).render_views(
        cameras.camera_to_world, cameras.intrinsics, cameras.image_size
    )
    error = (views.rgb.clamp(0, 1) - true_pictures(scan, cameras)).abs().mean(1)
    depth = torch.where(views.alpha >= MIN_OPACITY, views.depth / views.alpha.clamp(min=MIN_OPACITY), 0.0)
    quality = torch.stack([
        estimate_quality(surface[k], depth[k], views.alpha[k], cameras.intrinsics[k].float(),
                         cameras.camera_to_world[k].float(), observers, options)
        for k in range(len(cameras))
    ])
    return quality, F.avg_pool2d(error[:, None], 5, 1, 2, count_include_pad=False)[:, 0], surface > 0


def main(work: Path) -> None:
    print(f"{'room':<14}{'views':>6}{'pixels':>9}{'views':>9}{'error, worst quarter':>22}{'best quarter':>14}")
    for scan in sorted((work / "data" / "scans").glob("*")):
        if not (scan / "settings.json").exists():
            continue
        quality, error, known = rate_room(work, scan)
        pixels = spearmanr(quality[known], error[known]).statistic
        views = spearmanr(quality.mean((1, 2)), error.mean((1, 2))).statistic
        low, high = (float(np.quantile(quality[known], share)) for share in (0.25, 0.75))
        print(f"{scan.name:<14}{len(quality):>6}{pixels:>9.2f}{views:>9.2f}"
              f"{error[known & (quality <= low)].mean():>22.4f}{error[known & (quality >= high)].mean():>14.4f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the output folder of scripts/demo.sh: python benchmarks/quality.py outputs/demo")
    main(Path(sys.argv[1]))

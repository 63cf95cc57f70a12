"""What each part of the fit is worth: held-out PSNR and SSIM with it changed, one row a change.

    python benchmarks/fit.py SCENE [--device cuda] [--side 540] [--resolution 256] [--steps 6000] [--rays 16384]
                             [--rows "baseline;poses as given;..."] [--given-poses] [--depth-error 0.02]

A row may be several changes, "epsilon 1e-8 + one grid"; the later one counts where both change the same. "train" is
the PSNR of every ninth photograph that was fitted. With --pictures FOLDER the held-out renders are kept beside their
photographs and depth.

SCENE is a folder in any layout that `run.py fit` reads. Frames 0, 8, 16, ... in numeric order are held out, unless it
has splits of its own. Seconds are of the optimisation alone; the frames are read once.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from imageio.v3 import imwrite
from torch import Tensor
from torch.nn.functional import interpolate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dataloader import Scene, load_scene  # noqa: E402
from lib.plenoxel.options import RenderOptions  # noqa: E402
from model import RadianceField  # noqa: E402
from model.fitting.evaluation import (  # noqa: E402
    depth_picture,
    mean_measurements,
    render_held_out,
    side_by_side,
)
from model.fitting.fitter import FitOptions, Fitter  # noqa: E402
from model.fitting.frames import Frames, load_training_frames, split_frames  # noqa: E402
from model.fitting.options import (  # noqa: E402
    FitBackground,
    FitData,
    FitGrid,
    FitOpen,
    FitOptimization,
    FitPoses,
    FitRegularization,
)
from model.fitting.preparation import prepare_fitter  # noqa: E402
from utils.device import choose_device  # noqa: E402


@dataclass(frozen=True)
class Change:
    """How one row differs from the baseline: half the resolution for a third of the steps, then all of it."""

    grid: dict[str, Any] = field(default_factory=dict)
    optimization: dict[str, Any] = field(default_factory=dict)
    regularization: dict[str, Any] = field(default_factory=dict)
    poses: dict[str, Any] = field(default_factory=dict)
    background: dict[str, Any] = field(default_factory=dict)
    open: dict[str, Any] = field(default_factory=dict)
    exposure: bool = True


def changes(resolution: int, steps: int) -> dict[str, Change]:
    """The rows by name."""
    one_level = {"resolutions": (resolution,)}
    before = {"nested": 1, "clearance": 0.0, "near": 0.0, "variation": (1.0, 1.0), "density_rate": None}
    return {
        "baseline": Change(),
        "no exposure compensation": Change(exposure=False),
        "poses as given": Change(poses={"rounds": 0}),
        "20 rounds of poses": Change(poses={"rounds": 20}),
        "unmeasured space left empty": Change(grid={"fill_unknown": False}),
        "no clearance around cameras": Change(grid={"camera_clearance": 0.0}),
        "pruned at 0.02": Change(grid={"weight_threshold": 0.02}),
        "pruned at 0.1": Change(grid={"weight_threshold": 0.1}),
        "no losses of depth": Change(regularization={"depth": 0.0, "free_space": 0.0}),
        "depth 0.03, free space 0.003": Change(regularization={"depth": 0.03, "free_space": 0.003}),
        "depth 0.3, free space 0.03": Change(regularization={"depth": 0.3, "free_space": 0.03}),
        "free space 0.1": Change(regularization={"free_space": 0.1}),
        "no total variation": Change(regularization={"tv_density": (0.0, 0.0), "tv_sh": (0.0, 0.0)}),
        "total variation x10": Change(regularization={"tv_density": (5e-3, 5e-3), "tv_sh": (5e-2, 5e-2)}),
        "beta loss 1e-3": Change(regularization={"beta": 1e-3}),
        "sparsity 1e-10": Change(regularization={"sparsity": 1e-10}),
        "surfaces not thickened": Change(grid={"thicken": 0}),
        "surfaces thickened by 2": Change(grid={"thicken": 2}),
        "SH rate 1e-2": Change(optimization={"sh_rate": (1e-2, 5e-4)}),
        "SH rate 6e-2": Change(optimization={"sh_rate": (6e-2, 1e-3)}),
        "density rate 10": Change(optimization={"density_rate": (10.0, 1.0)}),
        "density rate 3": Change(optimization={"density_rate": (3.0, 0.3)}),
        "one level": Change(grid=one_level, optimization={"steps": (steps,)}),
        "full grid": Change(grid={"start": "dense"}, optimization={"density_rate": (30.0, 1.0)}),
        "no background layers": Change(background={"layers": 0}),
        **{f"{layers} background layers": Change(background={"layers": layers}) for layers in (2, 4, 8, 16, 32)},
        **{f"background of {rows} rows": Change(background={"rows": rows}) for rows in (64, 128, 256, 1024)},
        "fog of 0.002": Change(grid={"unknown_opacity": 0.002}),
        "fog of 0.002, density rate 5": Change(
            grid={"unknown_opacity": 0.002}, optimization={"density_rate": (5.0, 0.5)}
        ),
        "fog of 0.002, density rate 15": Change(
            grid={"unknown_opacity": 0.002}, optimization={"density_rate": (15.0, 0.5)}
        ),
        "one grid": Change(open={"nested": 1}),
        "one grid, as before nested ones": Change(open=before),
        "ten times the variation in open scenes": Change(open={"variation": (10.0, 10.0)}),
        "usual density rate in open scenes": Change(open={"density_rate": None}),
        "epsilon 1e-8": Change(optimization={"epsilon": 1e-8}),
        "from a quarter of the resolution": Change(
            grid={"resolutions": (resolution // 4, resolution // 2, resolution)},
            optimization={"steps": (steps // 6, steps // 6, steps - 2 * (steps // 6))},
        ),
        "from an eighth of the resolution": Change(
            grid={"resolutions": (resolution // 8, resolution // 4, resolution // 2, resolution)},
            optimization={"steps": (steps // 8, steps // 8, steps // 4, steps - steps // 2)},
        ),
        "fog of 0.001": Change(grid={"unknown_opacity": 0.001}),
        "density rate 24 in open scenes": Change(open={"density_rate": (24.0, 0.5)}),
        **{f"structure {weight}": Change(regularization={"structure": weight}) for weight in (0.003, 0.01, 0.03)},
        "variation falling from x30 in open scenes": Change(open={"variation": (30.0, 1.0)}),
        "variation falling from x100 in open scenes": Change(open={"variation": (100.0, 1.0)}),
        "3 nested grids": Change(open={"nested": 3}),
        "5 nested grids": Change(open={"nested": 5}),
        "fog before open cameras": Change(open={"clearance": 0.0, "near": 0.0}),
        "clearance alone": Change(open={"near": 0.0}),
        "usual variation in open scenes": Change(open={"variation": (1.0, 1.0)}),
        "grid to 1.3 times the cameras": Change(grid={"camera_space": 1.3}),
        "grid to 3 times the cameras": Change(grid={"camera_space": 3.0}),
        "half the resolution": Change(grid={"resolutions": (resolution // 4, resolution // 2)}),
        "1.5 times the resolution": Change(grid={"resolutions": (3 * resolution // 4, 3 * resolution // 2)}),
        "exact depth": Change(
            grid=one_level, optimization={"steps": (steps,)}, poses={"rounds": 0},
            regularization={"tv_density": (1e-4, 1e-4), "tv_sh": (1e-3, 1e-3)},
        ),
        "twice the resolution": Change(grid={"resolutions": (resolution, 2 * resolution)}),
        "three times the steps": Change(optimization={"steps": (steps, 2 * steps)}),
        "1.5 times the resolution and three times the steps": Change(
            grid={"resolutions": (3 * resolution // 4, 3 * resolution // 2)}, optimization={"steps": (steps, 2 * steps)}
        ),
    }


def combine(rows: dict[str, Change], name: str) -> Change:
    """The change of one row, or of several joined by " + "."""
    parts = [rows[part] for part in name.split(" + ")]
    groups = [group.name for group in fields(Change) if group.name != "exposure"]
    merged = {group: {key: value for part in parts for key, value in getattr(part, group).items()} for group in groups}
    return Change(**merged, exposure=all(part.exposure for part in parts))


def spoil_depth(depths: Tensor, error: float) -> Tensor:
    """Depth maps that are wrong by the share ``error`` everywhere, and by as much again from region to region."""
    generator = torch.Generator().manual_seed(0)
    regions = torch.randn(len(depths), 1, 8, 10, generator=generator)
    regions = interpolate(regions, depths.shape[1:]).squeeze(1).to(depths.device)
    return (depths * (1 + error) * (1 + error * regions)).round().clamp(0, 2**15 - 1).to(depths.dtype)


def fit_and_measure(
    scene: Scene, frames: Frames, indices: tuple[list[int], list[int]], options: FitOptions, data: FitData,
    pictures: Path | None = None,
) -> tuple[dict[str, float | None], float | None, Fitter]:
    """Fit once; returns the means over the held-out frames, the PSNR of some training frames, and the fitter."""
    fitter, placement = prepare_fitter(scene, frames, data, options)
    fitter.run()
    if frames.images.device.type == "cuda":
        torch.cuda.synchronize()
    radiance_field = RadianceField(fitter.grid, placement.transform(), fitter.capture())
    fitted, measured = [], []
    for view in render_held_out(radiance_field, scene, indices[0][::9], frames.size, options.rendering):
        fitted.append(view.measurements())
    for view in render_held_out(radiance_field, scene, indices[1], frames.size, options.rendering):
        measured.append(view.measurements())
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            picture = torch.cat((side_by_side(view), depth_picture(view.depth)), dim=2)
            imwrite(pictures / f"{Path(view.frame).stem}.jpg", picture.permute(1, 2, 0).numpy())
    return mean_measurements(measured), mean_measurements(fitted)["psnr"], fitter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, default=640, help="longer side of the photographs, pixels")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rays", type=int, default=16384)
    parser.add_argument("--rows", help="names of rows, with semicolons between (default: all)")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the held-out views, a folder a row")
    parser.add_argument("--given-poses", action="store_true", help="no row refines poses")
    parser.add_argument("--depth-error", type=float, default=0.0, help="make measured depth wrong by this share")
    arguments = parser.parse_args()

    rows = changes(arguments.resolution, arguments.steps)
    chosen = arguments.rows.split(";") if arguments.rows else list(rows)
    if unknown := [part for name in chosen for part in name.split(" + ") if part not in rows]:
        parser.error(f"no row is called {unknown[0]!r}; there are: {'; '.join(rows)}")
    data = FitData(max_image_side=arguments.side)
    scene = load_scene(arguments.scene, RenderOptions().background_brightness)
    started = time.perf_counter()
    frames = load_training_frames(scene, data, choose_device(arguments.device))
    if arguments.depth_error:
        frames.depths = spoil_depth(frames.depths, arguments.depth_error)
    training, held_out = split_frames(scene.frames, data, scene.splits)
    print(f"{scene.name}: {len(frames)} training frames of {frames.size}, {len(held_out)} held out, read in "
          f"{time.perf_counter() - started:.1f} s")
    print(f"{arguments.resolution}^3 voxels, {arguments.steps} steps of {arguments.rays} rays")
    print(f"{'':50s} {'PSNR':>6s} {'SSIM':>6s} {'given':>6s} {'neutral':>8s} {'train':>6s} "
          f"{'voxels':>9s} {'seconds':>8s}")
    levels = {"resolutions": (arguments.resolution // 2, arguments.resolution)}
    steps = (arguments.steps // 3, arguments.steps - arguments.steps // 3)
    given_poses = {"rounds": 0} if arguments.given_poses else {}
    for name in chosen:
        change = combine(rows, name)
        options = FitOptions(
            replace(FitGrid(), **{**levels, **change.grid}),
            replace(FitOptimization(), **{"steps": steps, "rays_per_step": (arguments.rays,), **change.optimization}),
            replace(FitRegularization(), **change.regularization),
            poses=replace(FitPoses(), **{**change.poses, **given_poses}),
            background=replace(FitBackground(), **change.background),
            open=replace(FitOpen(), **change.open),
        )
        folder = arguments.pictures and arguments.pictures / name.replace(" ", "_").replace("/", "_")
        mean, train, fitter = fit_and_measure(
            scene, frames, (training, held_out), options, replace(data, exposure=change.exposure), folder
        )
        print(f"{name:50s} {mean['psnr']:6.2f} {mean['ssim']:6.3f} {mean['psnr_given_pose']:6.2f} "
              f"{mean['psnr_neutral']:8.2f} {train:6.2f} "
              f"{fitter.grid.num_voxels:9d} {fitter.seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
